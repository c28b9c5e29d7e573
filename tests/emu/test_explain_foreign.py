"""The story of a firmware without sources, and of firmwares that fail."""

import re

import pytest
from pvhboot.emu.cli import main
from pvhboot.emu.explain.text import WIDTH
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MICROVM
from pvhboot.shim.stage import make_stage
from traced import flat_guest

FOREIGN = ["reset", "a20", "gdt", "protected", "setup", "fw_cfg", "start_info", "handoff", "entry", "check"]

# What is broken, by its file and the text in it; the chapters that are left, and what the last one says.
_TO_PARAMS = ["reset", "a20", "gdt", "protected", "flat", "params"]
BROKEN = {
    "not present": (
        "tables.s",
        ".quad DESC_CODE32",
        ".quad DESC_CODE32 & ~(1 << 47)",
        [*_TO_PARAMS[:4], "end"],
        "is not marked present",
    ),
    "a panic": ("params.s", "MAGIC], PARAMS_MAGIC", "MAGIC], 1", [*_TO_PARAMS, "end"], "pvhboot panic 0xe1 PARAMS_MAGIC"),
    "a loop": (
        "flat32.s",
        "    cld\n",
        "1:  jmp 1b\n",
        [*_TO_PARAMS[:5], "end"],
        "The run ended after 500 instructions: limit",
    ),
    "astray": (
        "start_info.s",
        "    mov edi, START_INFO_PADDR\n",
        "    mov edi, 0x300000\n    jmp edi\n",
        [*_TO_PARAMS, "memmap", "kernel", "start_info", "end"],
        "zeros are executed",
    ),
    "no TR": (
        "handoff.s",
        "    ltr ax\n",
        "",
        ["tss", "mtrr", "handoff", "entry", "check"],
        "violated, cpu.tr: TR was never loaded",
    ),
}


@pytest.fixture
def explain(capsys):
    """Runs the command; its status and what it has printed."""

    def run(*arguments: object) -> tuple[int, str]:
        status = main(["explain", *map(str, arguments)])
        return status, capsys.readouterr().out

    return run


def _titles(text: str) -> list[str]:
    return re.findall(r"^Chapter \d+ of \d+ \((\w+)\): ", text, re.MULTILINE)


def _line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("machine", ["microvm", "microvm-acpi", "pc", "q35"])
def test_qboot(machine, explain, qboot):
    status, out = explain("--machine", machine, "--firmware", qboot)
    assert status == 1
    assert _titles(out) == FOREIGN
    assert max(map(len, out.splitlines())) <= WIDTH
    said = _line(out)
    assert "violated, cpu.tr" in said
    assert "TR was never loaded" in said
    assert "fw_cfg by DMA: the directory of files (key 0x19)" in said
    assert "fw_cfg: the kernel's entry (key 0x10), 4 bytes: 00 00 10 00" in said
    assert re.search(r"0xfffffff0 +jmp ", out)
    assert re.search(r"0xffffff\w\w +lgdt ", out)
    assert re.search(r"memory: .* start_info$", out, re.MULTILINE)
    assert "The memory map as the kernel gets it:" in out
    assert ".s:" not in out.replace("head.S", "")


def test_a_firmware_without_its_sources_has_the_same_story(explain, tmp_path):
    (tmp_path / "fw.bin").write_bytes(build(MICROVM).data)
    status, out = explain("--machine", "microvm", "--firmware", tmp_path / "fw.bin")
    assert status == 0
    assert _titles(out) == FOREIGN
    assert "27 of 27 clauses are met" in _line(out)


@pytest.mark.parametrize("name", BROKEN)
def test_a_firmware_that_fails(name, explain, tmp_path):
    file, old, new, chapters, said = BROKEN[name]
    source = asm_source(file)
    assert source.count(old) == 1
    blob = build(BARE, sources={file: source.replace(old, new)})
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json())
    options = "--firmware", tmp_path / "fw.bin", "--max-instructions", 500
    status, out = explain(*options, "--manifest", tmp_path / "fw.json")
    assert status == 1
    assert _titles(out)[-len(chapters) :] == chapters
    assert said in _line(out)
    assert "The likely cause: " in out
    assert max(map(len, out.splitlines())) <= WIDTH
    status, out = explain(*options)  # the same, of which only the bytes are known
    assert status == 1
    assert _titles(out)[-1] == chapters[-1]
    assert "The likely cause: " in out


@pytest.mark.parametrize(
    ("file", "old", "new", "chapter", "said", "not_said"),
    [
        (
            "tables.s",
            "rom_gdtr:\n    .word GDT_SIZE - 1",
            "rom_gdtr:\n    .word GDT_SIZE - 2",
            "gdt",
            "3 descriptors of 8 bytes, and 7",
            "4 d",
        ),
        (
            "realmode.s",
            "lgdtd cs:[rom_gdtr",
            ".byte 0x2e, 0x0f, 0x01, 0x16\n    .word rom_gdtr - RESET_CS_BASE #",
            "gdt",
            "with 16-bit operands",
            "32-bit op",
        ),
        ("flat32.s", "    mov es, eax\n", "", "flat", "Here not all three of them get it.", "So DS, ES and SS get"),
        ("handoff.s", "    ltr ax\n", "", "tss", "This firmware does not load it", "The descriptor that TR was loaded from"),
        (
            "handoff.s",
            "    mov ebx, START_INFO_PADDR\n",
            "    xor ebx, ebx\n",
            "handoff",
            "Here EBX is 0x0. The check",
            "start_info lies",
        ),
    ],
)
def test_the_prose_says_nothing_of_what_a_broken_firmware_leaves_out(
    file, old, new, chapter, said, not_said, explain, tmp_path
):
    source = asm_source(file)
    assert source.count(old) == 1
    blob = build(BARE, sources={file: source.replace(old, new)})
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json())
    _, out = explain("--firmware", tmp_path / "fw.bin", "--manifest", tmp_path / "fw.json", "--chapter", chapter)
    assert said in _line(out)
    assert not_said not in _line(out)


def test_a_firmware_that_never_leaves_real_mode(explain, tmp_path):
    (tmp_path / "hlt.bin").write_bytes(bytes(0xFFF0) + b"\xfa\xf4" + bytes(14))
    status, out = explain("--firmware", tmp_path / "hlt.bin")
    assert status == 1
    assert _titles(out) == ["reset", "a20", "end"]
    assert "halt: hlt with interrupts off" in _line(out)


def test_a_firmware_that_opens_the_gate(explain, tmp_path):
    code = bytes.fromhex("e492 0c02 e692 faf4")  # in al, 0x92; or al, 2; out 0x92, al; cli; hlt
    (tmp_path / "a20.bin").write_bytes(bytes(0xFFF0) + code + bytes(16 - len(code)))
    _, out = explain("--firmware", tmp_path / "a20.bin", "--chapter", "a20")
    assert "This firmware goes to a port of the gate all the same: in 0x92 comes first." in _line(out)


def test_a_foreign_firmware_that_does_not_come_to_its_end(explain, qboot):
    status, out = explain("--machine", "microvm", "--firmware", qboot, "--max-instructions", 3000)
    assert status == 1
    assert _titles(out) == ["reset", "a20", "gdt", "protected", "setup", "fw_cfg", "end"]
    assert "--max-instructions or --timeout lets it go on for longer" in _line(out)
    _, out = explain("--machine", "microvm", "--firmware", qboot, "--max-instructions", 3000, "--chapter", "end")
    assert "What ran, " in out


def test_so_many_instructions_and_no_more(explain, engine_name):
    status, out = explain("--engine", engine_name, "--max-instructions", 50, "--chapter", "end")
    assert status == 1
    assert "The run ended after 50 instructions: limit: the trace's limit of 50 has been reached" in _line(out)


def test_a_kernel_that_ends_with_its_first_instructions(explain, tmp_path):
    (tmp_path / "kernel").write_bytes(flat_guest("    nop"))
    status, out = explain(tmp_path / "kernel", "--chapter", "entry")
    assert status == 0
    assert "what it did first stands below, 4 instructions. Then the run has ended: exit: " in _line(out)


def test_what_is_in_a_manifest_is_no_escape_sequence(explain, tmp_path):
    blob = build(BARE, [make_stage("before-handoff", f"{'long-' * 40}.s", "# Clobbers: nothing\n    nop\n    ret\n")])
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json().replace('"nop"', '"nop # \\u001b[31m red"'))
    status, out = explain("--firmware", tmp_path / "fw.bin", "--manifest", tmp_path / "fw.json", "--chapter", "stage")
    assert status == 0
    assert "\x1b" not in out
    assert "\\x1b[31m red" in out
    assert max(map(len, out.splitlines())) <= WIDTH
