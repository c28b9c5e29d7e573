"""An inspection as text: aligned, within its width, and of many things the first and the last."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_bzimage import VERSION_STRING, bzimage_of
from forge_elf import (
    ENTRY,
    GNU_NOTE,
    PADDR,
    entry_note,
    forge,
    note_segment,
    patch_program_header,
    with_program_headers,
)
from hypothesis import given, settings
from pvhboot.loader.inspection import Inspection, inspect
from pvhboot.loader.strategies import kernels
from pvhboot.shim.elfwriter import note

Told = Callable[[bytes], Inspection]


def squeezed(text: str) -> str:
    """Without its line breaks and columns."""
    return " ".join(text.split())


def test_text_is_aligned(told: Told) -> None:
    lines = told(forge(notes=entry_note() + GNU_NOTE)).to_text().splitlines()
    assert lines[2:5] == [
        "kind:     ELF64",
        f"ELF:      ELF64, ET_EXEC, EM_X86_64, e_entry {PADDR:#x}",
        f"bootable: yes: PHYS32_ENTRY {ENTRY:#x} in PT_NOTE 0",
    ]
    assert lines[5] == "moves:    never: without a PHYS32_RELOC note it runs where it is linked"
    at = lines.index("segment       paddr  memory  offset  in file  flags  align")
    assert lines[at + 1].split() == ["PT_LOAD", "0", "0x100000", "0x2000", "0x1000", "0x40", "RWX", "0x1000"]
    assert lines[at + 2].split() == ["PT_NOTE", "0", "0x0", "0x3c", "0x1040", "0x3c", "R--", "0x4"]
    at = lines.index("note  type          descriptor                                where")
    assert len({line.index("PT_NOTE 0") for line in lines[at + 1 : at + 3]}) == 1
    assert all(line == line.rstrip() and len(line) <= 100 for line in lines)


def test_the_verdicts_are_a_table_and_then_the_reasons(told: Told) -> None:
    lines = told(forge(32, notes=entry_note(size=4))).to_text().splitlines()
    at = lines.index("verdict of                                     by   entry")
    assert lines[at + 1 : at + 9] == [
        "QEMU 7.2, -kernel                accepts       PVH  0x100001",
        "Firecracker (linux-loader)       refuses",
        "Cloud Hypervisor (linux-loader)  refuses",
        "libkrun (linux-loader)           refuses",
        "Xen 4.17, type=pvh               accepts       PVH  0x100001",
        "pvhboot                          accepts       PVH  0x100001",
        "as a Linux guest                 fits",
        "as a FreeBSD guest               does not fit",
    ]
    at = lines.index("Firecracker (linux-loader), Cloud Hypervisor (linux-loader), libkrun (linux-loader)")
    assert squeezed(" ".join(lines[at + 1 : at + 4])) == (
        "InvalidProgramHeaderSize: e_phentsize is 0, not 56: an ELF32, read as an ELF64 rule: a program header must have the "
        "size of Elf64_Phdr: no ELF32 [linux-loader src/loader/elf/mod.rs: Elf::validate_header]"
    )


def test_where_a_kernel_can_be_moved_to(told: Told) -> None:
    reloc = note(b"Xen\0", 19, bytes.fromhex("00002000 00000001 ffffff3f"))
    found = told(forge(notes=entry_note() + reloc))
    assert "moves:    to any multiple of 0x200000, all of it from 0x1000000 to 0x3fffffff (PHYS32_RELOC)" in found.to_text()
    assert found.to_json()["relocation"] == {"align": 0x200000, "min": 0x1000000, "max": 0x3FFFFFFF}
    assert "moves:" not in told(forge(notes=reloc)).to_text()


def width(found: Inspection) -> int:
    """Of the widest line, but for the path."""
    return max(len(line) for line in found.to_text().split("\n") if not line.startswith("file: "))


def test_a_note_in_many_places_shows_a_few_of_them(told: Told) -> None:
    found = told(forge(more=(note_segment(entry_note()),) * 40))
    assert "PT_NOTE 0, PT_NOTE 1, PT_NOTE 2, … (41 places)" in found.to_text()
    assert width(found) <= 100
    assert found.to_json()["notes"][0]["places"] == [f"PT_NOTE {number}" for number in range(41)]
    assert "PT_NOTE 0, PT_NOTE 1, PT_NOTE 2, PT_NOTE 3\n" in told(forge(more=(note_segment(entry_note()),) * 3)).to_text()


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_program_headers(forge(), 0xFFFF, 1),
        lambda: with_program_headers(forge(), 0xFFFF, 0),
        lambda: forge(notes=b"".join(note(b"Xen\0", kind, b"") for kind in range(5000))),
        lambda: forge(notes=b"".join(entry_note(PADDR + number) for number in range(5000))),
    ],
    ids=["segments with notes", "segments", "notes", "entries"],
)
def test_of_many_the_first_and_the_last_are_shown_and_json_has_all(told: Told, make: Callable[[], bytes]) -> None:
    found = told(make())
    lines = found.to_text().split("\n")
    assert len(lines) < 150
    assert any(re.fullmatch(r" *… \d+ more", line.rstrip()) for line in lines)
    assert width(found) <= 100
    assert max(len(found.to_json()["headers"]), len(found.to_json()["notes"])) >= 5000


def test_the_first_and_the_last_of_many_segments_are_numbered(told: Told) -> None:
    lines = told(with_program_headers(forge(), 100, 1)).to_text().split("\n")
    at = lines.index("… 80 more")
    assert lines[at - 1].startswith("PT_NOTE 14 ")
    assert [line.split()[1] for line in lines[at + 1 : at + 5]] == ["95", "96", "97", "98"]


def test_numbers_too_large_for_a_line_go_on_in_another(told: Told) -> None:
    huge = (1 << 64) - 1
    found = told(patch_program_header(forge(), 0, offset=huge, paddr=huge, filesz=huge, memsz=huge, align=huge))
    lines = found.to_text().split("\n")
    at = lines.index("segment                 paddr              memory  flags")
    assert [line.split() for line in lines[at : at + 4]] == [
        ["segment", "paddr", "memory", "flags"],
        ["offset", "in", "file", "align"],
        ["PT_LOAD", "0", f"{huge:#x}", f"{huge:#x}", "RWX"],
        [f"{huge:#x}"] * 3,
    ]
    assert width(found) <= 100


def test_what_is_too_long_for_its_column_goes_on_below(told: Told) -> None:
    long = bytes(range(64))
    found = told(forge(notes=note(b"GNU\0", 3, long) + note(b"Xen\0", 10, b"a|b" * 26) + entry_note()))
    assert width(found) <= 100
    lines = found.to_text().split("\n")
    at = next(number for number, line in enumerate(lines) if line.startswith("GNU "))
    first, *_ = lines[at].split()[2:]
    assert first + lines[at + 1].strip() == long.hex()
    assert lines[at].index(first) == lines[at + 1].index(lines[at + 1].strip())


def test_a_word_without_an_end_is_broken(told: Told) -> None:
    data = bytearray(bzimage_of("gzip", forge(notes=note(b"Xen\0", 10, b"!" + b"x" * 4000 + b"\0") + entry_note())))
    at = data.index(VERSION_STRING)
    data[at : at + 250] = b"v" * 250
    assert width(told(bytes(data))) <= 100


def test_a_path_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "new\nline\x1b"
    path.write_bytes(forge())
    assert inspect(path).to_text().split("\n")[0] == f"file:     {tmp_path}/new\\nline\\x1b"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(data=kernels())
def test_no_file_makes_a_line_too_wide_or_too_many(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    found = inspect(scratch)
    assert width(found) <= 100
    assert found.to_text().count("\n") < 200
    json.dumps(found.to_json())


def test_control_characters_of_a_file_do_not_reach_the_terminal(told: Told) -> None:
    text = told(forge(notes=note(b"\x1b[2J\0", 1, b"\x1b[31m\0") + entry_note())).to_text()
    assert "\x1b" not in text
