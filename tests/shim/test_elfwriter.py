"""The ELF files that are written, as pyelftools and GNU readelf read them."""

import io
import shutil
import subprocess

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf

CODE = bytes(range(100))
NOTE = note(b"Xen\0", 18, (0x100010).to_bytes(4, "little"))
SEGMENTS = (
    ElfSegment(PT_LOAD, 0x100000, CODE, 100, PF_R | PF_X, 1),
    ElfSegment(PT_LOAD, 0x200000, b"data", 0x1000, PF_R | PF_W, 1),
    ElfSegment(PT_NOTE, 0x300000, NOTE, len(NOTE), PF_R, 4),
)
SYMBOLS = {"start": 0x100010, "other": 0x100020}


@pytest.fixture(params=[32, 64])
def elf(request):
    return request.param, ELFFile(io.BytesIO(write_elf(request.param, 0x100010, SEGMENTS, SYMBOLS)))


def test_header(elf):
    bits, file = elf
    assert file.elfclass == bits
    assert file.little_endian
    assert file["e_type"] == "ET_EXEC"
    assert file["e_machine"] == {32: "EM_386", 64: "EM_X86_64"}[bits]
    assert file["e_entry"] == 0x100010
    assert file["e_ehsize"] == {32: 52, 64: 64}[bits]


def test_segments(elf):
    _, file = elf
    found = list(file.iter_segments())
    assert [
        (s["p_type"], s["p_paddr"], s["p_vaddr"], s["p_filesz"], s["p_memsz"], s["p_flags"], s["p_align"]) for s in found
    ] == [
        ("PT_LOAD", 0x100000, 0x100000, 100, 100, 5, 1),
        ("PT_LOAD", 0x200000, 0x200000, 4, 0x1000, 6, 1),
        ("PT_NOTE", 0x300000, 0x300000, len(NOTE), len(NOTE), 4, 4),
    ]
    assert [segment.data() for segment in found] == [CODE, b"data", NOTE]


def test_note(elf):
    _, file = elf
    (segment,) = (segment for segment in file.iter_segments() if isinstance(segment, NoteSegment))
    (found,) = segment.iter_notes()
    assert (found["n_name"], found["n_type"], found["n_descsz"]) == ("Xen", 18, 4)


def test_sections_and_symbols(elf):
    _, file = elf
    assert [section.name for section in file.iter_sections()] == ["", ".text", ".symtab", ".strtab", ".shstrtab"]
    text = file.get_section_by_name(".text")
    assert (text["sh_addr"], text.data()) == (0x100000, CODE)
    symbols = {symbol.name: symbol for symbol in file.get_section_by_name(".symtab").iter_symbols() if symbol.name}
    assert {name: symbol["st_value"] for name, symbol in symbols.items()} == SYMBOLS
    assert {symbol["st_info"]["type"] for symbol in symbols.values()} == {"STT_FUNC"}
    assert {symbol["st_shndx"] for symbol in symbols.values()} == {1}


def test_no_symbols_is_an_elf_too():
    file = ELFFile(io.BytesIO(write_elf(32, 0, SEGMENTS[:1], {})))
    assert file.get_section_by_name(".symtab").num_symbols() == 1  # the null symbol


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no GNU readelf")
@pytest.mark.parametrize("bits", [32, 64])
def test_readelf_has_nothing_to_say(tmp_path, bits):
    path = tmp_path / "a.elf"
    path.write_bytes(write_elf(bits, 0x100010, SEGMENTS, SYMBOLS))
    run = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert "start" in run.stdout


@pytest.mark.parametrize(
    ("name", "descriptor", "data"),
    [
        (b"Xen\0", b"\1\2\3\4", "04000000 04000000 12000000 58656e00 01020304"),
        (b"Xen\0", b"\1" * 8, "04000000 08000000 12000000 58656e00 0101010101010101"),
        (b"Xen\0", b"", "04000000 00000000 12000000 58656e00"),
        (b"ab\0", b"\1", "03000000 01000000 12000000 61620000 01000000"),
    ],
)
def test_notes_are_packed_to_4_bytes(name, descriptor, data):
    assert note(name, 18, descriptor) == bytes.fromhex(data)


def test_a_page_aligned_segment_lies_where_its_page_asks_for_it():
    segments = (
        ElfSegment(PT_LOAD, 0x100123, CODE, 100, PF_R | PF_X, 0x1000, 0xFFFFFFFF80100123),
        ElfSegment(PT_LOAD, 0x240040, b"data", 4, PF_R | PF_W, 0x10000),
    )
    first, second = ELFFile(io.BytesIO(write_elf(64, 0x100123, segments, {}))).iter_segments()
    assert (first["p_offset"] % 0x1000, second["p_offset"] % 0x10000) == (0x123, 0x40)
    assert (first["p_vaddr"], second["p_vaddr"]) == (0xFFFFFFFF80100123, 0x240040)
    assert (first.data(), second.data()) == (CODE, b"data")


@pytest.mark.parametrize("bits", [32, 64])
def test_notes_can_be_in_sections_and_the_text_in_another_segment(bits):
    file = ELFFile(io.BytesIO(write_elf(bits, 0x100010, SEGMENTS[:2], SYMBOLS, text=1, note_sections=(NOTE, NOTE[:4]))))
    assert [section.name for section in file.iter_sections()][4:] == [".note.0", ".note.1", ".shstrtab"]
    assert [section.data() for section in file.iter_sections() if section["sh_type"] == "SHT_NOTE"] == [NOTE, NOTE[:4]]
    assert file.get_section_by_name(".text")["sh_addr"] == 0x200000
    assert file.get_section_by_name(".text").data() == b"data"


def test_a_segment_can_lie_at_an_odd_offset():
    segments = (*SEGMENTS[:2], SEGMENTS[2]._replace(skew=5))
    *_, last = ELFFile(io.BytesIO(write_elf(64, 0x100010, segments, {}))).iter_segments()
    assert last["p_offset"] % 16 == 5
    assert last.data() == NOTE


@pytest.mark.parametrize("bits", [32, 64])
def test_debug_sections_lie_in_no_segment(bits):
    debug = {".debug_one": b"first", ".debug_two": b""}
    elf = write_elf(bits, 0x100010, SEGMENTS, SYMBOLS, note_sections=(NOTE,), debug=debug)
    file = ELFFile(io.BytesIO(elf))
    sections = {section.name: section for section in file.iter_sections()}
    assert list(sections)[4:] == [".note.0", ".debug_one", ".debug_two", ".shstrtab"]
    for name, data in debug.items():
        section = sections[name]
        assert (section["sh_type"], section["sh_flags"], section["sh_addr"], section.data()) == ("SHT_PROGBITS", 0, 0, data)
    assert [segment.data() for segment in file.iter_segments()] == [CODE, b"data", NOTE]
    assert elf == write_elf(bits, 0x100010, SEGMENTS, SYMBOLS, note_sections=(NOTE,), debug=debug)
