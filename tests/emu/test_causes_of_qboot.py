"""Why a firmware of which nothing but the ROM is there has gone astray: Debian's qboot."""

import json
import re

import pytest
from pvhboot.emu.cli import main
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE
from pytest_runs import section

pytest_plugins = ["pytester"]

JMP_ECX, JMP_EAX = b"\xb8\x02\xb0\xad\x2b\xff\xe1", b"\xb8\x02\xb0\xad\x2b\xff\xe0"  # mov eax, 0x2badb002; jmp


def cause(capsys, *arguments):
    assert main(["boot", "--json", *map(str, arguments)]) == 1
    return json.loads(capsys.readouterr().out)["causes"][0]


def test_the_jump_to_where_no_memory_is_is_the_last_instruction(qboot, engine_name, tmp_path, capsys):
    rom = qboot.read_bytes()
    if rom.count(JMP_ECX) != 1:
        pytest.skip(f"{qboot} is another qboot")
    (tmp_path / "broken.rom").write_bytes(rom.replace(JMP_ECX, JMP_EAX))
    told = cause(capsys, "--machine", "microvm", "--firmware", tmp_path / "broken.rom", "--engine", engine_name)
    assert told["title"] == "a jump to where no memory is"
    assert re.fullmatch(r"the last jump: 0xf\w+ \(ROM\+\w+\): jmp eax, to 0x2badb002", told["evidence"][0])


@pytest.mark.parametrize("until", ["handoff", "exit"])
def test_a_machine_without_a_low_rom_is_named(qboot, capsys, until):
    told = cause(capsys, "--firmware", qboot, "--until", until)
    assert re.fullmatch(r"zeros are executed from 0xf\w+ on, where the machine bare has no ROM", told["title"])
    assert "ljmp 8:0xf" in told["evidence"][0]
    assert told["remedy"].endswith("--machine microvm, microvm-acpi, pc, q35?")


def test_so_is_that_of_a_firmware_that_begins_with_a_far_jump(qboot, tmp_path, capsys):
    """As every BIOS does: ljmp 0xf000, 0xe05b."""
    rom = qboot.read_bytes()
    (tmp_path / "bios.rom").write_bytes(rom[:-16] + bytes.fromhex("ea5be000f0") + rom[-11:])
    told = cause(capsys, "--firmware", tmp_path / "bios.rom", "--max-instructions", "5000")
    assert told["title"] == "a far jump in real mode has left the ROM"
    assert told["remedy"].endswith("boot it there: --machine microvm, microvm-acpi, pc, q35?")


def test_a_machine_without_a_low_rom_is_named_in_a_test(qboot, run_pytest):
    result = run_pytest(f"""
        def test_it(pvh):
            pvh(firmware="{qboot}").run_until_handoff().check_abi()
    """)
    assert "likely cause: zeros are executed from 0xf" in section(result)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_what_lies_in_the_memory_that_pam_has_opened_is_misplaced_and_not_cut_off(qboot, machine, capsys):
    line = ["boot", "--json", "--machine", machine, "--firmware", str(qboot), "--append", "hello", "--until", "handoff"]
    assert main(line) == 1
    causes = {told["title"]: told for told in json.loads(capsys.readouterr().out)["causes"]}
    assert "where no usable RAM is" in causes["start_info lies where it must not"]["why"]
    told = causes["the command line lies where it must not"]
    assert re.fullmatch(r"All of it is there, where no usable RAM is\.", told["why"])
    assert told["evidence"][1].endswith("is not in usable RAM")


def test_zeros_are_told_though_the_kernel_behind_them_has_come_to_its_end(tmp_path, capsys):
    astray = "    mov eax, 0xe8000\n    jmp eax\n"
    blob = build(BARE, sources={"flat32.s": asm_source("flat32.s").replace("    cld\n", astray)})
    (tmp_path / "broken.rom").write_bytes(blob.data)
    told = cause(capsys, "--firmware", tmp_path / "broken.rom", "--until", "exit")
    assert told["title"] == "zeros are executed: a jump to where no code is"
    assert "jmp eax, to 0xe8000" in told["evidence"][0]
    assert "so has come upon the kernel's entry" in told["why"]
