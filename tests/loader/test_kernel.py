"""Kernel: what is accepted and what it says then, what is refused and why; whatever the bytes: test_hostile_files.py."""

import errno
import gzip
import os
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_elf import (
    CODE,
    ENTRY,
    GNU_NOTE,
    HOSTILE,
    MEMSZ,
    PADDR,
    XEN_NOTES,
    entry_note,
    forge,
    gzip_bomb,
    load_segment,
    note_segment,
    patch_bytes,
    patch_header,
    patch_program_header,
    with_note_section,
    with_program_headers,
)
from pvhboot.loader import codecs
from pvhboot.loader.facts import KernelSegment
from pvhboot.loader.inspection import inspect
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.notes import pvh_entry
from pvhboot.shim.abi.elf_layouts import LAYOUTS
from pvhboot.shim.errors import BootError
from pvhboot.shim.stock import default_guest

IDS = [name for name, _, _ in HOSTILE]


def _fill(kernel: Kernel, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    kernel.read_into(offset, memoryview(buffer))
    return bytes(buffer)


# What is accepted.


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("descriptor", [4, 8])
@pytest.mark.parametrize("packed", [False, True])
def test_a_kernel(tmp_path: Path, bits: int, descriptor: int, packed: bool) -> None:
    data = forge(bits, entry_note(size=descriptor))
    path = tmp_path / "kernel"
    path.write_bytes(gzip.compress(data) if packed else data)
    with Kernel.open(path) as kernel:
        assert kernel.path == str(path)
        assert kernel.kind == ("gzip of " if packed else "") + f"ELF{bits}"
        assert (kernel.entry, kernel.elf_entry) == (ENTRY, PADDR)
        (segment,) = kernel.segments
        assert segment == KernelSegment(PADDR, data.index(CODE), len(CODE), MEMSZ, 7)
        assert segment.end == PADDR + MEMSZ
        assert _fill(kernel, segment.offset, segment.filesz) == CODE
        assert [note.source for note in kernel.notes] == ["PT_NOTE 0"]
        assert pvh_entry(kernel.notes) == kernel.entry
        assert kernel.image_path == (None if packed else str(path))
        assert _fill(kernel, 0, kernel.image_size) == data


def test_from_bytes() -> None:
    data = forge()
    with Kernel.from_bytes(data, "forged") as kernel:
        assert (kernel.path, kernel.kind, kernel.entry) == ("forged", "ELF64", ENTRY)
        assert _fill(kernel, 0, len(data)) == data
        assert kernel.image_size == len(data)
        assert kernel.image_path is None  # it has a name, but not of a file


def test_segments_come_sorted_and_without_the_empty_ones() -> None:
    loads = (load_segment(0x400000, b"c"), load_segment(0x300000, b"", 0), load_segment(), load_segment(0x200000, b"", 5))
    kernel = Kernel.from_bytes(forge(loads=loads), "k")
    assert [(s.paddr, s.filesz, s.memsz) for s in kernel.segments] == [
        (PADDR, len(CODE), MEMSZ),
        (0x200000, 0, 5),
        (0x400000, 1, MEMSZ),
    ]


def test_segments_may_touch() -> None:
    assert len(Kernel.from_bytes(forge(loads=(load_segment(PADDR + MEMSZ), load_segment())), "k").segments) == 2


def test_a_segment_may_end_at_4_gib_in_elf32_and_lie_above_in_elf64() -> None:
    high = load_segment((1 << 32) - MEMSZ)
    assert Kernel.from_bytes(forge(32, loads=(load_segment(), high)), "k").segments[1].end == 1 << 32
    above = load_segment((1 << 64) - MEMSZ)
    assert Kernel.from_bytes(forge(64, loads=(load_segment(), above)), "k").segments[1].end == 1 << 64


def test_the_offset_of_a_segment_without_bytes_in_the_file_does_not_matter() -> None:
    data = patch_program_header(forge(loads=(load_segment(), load_segment(0x200000, b"", 9))), 1, offset=1 << 50)
    assert len(Kernel.from_bytes(data, "k").segments) == 2


@pytest.mark.parametrize("machine", [3, 62])
@pytest.mark.parametrize("bits", [32, 64])
def test_class_and_machine_are_independent(bits: int, machine: int) -> None:
    assert Kernel.from_bytes(patch_bytes(forge(bits), 18, bytes([machine, 0])), "k").kind == f"ELF{bits}"


def test_the_entry_in_a_later_note_segment() -> None:
    kernel = Kernel.from_bytes(forge(notes=GNU_NOTE, more=(note_segment(XEN_NOTES + entry_note()),)), "k")
    assert kernel.entry == ENTRY
    assert {note.source for note in kernel.notes} == {"PT_NOTE 0", "PT_NOTE 1"}


@pytest.mark.parametrize("align", [0, 1, 4, 8, 4096])
def test_notes_are_packed_to_4_whatever_the_alignment_says(align: int) -> None:
    notes = GNU_NOTE + XEN_NOTES + entry_note(size=4)  # XEN_NOTES begins at an odd multiple of 4
    assert len(GNU_NOTE) % 8 == 4
    assert Kernel.from_bytes(forge(notes=notes, note_align=align), "k").entry == ENTRY


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("segment", [b"", GNU_NOTE])
def test_the_entry_in_a_section_only(bits: int, segment: bytes) -> None:
    kernel = Kernel.from_bytes(with_note_section(forge(bits, segment), entry_note()), "k")
    assert kernel.entry == ENTRY
    assert kernel.notes[-1].source == "section .notes"


def test_sections_are_not_looked_at_if_a_segment_has_the_entry() -> None:
    kernel = Kernel.from_bytes(with_note_section(forge(), entry_note(PADDR)), "k")
    assert kernel.entry == ENTRY
    assert len(kernel.notes) == 1


@pytest.mark.parametrize(
    "broken",
    [{"shoff": 1 << 63}, {"shentsize": 0}, {"shnum": 0xFFFF}, {"shnum": 0}, {"shstrndx": 0xFFFF}, {"shoff": 1}],
    ids=str,
)
def test_broken_section_headers_do_not_matter_if_the_segments_are_fine(broken: dict[str, int]) -> None:
    assert Kernel.from_bytes(patch_header(forge(), **broken), "k").entry == ENTRY


@pytest.mark.parametrize("names", [0, 1, 7, 0xFFFF])
def test_a_note_section_without_a_name_is_known_by_its_number(names: int) -> None:
    kernel = Kernel.from_bytes(patch_header(with_note_section(forge(notes=b""), entry_note()), shstrndx=names), "k")
    assert kernel.notes[0].source.startswith("section ")
    assert kernel.notes[0].source != "section .notes"


def test_zeros_after_a_gzip_member_are_ignored() -> None:
    assert Kernel.from_bytes(gzip.compress(forge()) + bytes(512), "k").kind == "gzip of ELF64"


def test_gzip_larger_than_the_pieces_it_is_read_in() -> None:
    body = random.Random(1).randbytes(5 << 20)
    kernel = Kernel.from_bytes(gzip.compress(forge(loads=(load_segment(data=body, memsz=len(body)),)), 1), "k")
    (segment,) = kernel.segments
    assert _fill(kernel, segment.offset, segment.filesz) == body


# Reading.


@pytest.mark.parametrize("packed", [False, True])
def test_read_beyond_the_end(tmp_path: Path, packed: bool) -> None:
    data = forge()
    path = tmp_path / "kernel"
    path.write_bytes(gzip.compress(data) if packed else data)
    with Kernel.open(path) as kernel:
        assert _fill(kernel, len(data), 0) == b""
        for offset, size in ((len(data) - 3, 4), (1 << 70, 1), (-1, 1)):
            with pytest.raises(BootError, match=rf"^{re.escape(str(path))}: no bytes at"):
                _fill(kernel, offset, size)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(forge())
    with Kernel.open(path) as kernel:
        os.truncate(path, 100)
        with pytest.raises(BootError, match=r"kernel: ends at 0x64: it had"):
            _fill(kernel, 64, 100)


def test_closing_twice_and_reading_after_it(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(forge())
    kernel = Kernel.open(path)
    kernel.close()
    kernel.close()
    with pytest.raises(BootError, match="cannot be read"):
        _fill(kernel, 0, 1)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files in /proc")
def test_no_file_stays_open_after_a_failure_or_behind_gzip(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    path = tmp_path / "kernel"
    before = count()
    for data in (b"", b"x" * 100, forge(notes=b""), gzip.compress(forge())[:-9]):
        path.write_bytes(data)
        with pytest.raises(BootError):
            Kernel.open(path)
        assert count() == before
    path.write_bytes(gzip.compress(forge()))
    kernel = Kernel.open(path)
    assert count() == before
    kernel.close()


# What is refused.


def test_the_table_of_hostile_files_is_large_and_each_has_a_message_of_its_own() -> None:
    assert len(HOSTILE) >= 32
    assert len(set(IDS)) == len(IDS)
    assert len({pattern for _, _, pattern in HOSTILE}) >= len(HOSTILE) - 2  # both kinds of corrupt gzip


@pytest.mark.parametrize(("name", "make", "pattern"), HOSTILE, ids=IDS)
def test_hostile(tmp_path: Path, name: str, make: Callable[[], bytes], pattern: str) -> None:
    data = make()
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BootError, match=pattern) as from_file:
        Kernel.open(path)
    with pytest.raises(BootError) as from_memory:
        Kernel.from_bytes(data, str(path))
    message = str(from_file.value)
    assert message.startswith(f"{path}: ")
    assert message == str(from_memory.value)
    assert "\n" not in message
    assert len(message) - len(str(path)) < 300


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda _: None, "cannot be opened: No such file"),
        (Path.mkdir, "cannot be opened: a directory"),
        (lambda path: path.symlink_to(path), "cannot be opened: Too many levels"),
        (os.mkfifo, "cannot be opened: not a regular file"),
    ],
    ids=["missing", "directory", "link loop", "fifo"],
)
def test_cannot_be_opened(tmp_path: Path, make: Callable[[Path], None], pattern: str) -> None:
    path = tmp_path / "kernel"
    make(path)
    with pytest.raises(BootError, match=rf"^{re.escape(str(path))}: {pattern}"):
        Kernel.open(path)


def _failing(code: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EACCES, errno.EMFILE, errno.ENXIO], ids=errno.errorcode.get)
def test_other_errors_of_open_are_told(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with monkeypatch.context() as patch:  # not by chmod: root may read everything
        patch.setattr(os, "open", _failing(code))
        with pytest.raises(BootError, match=rf"^kernel: cannot be opened: {os.strerror(code)}$"):
            Kernel.open("kernel")


def test_errors_of_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(forge())
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", _failing(errno.EIO))
        for read in (Kernel.open, inspect):
            with pytest.raises(BootError, match=rf"kernel: cannot be read at 0x0: {os.strerror(errno.EIO)}$"):
                read(path)


@pytest.mark.parametrize("path", ["a\0b", "", "x" * 5000], ids=["null byte", "empty", "long"])
def test_impossible_paths(path: str) -> None:
    with pytest.raises(BootError, match="cannot be opened"):
        Kernel.open(path)


# Bounds.


@pytest.mark.parametrize(("header", "pattern"), [(0, "overlap"), (1, "bytes of notes")], ids=["PT_LOAD", "PT_NOTE"])
def test_65535_program_headers(header: int, pattern: str) -> None:
    with pytest.raises(BootError, match=pattern):
        Kernel.from_bytes(with_program_headers(forge(), 0xFFFF, header), "k")


def test_65535_segments_that_do_not_overlap_are_all_taken() -> None:
    data = bytearray(with_program_headers(forge(), 0xFFFF, 0))
    table = len(forge())
    for index in range(2, 0xFFFF):
        at = table + 56 * index
        data[at + 24 : at + 32] = (PADDR + index * MEMSZ).to_bytes(8, "little")
    assert len(Kernel.from_bytes(bytes(data), "k").segments) == 0xFFFE


def test_notes_segments_that_share_a_large_range_are_not_read_again_and_again() -> None:
    big = forge(notes=entry_note() + b"\4\0\0\0\0\0\x08\0\1\0\0\0Pad\0" + bytes(0x80000))
    with pytest.raises(BootError, match="bytes of notes up to PT_NOTE 1"):
        Kernel.from_bytes(with_program_headers(big, 0xFFFF, 1), "k")


def test_a_gzip_bomb_takes_no_more_memory_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 32 << 20
    monkeypatch.setattr(codecs, "UNPACKED_MAX_SIZE", limit)
    bomb = gzip_bomb(256 << 20)
    Kernel.from_bytes(gzip.compress(forge()), "warm up: imports count too").close()
    tracemalloc.start()
    try:
        with pytest.raises(BootError, match="gzip of more than 33554432 bytes"):
            Kernel.from_bytes(bomb, "k")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # bytearray reserves an eighth more than it holds, and a piece in flight is 1 MiB.
    assert peak < limit + limit // 8 + (4 << 20)


def test_what_is_no_elf_file_is_told_before_it_is_decompressed_whole() -> None:
    packer = gzip.compress(b"#!/bin/sh\n" + bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BootError, match="gzip of a script"):
            Kernel.from_bytes(packer, "k")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_pyelftools_is_imported_only_when_a_file_is_read() -> None:
    code = "import sys, pvhboot.loader.kernel, pvhboot.loader.inspection; sys.exit('elftools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Real files.


@pytest.mark.parametrize(
    ("name", "kind", "entry"),
    [
        ("grub-i386-xen_pvh.bin", "ELF32", 0x100000),
        ("xen-shim", "ELF32", None),
        ("vmlinux-6.1", "ELF64", None),
        ("vmlinux-6.12", "ELF64", None),
    ],
)
def test_real_kernels(guest_file: Callable[[str], Path], name: str, kind: str, entry: int | None) -> None:
    with Kernel.open(guest_file(name)) as kernel:
        assert kernel.kind == kind
        assert entry in (None, kernel.entry)
        (note,) = [note for note in kernel.notes if (note.name, note.type) == (b"Xen\0", 18)]
        assert len(note.descriptor) == (8 if kind == "ELF64" else 4)
        assert all(_fill(kernel, segment.offset, min(segment.filesz, 4096)) for segment in kernel.segments)


def test_the_xen_hypervisor_is_no_pvh_kernel(guest_file: Callable[[str], Path]) -> None:
    with pytest.raises(BootError, match=r"xen\.gz: no PHYS32_ENTRY note"):
        Kernel.open(guest_file("xen.gz"))


def test_a_broken_symbol_table_is_told_with_the_path() -> None:
    data = default_guest(64)
    header = LAYOUTS[64].header.unpack(data)
    at = header.e_shoff + 2 * header.e_shentsize + 0x20  # sh_size of .symtab, as write_elf orders them
    with Kernel.from_bytes(patch_bytes(data, at, (1 << 30).to_bytes(8, "little")), "guest") as kernel:
        for asked in (kernel.symbols, lambda: kernel.symbol("start")):
            with pytest.raises(BootError, match=r"^guest: truncated symbol table"):
                asked()
