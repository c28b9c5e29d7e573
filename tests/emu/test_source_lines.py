"""An address and the source line that stands there, as somebody wrote it."""

import pytest
from pvhboot.emu.source_lines import SourceLines
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE

CODE = "    cld\n"  # once, in flat32.s


@pytest.fixture(scope="module")
def blob():
    return build(BARE)


def address_of(blob, text):
    """Where an instruction of flat32.s lies, by its bare text."""
    return next(line.address for line in blob.listing if line.is_code and (line.file, line.text) == ("flat32.s", text))


def test_every_instruction_has_its_line_as_the_file_has_it(blob):
    lines = SourceLines(blob)
    for entry in blob.listing:
        if entry.is_code:
            found = lines.at(entry.address)
            assert found is not None
            whole = asm_source(entry.file).splitlines()[entry.line - 1].rstrip()
            assert found == (entry.file, entry.line, whole)


def test_where_nothing_begins_there_is_no_line(blob):
    assert SourceLines(blob).at(address_of(blob, "cld") + 0x10000) is None
    assert SourceLines(Blob(blob.data, {}, (), {})).at(address_of(blob, "cld")) is None


# What stands in the place of the line, and what is shown then.
LINES = {
    "a comment": ("    cld  # upwards\n", "    cld  # upwards"),
    "a label": ("start: cld\n", "start: cld"),
    "a local label, a dot, a dollar": (".start$1:\tcld # x\n", ".start$1:\tcld # x"),
    "blanks at its end": ("  cld  \n", "  cld"),
    "a macro": ("    MOVE_ALL eax, ebx\n", "    MOVE_ALL eax, ebx"),
    "another instruction": ("    std\n", "cld"),
    "the instruction behind something else": ("    rep cld\n", "cld"),
    "only in the comment": ("    # cld\n", "cld"),
    "nothing": ("\n", "cld"),
}


@pytest.mark.parametrize(("line", "shown"), LINES.values(), ids=LINES)
def test_a_line_is_whole_only_if_it_is_what_was_built(blob, line, shown):
    text = asm_source("flat32.s")
    assert text.count(CODE) == 1
    lines = SourceLines(blob, {"flat32.s": text.replace(CODE, line)})
    assert lines.at(address_of(blob, "cld")).text == shown


def test_the_colon_of_a_segment_is_no_label():
    text = asm_source("flat32.s").replace(
        CODE, CODE + "    mov eax, cs:[0]  # here\nlabel: mov eax, dword ptr cs:[4] # there\n"
    )
    blob = build(BARE, sources={"flat32.s": text})
    lines = SourceLines(blob, {"flat32.s": text})
    at = address_of(blob, "mov eax, cs:[0]")
    assert lines.at(at).text == "    mov eax, cs:[0]  # here"
    assert lines.at(address_of(blob, "mov eax, dword ptr cs:[4]")).text == "label: mov eax, dword ptr cs:[4] # there"


def test_a_file_that_has_become_shorter_leaves_the_bare_lines(blob):
    lines = SourceLines(blob, {"flat32.s": "# gone\n"})
    assert lines.at(address_of(blob, "cld")).text == "cld"
    assert list(lines.file("flat32.s")) == ["# gone"]


@pytest.mark.parametrize("name", ["none.s", "", ".", "..", "../image.py", "asm/reset.s", "reset.s\0"])
def test_a_file_that_is_not_at_hand_has_no_lines(blob, name):
    assert list(SourceLines(blob).file(name)) == []


def test_a_manifest_leads_to_no_file_of_the_reader(blob, tmp_path):
    (tmp_path / "secret.s").write_text("SECRET\n")
    assert list(SourceLines(blob).file(str(tmp_path / "secret.s"))) == []
