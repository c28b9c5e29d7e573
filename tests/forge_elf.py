"""Forges ELF files for tests: a small valid PVH kernel with knobs, and HOSTILE, a table of files that break one rule each."""

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence

from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf

PADDR = 0x100000  # of the segment that holds the entry
CODE = b"\xfa" + b"\xf4\xeb\xfd" * 21  # cli; then hlt, jmp back, over and over: 64 bytes
MEMSZ = 0x2000
ENTRY = PADDR + 1

# System V ABI, figures "ELF Header", "Program Header", "Section Header": where a field lies and its struct format.
_EHDR = {
    32: {"entry": (24, "I"), "phoff": (28, "I"), "shoff": (32, "I")}
    | {name: (42 + 2 * at, "H") for at, name in enumerate(("phentsize", "phnum", "shentsize", "shnum", "shstrndx"))},
    64: {"entry": (24, "Q"), "phoff": (32, "Q"), "shoff": (40, "Q")}
    | {name: (54 + 2 * at, "H") for at, name in enumerate(("phentsize", "phnum", "shentsize", "shnum", "shstrndx"))},
}
_PHDR = {
    32: {
        name: (4 * at, "I") for at, name in enumerate(("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align"))
    },
    64: {"type": (0, "I"), "flags": (4, "I")}
    | {name: (8 + 8 * at, "Q") for at, name in enumerate(("offset", "vaddr", "paddr", "filesz", "memsz", "align"))},
}
_SIZES = {32: (52, 32, 40), 64: (64, 56, 64)}  # of the ELF header, a program header, a section header


def entry_note(value: int = ENTRY, size: int = 8, name: bytes = NOTE_NAME) -> bytes:
    """A PHYS32_ENTRY note with a descriptor of `size` bytes."""
    return note(name, XEN_ELFNOTE_PHYS32_ENTRY, value.to_bytes(size, "little"))


def load_segment(paddr: int = PADDR, data: bytes = CODE, memsz: int = MEMSZ) -> ElfSegment:
    """A PT_LOAD segment."""
    return ElfSegment(PT_LOAD, paddr, data, memsz, PF_R | PF_W | PF_X, 0x1000)


def note_segment(data: bytes, align: int = 4) -> ElfSegment:
    """A PT_NOTE segment."""
    return ElfSegment(PT_NOTE, 0, data, len(data), PF_R, align)


def forge(
    bits: int = 64,
    notes: bytes | None = None,
    loads: Sequence[ElfSegment] = (load_segment(),),
    more: Sequence[ElfSegment] = (),
    note_align: int = 4,
) -> bytes:
    """A PVH kernel: the PT_LOAD segments, a PT_NOTE (with the entry by default, none if `notes` is empty), `more`."""
    if notes is None:
        notes = entry_note(size=bits // 8)
    segments = (*loads, *((note_segment(notes, note_align),) if notes else ()), *more)
    return write_elf(bits, PADDR, segments, {})


def _bits(data: bytes) -> int:
    return 32 * data[4]


def _patch(data: bytes, base: int, layout: dict[str, tuple[int, str]], fields: dict[str, int]) -> bytes:
    out = bytearray(data)
    for name, value in fields.items():
        offset, kind = layout[name]
        struct.pack_into("<" + kind, out, base + offset, value)
    return bytes(out)


def patch_header(data: bytes, **fields: int) -> bytes:
    """The file with fields of its ELF header changed: entry, phoff, shoff, phentsize, phnum, shentsize, shnum, shstrndx."""
    return _patch(data, 0, _EHDR[_bits(data)], fields)


def patch_program_header(data: bytes, index: int, **fields: int) -> bytes:
    """The file with fields of a program header changed, named as in the specification but without their "p_"."""
    header_size, size, _ = _SIZES[_bits(data)]
    return _patch(data, header_size + size * index, _PHDR[_bits(data)], fields)


def patch_bytes(data: bytes, at: int, new: bytes) -> bytes:
    """The file with bytes overwritten."""
    return data[:at] + new + data[at + len(new) :]


def with_program_headers(data: bytes, count: int, header: int) -> bytes:
    """The file with its program header table moved to the end, and `header` repeated until there are `count`."""
    header_size, size, _ = _SIZES[_bits(data)]
    old: int = struct.unpack_from("<H", data, _EHDR[_bits(data)]["phnum"][0])[0]
    table = data[header_size : header_size + size * old]
    repeated = table[size * header : size * (header + 1)]
    return patch_header(data, phoff=len(data), phnum=count) + table + repeated * (count - old)


def with_note_section(data: bytes, notes: bytes, size: int | None = None) -> bytes:
    """The file with other section headers: the null one, a SHT_NOTE section ".notes" over `notes`, and its string table.

    `size` is the size that the section header claims, by default the right one.
    """
    wide = _bits(data) == 64
    section = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    names = b"\0.notes\0"
    notes_at = len(data)
    names_at = notes_at + len(notes)
    table_at = names_at + len(names)
    table = (
        bytes(section.size)
        + section.pack(1, 7, 2, 0, notes_at, len(notes) if size is None else size, 0, 0, 4, 0)
        + section.pack(0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    )
    return patch_header(data, shoff=table_at, shnum=3, shstrndx=2, shentsize=section.size) + notes + names + table


def gzip_bomb(size: int) -> bytes:
    """A gzip file of an ELF header and `size` bytes of zeros, made without compressing them all; its end is missing."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(forge()) + packer.flush(zlib.Z_FULL_FLUSH)
    # A full flush ends on a byte and forgets what came before: the piece after it can be repeated.
    unit = 1 << 24
    piece = packer.compress(bytes(unit)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + piece * (size // unit + 1)


def _bzimage() -> bytes:
    return patch_bytes(patch_bytes(b"MZ" + bytes(0x400), 0x1FE, b"\x55\xaa"), 0x202, b"HdrS")


def _no_entry(notes: bytes) -> bytes:
    return forge(notes=notes)


def _extended_numbering() -> bytes:
    data = with_program_headers(forge(), 0xFFFF, 0)
    sh_info = 44
    return patch_header(data, shoff=len(data), shnum=1) + patch_bytes(bytes(64), sh_info, struct.pack("<I", 70000))


GNU_NOTE = note(b"GNU\0", 3, bytes(range(20)))
XEN_NOTES = note(NOTE_NAME, 6, b"linux\0") + note(NOTE_NAME, 3, bytes(8)) + note(NOTE_NAME, 99, b"")

# Name, maker, what the message says.
HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    # What is no ELF file at all.
    ("empty", lambda: b"", r"empty file"),
    ("unknown", lambda: bytes(range(64)), r"not an ELF file.*starts with 00 01 02 03"),
    ("text", lambda: b"hello, kernel\n", r"not an ELF file.*text"),
    ("script", lambda: b"#!/bin/sh\nexit 0\n", r"not an ELF file.*script"),
    ("bzimage", _bzimage, r"truncated bzImage: its setup of 5 sectors ends at 0xa00, the file at 0x402"),
    ("pe", lambda: b"MZ" + bytes(100), r"not an ELF file.*PE"),
    ("zstd", lambda: b"\x28\xb5\x2f\xfd" + bytes(100), r"truncated zstd data"),
    ("cpio", lambda: b"070701" + b"0" * 104, r"not an ELF file.*cpio.*initrd"),
    # Wrapped in gzip.
    ("gzip-of-script", lambda: gzip.compress(b"#!/bin/sh\n"), r"gzip of a script"),
    ("gzip-of-bzimage", lambda: gzip.compress(_bzimage()), r"gzip of a Linux bzImage: unpack it once"),
    ("gzip-of-gzip", lambda: gzip.compress(gzip.compress(forge())), r"gzip of gzip.*once more"),
    ("gzip-of-nothing", lambda: gzip.compress(b""), r"gzip of nothing"),
    ("gzip-truncated", lambda: gzip.compress(forge())[:-9], r"truncated gzip"),
    ("gzip-bad-method", lambda: b"\x1f\x8b\x07" + bytes(20), r"corrupt gzip"),
    ("gzip-bad-checksum", lambda: patch_bytes(packed := gzip.compress(forge()), len(packed) - 8, bytes(4)), r"corrupt gzip"),
    ("gzip-bomb", lambda: gzip_bomb(1 << 30), r"gzip of more than 1073741824 bytes"),
    ("gzip-members", lambda: gzip.compress(forge()) + gzip.compress(b"more"), r"several members"),
    # The ELF header.
    ("ident-truncated", lambda: forge()[:12], r"truncated ELF header"),
    ("header-truncated", lambda: forge()[:63], r"truncated ELF header.*63 bytes.*ELF64 64"),
    ("class", lambda: patch_bytes(forge(), 4, b"\x03"), r"EI_CLASS 3"),
    ("data-encoding", lambda: patch_bytes(forge(), 5, b"\x00"), r"EI_DATA 0"),
    ("big-endian", lambda: patch_bytes(patch_bytes(forge(), 5, b"\x02"), 18, b"\0\x15"), r"big-endian ELF for EM_PPC64"),
    ("machine-named", lambda: patch_bytes(forge(), 18, b"\xb7\0"), r"machine EM_AARCH64.*EM_386 and EM_X86_64"),
    ("machine-unnamed", lambda: patch_bytes(forge(), 18, b"\x34\xf2"), r"machine 0xf234"),
    # The program headers.
    ("no-program-headers", lambda: patch_header(forge(), phnum=0), r"no program headers"),
    ("phentsize", lambda: patch_header(forge(), phentsize=32), r"e_phentsize is 32.*56"),
    ("program-headers-truncated", lambda: patch_header(forge(), phnum=5000), r"truncated program headers"),
    ("extended-numbering", _extended_numbering, r"70000 program headers"),
    ("no-load", lambda: patch_program_header(forge(), 0, type=6), r"no PT_LOAD"),
    (
        "load-beyond-file",
        lambda: patch_program_header(forge(), 0, offset=1 << 40),
        r"PT_LOAD 0 lies at 0x10000000000-.*of the file",
    ),
    (
        "filesz-above-memsz",
        lambda: patch_program_header(forge(), 0, memsz=63),
        r"PT_LOAD 0 has more bytes in the file \(0x40\)",
    ),
    ("above-2-64", lambda: patch_program_header(forge(), 0, paddr=(1 << 64) - 0x1000), r"beyond the 64-bit address space"),
    ("above-4-gib", lambda: patch_program_header(forge(32), 0, paddr=0xFFFFF000), r"beyond 4 GiB"),
    ("overlap", lambda: forge(loads=(load_segment(), load_segment(PADDR + MEMSZ - 1))), r"PT_LOAD 0 and PT_LOAD 1 overlap"),
    # The notes.
    ("no-notes", lambda: forge(notes=b""), r"no ELF notes at all"),
    ("no-xen-note", lambda: _no_entry(GNU_NOTE), r"no PHYS32_ENTRY note.*none of its notes \(1\) is Xen's"),
    ("no-entry-note", lambda: _no_entry(XEN_NOTES), r"no PHYS32_ENTRY note.*VIRT_BASE, GUEST_OS, type 0x63"),
    ("note-name", lambda: _no_entry(entry_note(name=b"Zen\0")), r"the note of type 18 in PT_NOTE 0 has the name b'Zen\\x00'"),
    ("note-name-unterminated", lambda: _no_entry(entry_note(name=b"Xen")), r"has the name b'Xen', not b'Xen\\x00'"),
    ("descriptor-size", lambda: _no_entry(entry_note(size=6)), r"descriptor of 6 bytes: 4 or 8"),
    ("entry-above-4-gib", lambda: _no_entry(entry_note(1 << 32)), r"says 0x100000000: the entry is a 32-bit address"),
    (
        "entry-outside",
        lambda: _no_entry(entry_note(PADDR + MEMSZ)),
        r"PVH entry 0x102000 lies in no PT_LOAD.*0x100000-0x102000",
    ),
    ("entries-differ", lambda: _no_entry(entry_note() + entry_note(PADDR)), r"two PHYS32_ENTRY notes that differ"),
    ("note-head-truncated", lambda: _no_entry(entry_note() + b"\4\0\0\0"), r"PT_NOTE 0 .*truncated note at \+0x18: 4 bytes"),
    (
        "note-name-huge",
        lambda: _no_entry(struct.pack("<III", 0xFFFFFFFF, 0, 18) + b"Xen\0"),
        r"truncated note.*name of 4294967295",
    ),
    (
        "note-descriptor-huge",
        lambda: _no_entry(struct.pack("<III", 4, 0xFFFFFFFD, 18) + b"Xen\0"),
        r"truncated note.*4294967293",
    ),
    ("note-segment-truncated", lambda: patch_program_header(forge(), 1, filesz=1 << 20), r"truncated PT_NOTE 0"),
    ("notes-too-many", lambda: forge(notes=note(b"Pad\0", 1, bytes(1 << 20))), r"bytes of notes.*the limit is 1048576"),
    # The sections, where no segment gives the entry.
    (
        "section-note-truncated",
        lambda: with_note_section(forge(notes=b""), entry_note()[:-2]),
        r"section \.notes .*truncated note",
    ),
    ("section-beyond-file", lambda: with_note_section(forge(notes=b""), b"", 1 << 20), r"truncated section \.notes"),
    ("shentsize", lambda: patch_header(forge(notes=b""), shentsize=1), r"no ELF notes.*searched: e_shentsize is 1.*64"),
    (
        "section-headers-truncated",
        lambda: patch_header(forge(notes=b""), shnum=60000),
        r"no ELF notes.*truncated section headers",
    ),
]


LINUX_LOADER_ENTRY = 0x1E1FE1F  # what the test images of linux-loader have
_SENTENCE = b"Hello, World!\n"  # that image's note segment holds: no note at all

# rust-vmm linux-loader's own tests of its ELF loader (src/loader/elf/mod.rs, mod tests), with images of the same kinds: name,
# maker, what Elf::load gives without an offset: PvhEntryPresent with the address, another PvhBootCapability, or an error.
LINUX_LOADER: list[tuple[str, Callable[[], bytes], str]] = [
    ("valid-note", lambda: forge(notes=entry_note(LINUX_LOADER_ENTRY)), "PvhEntryPresent"),
    ("packed-to-4-with-p_align-8", lambda: forge(notes=entry_note(LINUX_LOADER_ENTRY), note_align=8), "PvhEntryPresent"),
    (
        "behind-others-with-p_align-8",
        lambda: forge(notes=XEN_NOTES + entry_note(LINUX_LOADER_ENTRY), note_align=8),
        "PvhEntryPresent",
    ),
    ("foreign-name", lambda: forge(notes=entry_note(LINUX_LOADER_ENTRY, name=b"Zen\0")), "PvhEntryNotPresent"),
    ("descriptor-of-2", lambda: forge(notes=entry_note(0x1E1F, 2)), "InvalidPvhNote"),
    ("no-note-in-segment-aligned-to-2-mib", lambda: forge(notes=_SENTENCE, note_align=0x200000), "PvhEntryNotPresent"),
    ("unaligned-offset", lambda: _shifted(forge(notes=b"\xff" + entry_note(LINUX_LOADER_ENTRY))), "PvhEntryPresent"),
    ("sections-only", lambda: with_note_section(forge(notes=b""), entry_note(LINUX_LOADER_ENTRY)), "PvhEntryIgnored"),
    ("big-endian", lambda: patch_bytes(forge(), 5, b"\2"), "BigEndianElfOnLittle"),
    ("bad-magic", lambda: patch_bytes(forge(), 1, b"\x33"), "InvalidElfMagicNumber"),
    ("program-headers-at-0x10", lambda: patch_bytes(forge(), 0x20, b"\x10"), "InvalidProgramHeaderOffset"),
    ("elf32", lambda: forge(32), "InvalidProgramHeaderSize"),
]


def _shifted(data: bytes) -> bytes:
    """The file with its PT_NOTE one byte further on, and as much shorter."""
    header_size, size, _ = _SIZES[64]
    at = header_size + size
    offset, filesz = (struct.unpack_from("<Q", data, at + _PHDR[64][name][0])[0] for name in ("offset", "filesz"))
    return patch_program_header(data, 1, offset=offset + 1, filesz=filesz - 1)
