"""The conformance guest as a file: reproducible, a right PVH ELF, and byte for byte what GNU as makes of its source."""

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from pvhboot.shim import guest
from pvhboot.shim.abi import devices, pvh
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import asm_source

BITS = (32, 64)


def elf(bits: int) -> Any:
    return ELFFile(io.BytesIO(guest.build_guest(bits)))


def only_segment(bits: int, kind: str) -> Any:
    (segment,) = (segment for segment in elf(bits).iter_segments() if segment["p_type"] == kind)
    return segment


@pytest.mark.parametrize("bits", BITS)
def test_same_bytes_each_time(bits: int) -> None:
    assert guest.build_guest(bits) == guest.build_guest(bits)


@pytest.mark.parametrize("bits", [0, 16, 128])
def test_other_sizes_are_refused(bits: int) -> None:
    with pytest.raises(BootError, match=f"guest of {bits} bits"):
        guest.build_guest(bits)


@pytest.mark.parametrize(("bits", "machine"), [(32, "EM_386"), (64, "EM_X86_64")])
def test_elf_class_and_machine(bits: int, machine: str) -> None:
    file = elf(bits)
    assert (file.elfclass, file["e_machine"], file["e_type"]) == (bits, machine, "ET_EXEC")


@pytest.mark.parametrize("bits", BITS)
def test_one_writable_load_at_1m_with_bss(bits: int) -> None:
    load = only_segment(bits, "PT_LOAD")
    assert load["p_paddr"] == load["p_vaddr"] == 0x100000
    assert load["p_flags"] == 7
    assert load["p_memsz"] == guest.GUEST_STACK_TOP - 0x100000 > load["p_filesz"]
    assert 0x100000 + load["p_filesz"] <= guest.GUEST_STATE_PADDR


@pytest.mark.parametrize(("bits", "size"), [(32, 4), (64, 8)])
def test_note_names_the_entry(bits: int, size: int) -> None:
    data = only_segment(bits, "PT_NOTE").data()
    entry = int.from_bytes(data[16:], "little")
    assert data[:16] == bytes([4, 0, 0, 0, size, 0, 0, 0, 18, 0, 0, 0]) + b"Xen\0"
    assert len(data) == 16 + size
    load = only_segment(bits, "PT_LOAD")
    assert load["p_paddr"] <= entry < load["p_paddr"] + load["p_filesz"]
    assert entry == elf(bits)["e_entry"]


@pytest.mark.parametrize("bits", BITS)
def test_note_is_found_by_pyelftools(bits: int) -> None:
    (found,) = only_segment(bits, "PT_NOTE").iter_notes()
    assert (found["n_name"], found["n_type"]) == ("Xen", pvh.XEN_ELFNOTE_PHYS32_ENTRY)
    assert found["n_descsz"] == guest.GUEST_DESCRIPTOR_BYTES[bits]


@pytest.mark.parametrize("bits", BITS)
def test_symbols_are_those_of_the_source(bits: int) -> None:
    symbols = {symbol.name: symbol["st_value"] for symbol in elf(bits).get_section_by_name(".symtab").iter_symbols()}
    assert symbols["guest_entry"] == 0x100000
    assert {"guest_leave", "check_table", "put_template"} <= set(symbols)


@pytest.mark.parametrize("bits", BITS)
def test_variants_differ_in_their_name_only(bits: int) -> None:
    code = only_segment(bits, "PT_LOAD").data()
    assert code.count(f" elf{bits}\n".encode()) == 1
    other = only_segment(96 - bits, "PT_LOAD").data()
    assert code.replace(f" elf{bits}\n".encode(), f" elf{96 - bits}\n".encode()) == other


def test_every_check_is_in_the_table_and_their_number_cannot_be_mistaken() -> None:
    listed = re.findall(r"^\s+CHECK (\w+)$", asm_source("guest_data.s"), re.MULTILINE)
    defined = set(re.findall(r"^check_(\w+):", asm_source("guest_checks.s"), re.MULTILINE)) - {"good", "bad"}
    assert len(listed) == len(set(listed)) < guest.GUEST_NO_STACK
    assert set(listed) == defined


def test_fields_of_the_state_have_offsets_that_a_template_can_name() -> None:
    assert guest.GUEST_STATE.size <= 0x100


def test_no_instruction_that_a_software_kvm_refuses() -> None:
    refused = re.compile(
        r"^(int3?|into|iretd?|popcnt|rdrand|rdseed|movbe|bswap|verr|verw|arpl|bound|lsl|lar|xgetbv|x?save\w*|\w*mm\d.*)$"
    )
    listing = guest.assemble_guest(64).listing
    assert [line for line in listing if refused.match(line.text.split(" ")[0])] == []


def test_uart_and_debug_exit_constants() -> None:
    # PC16550D, table II; QEMU's default for isa-debug-exit.
    assert (devices.COM1_PORT, devices.UART_LCR, devices.UART_LSR) == (0x3F8, 3, 5)
    assert (devices.UART_LSR_THRE, devices.UART_LSR_TEMT, devices.UART_LCR_DLAB) == (0x20, 0x40, 0x80)
    assert devices.UART_DIVISOR_115200 == 1
    assert (devices.DEBUG_EXIT_PORT, devices.DEBUG_EXIT_SIZE) == (0x501, 2)
    assert [devices.debug_exit_status(value) for value in (0, 2, 127)] == [1, 5, 255]


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="no GNU as and ld (binutils) here")
@pytest.mark.parametrize("bits", BITS)
def test_gnu_as_makes_the_same_bytes(bits: int, tmp_path: Path) -> None:
    constants = "".join(f".equ {name}, {value:#x}\n" for name, value in guest.guest_symbols(bits).items())
    sources = "".join(unit.text for unit in guest.guest_units())
    (tmp_path / "guest.s").write_text(f".intel_syntax noprefix\n.globl guest_entry\n{constants}{sources}")
    for command in (
        ["as", "--32", "-o", "guest.o", "guest.s"],
        ["ld", "-m", "elf_i386", "-Ttext=0x100000", "-e", "guest_entry", "--oformat", "binary", "-o", "guest.bin", "guest.o"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert only_segment(bits, "PT_LOAD").data() == (tmp_path / "guest.bin").read_bytes()
