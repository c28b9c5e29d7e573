"""The source lines in the ELF files, as pyelftools and binutils read them."""

import io
import shutil
import subprocess

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD
from pvhboot.shim.dwarf import debug_sections, sleb128, uleb128
from pvhboot.shim.elfwriter import ElfSegment, write_elf
from pvhboot.shim.image import build
from pvhboot.shim.listing import ListingLine
from pvhboot.shim.machines import BARE, Q35
from pvhboot.shim.stage import make_stage

STAGE = make_stage("before-handoff", "mine.s", "# Clobbers: eax\n.code32\n    mov eax, 5\n    ret\n")


@pytest.fixture(scope="module", params=["bare", "q35", "stage"])
def blob(request):
    return {"bare": lambda: build(BARE), "q35": lambda: build(Q35), "stage": lambda: build(BARE, [STAGE])}[request.param]()


def dwarf_of(elf):
    return ELFFile(io.BytesIO(elf)).get_dwarf_info()


def rows_of(elf):
    """(address, file, line) of each row, and the ends of the sequences."""
    (unit,) = dwarf_of(elf).iter_CUs()
    program = dwarf_of(elf).line_program_for_CU(unit)
    names = [entry.name.decode() for entry in program["file_entry"]]
    states = [entry.state for entry in program.get_entries() if entry.state is not None]
    rows = [(state.address, names[state.file - 1], state.line) for state in states if not state.end_sequence]
    return rows, [state.address for state in states if state.end_sequence]


def instructions(listing):
    return [line for line in listing if line.is_code]


def test_each_instruction_has_its_line_and_nothing_else_has(blob):
    rows, ends = rows_of(blob.elf())
    assert sorted(rows) == sorted((line.address, line.file, line.line) for line in instructions(blob.listing))
    behind = {line.address + len(line.data) for line in instructions(blob.listing)}
    assert set(ends) == behind - {line.address for line in instructions(blob.listing)}


def test_the_unit_covers_the_instructions_and_no_more(blob):
    dwarf = dwarf_of(blob.elf())
    (unit,) = dwarf.iter_CUs()
    top = unit.get_top_DIE()
    assert (top.tag, unit["version"], unit["address_size"]) == ("DW_TAG_compile_unit", 4, 4)
    assert top.attributes["DW_AT_language"].value == 0x8001
    assert top.attributes["DW_AT_low_pc"].value == 0
    ranges = dwarf.range_lists().get_range_list_at_offset(top.attributes["DW_AT_ranges"].value)
    covered = {address for entry in ranges for address in range(entry.begin_offset, entry.end_offset)}
    assert covered == {at for line in instructions(blob.listing) for at in range(line.address, line.address + len(line.data))}


def test_no_directory_of_this_machine_is_in_it(blob):
    """So that the same source gives the same bytes wherever it is built."""
    dwarf = dwarf_of(blob.elf())
    (unit,) = dwarf.iter_CUs()
    attributes = unit.get_top_DIE().attributes
    assert "DW_AT_comp_dir" not in attributes
    header = dwarf.line_program_for_CU(unit).header
    assert not header["include_directory"]
    names = [attributes["DW_AT_name"].value, *(entry.name for entry in header["file_entry"])]
    assert names[0] == names[1] == b"realmode.s"
    assert not [name for name in names if b"/" in name]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no GNU readelf")
def test_readelf_has_nothing_to_say(blob, tmp_path):
    path = tmp_path / "a.elf"
    path.write_bytes(blob.elf())
    run = subprocess.run(
        ["readelf", "--debug-dump=decodedline,info,abbrev,Ranges", path], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    place = blob.locate(blob.symbols["protected_mode"])
    file, line = place.source.split(":")
    assert [row.split()[:3] for row in run.stdout.splitlines() if "0xffff8018" in row] == [[file, line, "0xffff8018"]]


@pytest.mark.skipif(shutil.which("addr2line") is None, reason="no GNU addr2line")
def test_addr2line_finds_the_reset_vector_and_a_stage(tmp_path):
    blob = build(BARE, [STAGE])
    path = tmp_path / "a.elf"
    path.write_bytes(blob.elf())
    for label, wanted in (("reset_vector", blob.locate(0xFFFFFFF0).source), ("stage_before_handoff", "mine.s:3")):
        line = ["addr2line", "-e", path, hex(blob.symbols[label])]
        found = subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()
        assert found.removeprefix("./") == wanted


@st.composite
def listings(draw):
    """Instructions and data one behind the other, with gaps between."""
    lines, at = [], draw(st.integers(0, 0xFFFF))
    for _ in range(draw(st.integers(1, 12))):
        at += draw(st.sampled_from((0, 0, 0, 1, 300)))
        data = bytes(draw(st.integers(1, 15)))
        file, text = draw(st.sampled_from(("a.s", "ä.s", "c.s"))), draw(st.sampled_from(("nop", "nop", ".byte 1")))
        lines.append(ListingLine(at, data, file, draw(st.integers(1, 100_000)), text))
        at += len(data)
    return lines


@given(listings())
def test_any_listing_comes_out_again(listing):
    segment = ElfSegment(PT_LOAD, 0, bytes(0x100), 0x100, PF_R | PF_X, 1)
    sections = debug_sections(listing)
    elf = write_elf(32, 0, (segment,), {}, debug=sections)
    if not instructions(listing):
        assert not sections
        assert not ELFFile(io.BytesIO(elf)).has_dwarf_info()
    else:
        assert rows_of(elf)[0] == [(line.address, line.file, line.line) for line in instructions(listing)]


@pytest.mark.parametrize(
    ("value", "packed"),
    [(0, "00"), (2, "02"), (127, "7f"), (128, "8001"), (129, "8101"), (130, "8201"), (12857, "b964")],  # DWARF 4, figure 22
)
def test_uleb128(value, packed):
    assert uleb128(value).hex() == packed


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (2, "02"),
        (-2, "7e"),
        (127, "ff00"),
        (-127, "817f"),
        (128, "8001"),
        (-128, "807f"),
        (129, "8101"),
        (-129, "ff7e"),
        (0, "00"),
        (63, "3f"),
        (64, "c000"),
        (-64, "40"),
        (-65, "bf7f"),
    ],  # the first eight: figure 23
)
def test_sleb128(value, packed):
    assert sleb128(value).hex() == packed
