"""A custom stage: what it declares, what is refused, and whose file an error names."""

import os

import pytest
from pvhboot.shim.errors import AssemblyError, BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE
from pvhboot.shim.stage import Clobbers, make_stage, read_stage

SLOT = "before-handoff"


def clobbers(line):
    return make_stage(SLOT, "my.s", f"# A stage.\n{line}\nret\n").clobbers


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("# Clobbers: nothing", Clobbers(frozenset(), False, ())),
        ("# Clobbers: eax", Clobbers(frozenset({"eax"}), False, ())),
        ("# Clobbers: eax, EDX ,flags", Clobbers(frozenset({"eax", "edx"}), True, ())),
        ("#clobbers:flags", Clobbers(frozenset(), True, ())),
        ("  #  CLOBBERS :  ebp,", Clobbers(frozenset({"ebp"}), False, ())),
        ("# Clobbers: memory 0x9000-0xa000", Clobbers(frozenset(), False, ((0x9000, 0xA000),))),
        (
            "# Clobbers: memory 4096 - 8192, ebx, Memory 0x9000-0x9001",
            Clobbers(frozenset({"ebx"}), False, ((0x1000, 0x2000), (0x9000, 0x9001))),
        ),
    ],
)
def test_clobbers(line, expected):
    assert clobbers(line) == expected


def test_the_first_clobbers_line_is_that_of_the_stage():
    assert clobbers("# Clobbers: eax\n# Clobbers: ebx").registers == {"eax"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("# Clobbers: eax ebx", "cannot read 'eax ebx' in Clobbers"),
        ("# Clobbers: esp", "cannot read 'esp' in Clobbers: name eax, ebx"),
        ("# Clobbers: ax", "cannot read 'ax'"),
        ("# Clobbers: everything", "cannot read 'everything'"),
        ("# Clobbers: memory", "cannot read 'memory'"),
        ("# Clobbers: memory 0x9000", "cannot read 'memory 0x9000'"),
        ("# Clobbers: memory 0x9000-0x9000", "is empty"),
        ("# Clobbers: memory 0xa000-0x9000", "is empty"),
        ("# Clobbers: memory 010-020", "'010' is no number"),
        ("# Clobbers: memory a-b", "'a' is no number"),
        ("# Clobbers:", "names nothing"),
    ],
)
def test_bad_clobbers_line(line, message):
    with pytest.raises(AssemblyError) as caught:
        clobbers(line)
    assert str(caught.value).startswith("my.s:2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "ret", "# Clobber: eax\nret", "nop # Clobbers: eax", "# It clobbers: eax"])
def test_missing_clobbers_line(text):
    with pytest.raises(AssemblyError, match=r"^my\.s:1: a stage says what it changes: add a line `# Clobbers: eax, flags`"):
        make_stage(SLOT, "my.s", text)


def test_unknown_slot():
    with pytest.raises(BootError, match=r"^no stage named 'after-lunch'; there is: before-handoff$"):
        make_stage("after-lunch", "my.s", "# Clobbers: nothing\nret")


def test_read_stage_keeps_the_name_of_the_file_alone(tmp_path):
    path = tmp_path / "my.s"
    path.write_text("# Clobbers: eax\nret\n")
    stage = read_stage(SLOT, str(path))
    assert (stage.slot, stage.name, stage.text) == (SLOT, "my.s", "# Clobbers: eax\nret\n")


@pytest.mark.parametrize("name", [b"\xff.s", b"a\n.s"])
def test_a_stage_whose_name_cannot_be_printed(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    path.write_text("# Clobbers: nothing\nret\n")
    with pytest.raises(BootError, match="give it a name that can be printed"):
        read_stage(SLOT, str(path))


def test_read_stage_that_is_not_there(tmp_path):
    with pytest.raises(BootError, match=r"nowhere\.s: cannot read the stage: No such file or directory$"):
        read_stage(SLOT, str(tmp_path / "nowhere.s"))


def test_read_stage_that_is_a_folder(tmp_path):
    with pytest.raises(BootError, match=r"cannot read the stage: Is a directory$"):
        read_stage(SLOT, str(tmp_path))


def test_read_stage_that_is_a_binary(tmp_path):
    path = tmp_path / "my.o"
    path.write_bytes(b"\x7fELF\xff\xfe")
    with pytest.raises(BootError, match=r"my\.o: the stage is no UTF-8 text"):
        read_stage(SLOT, str(path))


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("mov al, 0x1ff\nret", 3, "0x1ff does not fit into 1 byte"),
        ("ret\njmp nowhere", 4, "nowhere is not defined"),
        ("nop\n.if 1\nret", 4, ".if without .endif"),
        (".macro M\nret", 3, ".macro without .endm"),
        ("panic: ret", 3, "panic is defined twice"),
        (".equ POST_PORT, 5\nret", 3, "POST_PORT is defined twice"),
        (".macro PANIC x\n.endm\nret", 3, "the macro PANIC is defined twice"),
        ("mov eax, my_data\nret\nmy_data: .long 5", 3, "write `offset my_data`"),
    ],
)
def test_an_error_in_a_stage_names_its_file_and_line(body, line, message):
    with pytest.raises(AssemblyError) as caught:
        build(BARE, [make_stage(SLOT, "my.s", f"# Mine.\n# Clobbers: eax\n{body}\n")])
    assert str(caught.value).startswith(f"my.s:{line}: {message}")


def test_a_stage_uses_the_symbols_labels_and_macros_of_the_firmware():
    text = """# Clobbers: eax, flags
    mov eax, START_INFO_PADDR + HVM_START_INFO_FLAGS
    test dword ptr [eax], EFLAGS_IF
    jnz panic
    mov al, byte ptr [mine]
    ret
mine: .byte XEN_HVM_START_MAGIC_VALUE & 0xff
"""
    blob = build(BARE, [make_stage(SLOT, "my.s", text)])
    lines = [line for line in blob.listing if line.file == "my.s"]
    assert lines[0].address == blob.symbols["stage_before_handoff"]
    assert [line.data.hex() for line in lines][:2] == ["b808600000", "f70000020000"]
    assert lines[-1].data == b"\x78"
    assert lines[-1].address == blob.symbols["mine"]


def test_a_stage_that_ends_in_16_bit_code_is_followed_by_32_bit_code():
    plain = build(BARE, [make_stage(SLOT, "my.s", "# Clobbers: nothing\nret")])
    other = build(BARE, [make_stage(SLOT, "my.s", "# Clobbers: nothing\nret\n.code16")])
    assert plain.data == other.data
