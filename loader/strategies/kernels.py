"""Valid PVH kernels of all shapes, as ELF files, and what is true of each."""

import struct
from typing import Final, NamedTuple

from hypothesis import strategies as st
from pvhboot.shim.abi.elf import (
    ELF_MAGIC,
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_386,
    EM_X86_64,
    EV_CURRENT,
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    PT_NOTE,
    SHT_NOTE,
    SHT_STRTAB,
)
from pvhboot.shim.abi.pvh import (
    NOTE_NAME,
    PHYS32_RELOC_ALIGN,
    PHYS32_RELOC_MAX,
    PHYS32_RELOC_MIN,
    XEN_ELFNOTE_PHYS32_ENTRY,
    XEN_ELFNOTE_PHYS32_RELOC,
    Relocation,
)
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.elfwriter import note

from ..facts import KernelSegment
from .draft import HEADER, NOTES, PROGRAM_HEADERS, SECTION_HEADERS, Draft

_SECTION_NAMES: Final = b"\0.notes\0.shstrtab\0"
_NOTES_NAME: Final = _SECTION_NAMES.index(b".notes")
_NAMES_NAME: Final = _SECTION_NAMES.index(b".shstrtab")


class PvhKernel(NamedTuple):
    """A file that is a valid PVH kernel, and what is true of it.

    `data` is the file; `kind` and the rest are as in loader.kernel.Kernel. `image` is the uncompressed ELF file in it, to which
    the offsets of the segments refer: the same bytes as `data` for a plain kernel.
    """

    data: bytes
    image: bytes
    kind: str
    entry: int
    elf_entry: int
    segments: tuple[KernelSegment, ...]
    relocation: Relocation | None


class _Load(NamedTuple):
    """A PT_LOAD: how far behind the one before it in memory, its bytes, how many zeros follow, what lies before it in the file
    (bytes); `rank` sorts the program headers and the bytes in the file, `align` is its p_align."""

    gap: int
    data: bytes
    bss: int
    before: int
    rank: int
    align: int
    flags: int


class _Notes(NamedTuple):
    """The notes: `entries` are the sizes of the descriptors that give the entry, each a note; `relocation` the values of a
    PHYS32_RELOC note, None without; `others` what else there is. `homes` says where they are, `first` and `split` in which
    order, `padding` how many zeros follow; `align` is the p_align of the segments."""

    entries: list[int]
    relocation: tuple[int, ...] | None
    others: list[tuple[bytes, int, bytes]]
    homes: str
    first: int
    split: int
    padding: int
    align: int
    rank: int


class _Shape(NamedTuple):
    """What is free in a valid kernel, so that a file comes of each: numbers that are too large for what they choose among
    choose by their remainder. `extras` are program headers that no loader looks at, each with
    its rank."""

    bits: int
    header: dict[str, int]
    base: int
    loads: list[_Load]
    entry: int
    notes: _Notes
    extras: list[tuple[int, dict[str, int]]]
    table_last: bool
    section_names: int
    tail: int


_ALIGNS: Final = st.sampled_from((PAGE_SIZE, 0x200000, 0, 1, 4, 8, 13))
_RANKS: Final = st.integers(0, 3)
_ANY_WORD: Final = st.integers(0, (1 << 64) - 1) | st.sampled_from((0, PAGE_SIZE, (1 << 32) - 1, (1 << 64) - 1))
_RWX: Final = PF_R | PF_W | PF_X

_LOADS: Final = st.builds(
    _Load,
    gap=st.sampled_from((0, 0, PAGE_SIZE, 1, 0xFFF, 0x100000, 1 << 30, ADDRESS_4G)),
    data=st.binary(max_size=40),
    bss=st.sampled_from((0, PAGE_SIZE, 1, 0xFFF, 0x200000)),
    before=st.sampled_from((0, 0, 1, 3, 8, 0x200)),
    rank=_RANKS,
    align=_ALIGNS,
    flags=st.sampled_from((_RWX, PF_R | PF_X, PF_R | PF_W, PF_R, 0)),
)
_RELOCATIONS: Final = st.builds(
    lambda shift, low, high, count: (1 << shift, low, high)[:count],
    shift=st.integers(0, 31),
    low=st.sampled_from((0, 0x100000, 0x1000000, (1 << 32) - 1)),
    high=st.sampled_from(((1 << 32) - 1, (1 << 30) - 1, 0x3FFFFFF, 0)),
    count=st.integers(0, 3),
)
_OTHER_NOTES: Final = st.tuples(
    st.sampled_from((NOTE_NAME, b"GNU\0", b"Linux\0", b"Xen", b"", b"FreeBSD\0", b"\xff\0\n")),
    st.sampled_from((6, 3, 1, 0x100, 0, (1 << 32) - 1)),  # neither PHYS32_ENTRY nor PHYS32_RELOC, which Xen's could be
    st.binary(max_size=9),
) | st.tuples(
    st.sampled_from((b"GNU\0", b"Xen", b"Xen\0\0", b"")),
    st.sampled_from((XEN_ELFNOTE_PHYS32_ENTRY, XEN_ELFNOTE_PHYS32_RELOC)),
    st.binary(max_size=9),
)
_NOTES: Final = st.builds(
    _Notes,
    entries=st.lists(st.sampled_from((8, 4)), min_size=1, max_size=2),
    relocation=st.none() | _RELOCATIONS,
    others=st.lists(_OTHER_NOTES, max_size=4),
    homes=st.sampled_from(("segments", "segments", "sections", "both")),
    first=st.integers(0, 5),
    split=st.integers(0, 7),
    padding=st.sampled_from((0, 0, 1, 4, 11)),
    align=_ALIGNS,
    rank=_RANKS,
)
_EXTRAS: Final = st.tuples(
    _RANKS,
    st.fixed_dictionaries(
        {"p_type": st.sampled_from((0x6474E551, 0, 2, 3, 6, 7, 0x70000000, (1 << 32) - 1))},  # PT_GNU_STACK, PT_NULL …
        optional=dict.fromkeys(("p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align"), _ANY_WORD),
    ),
)
_HEADERS: Final = st.fixed_dictionaries(
    {
        "e_type": st.sampled_from((2, 3)),  # ET_EXEC, ET_DYN
        "e_machine": st.sampled_from((EM_X86_64, EM_386)),
        "e_entry": st.sampled_from((0, 0x100000, (1 << 64) - 1)),
        "ei_osabi": st.sampled_from((0, 9)),  # ELFOSABI_FREEBSD
    }
)
_SHAPES: Final = st.builds(
    _Shape,
    bits=st.sampled_from((64, 32)),
    header=_HEADERS,
    # Of the first segment: at 1 MiB and 16 MiB, below 1 GiB and 4 GiB, and where no RAM is that a firmware leaves alone.
    base=st.sampled_from((0x100000, 0x1000000, 0x3FFFF000, 0, 0x7C00, 0xFFFFF000)),
    loads=st.lists(_LOADS, min_size=1, max_size=5),
    entry=st.integers(0, 2) | st.integers(0, 1 << 22),
    notes=_NOTES,
    extras=st.lists(_EXTRAS, max_size=3),
    table_last=st.booleans(),
    section_names=st.sampled_from((1, 0, 2, 0xFFFF)),
    tail=st.sampled_from((0, 0, 1, 600)),
)


def build(shape: _Shape) -> tuple[Draft, PvhKernel]:
    """The file of that shape, while it can be changed, and what is true of it."""
    draft = Draft(shape.bits)
    loads = _placed(shape)
    candidates = [segment for _, segment in loads if segment.memsz and segment.paddr < ADDRESS_4G]
    chosen, offset = candidates[shape.entry % len(candidates)], shape.entry // len(candidates)
    entry = min(chosen.paddr + offset, chosen.end - 1, ADDRESS_4G - 1)
    in_segments, in_sections = _grouped(shape.notes, entry)

    count = len(shape.extras) + len(loads) + len(in_segments)
    table_at = None if shape.table_last else draft.append(bytes(draft.layouts.program_header.size * count))
    ranked = list(shape.extras)
    segments = []
    for load, segment in sorted(loads, key=lambda pair: pair[0].rank):
        draft.append(bytes(load.before))
        segments.append(segment._replace(offset=draft.append(load.data[: segment.filesz])))
        ranked.append((load.rank, _load_header(segments[-1], load.align)))
    spans = []
    for group in in_segments:
        at, size = _append_notes(draft, group, shape.notes.padding)
        spans.append((at, size))
        header = {"p_type": PT_NOTE, "p_offset": at, "p_filesz": size, "p_memsz": size, "p_flags": PF_R}
        ranked.append((shape.notes.rank, header | {"p_align": shape.notes.align}))
    spans = [*spans, *(_append_notes(draft, group, 0) for group in in_sections)] if shape.notes.homes != "segments" else []
    if spans:
        _append_sections(draft, spans, shape.section_names)
    draft.put_table(PROGRAM_HEADERS, [header for _, header in sorted(ranked, key=lambda pair: pair[0])], table_at)
    draft.append(bytes(shape.tail))
    draft.set_fields(HEADER, 0, _header(shape, draft))

    data = bytes(draft.data)
    relocation = None if shape.notes.relocation is None else _relocation(shape.notes.relocation, loads)
    known = tuple(sorted(segment for segment in segments if segment.memsz))
    return draft, PvhKernel(data, data, f"ELF{shape.bits}", entry, draft.field(HEADER, 0, "e_entry"), known, relocation)


@st.composite
def pvh_elves(draw: st.DrawFn) -> PvhKernel:
    """Valid PVH kernels, uncompressed: ELF32 and ELF64; segments in any order, touching, empty, with zeros behind their bytes,
    up to above 4 GiB; the entry from the first to the last byte of one; notes in one segment or two, or in sections, among
    others; and program headers that do not matter."""
    return build(draw(_SHAPES))[1]


def drafts() -> st.SearchStrategy[Draft]:
    """The same, while they can be changed."""
    return _SHAPES.map(lambda shape: build(shape)[0])


def _placed(shape: _Shape) -> list[tuple[_Load, KernelSegment]]:
    """The PT_LOADs at their addresses, upwards; the first has memory, and those that the class has no room for are left out."""
    limit = 1 << shape.bits
    placed: list[tuple[_Load, KernelSegment]] = []
    at = shape.base
    for number, load in enumerate(shape.loads):
        at += load.gap if number else 0
        size = min(len(load.data) + load.bss or (not number), limit - at)
        if at >= limit:
            break
        placed.append((load, KernelSegment(at, 0, min(len(load.data), size), size, load.flags)))
        at += size
    return placed


def _load_header(segment: KernelSegment, align: int) -> dict[str, int]:
    return {
        "p_type": PT_LOAD,
        "p_flags": segment.flags,
        "p_offset": segment.offset,
        "p_vaddr": segment.paddr,
        "p_paddr": segment.paddr,
        "p_filesz": segment.filesz,
        "p_memsz": segment.memsz,
        "p_align": align,
    }


def _grouped(notes: _Notes, entry: int) -> tuple[list[list[bytes]], list[list[bytes]]]:
    """The notes of each PT_NOTE segment, and of each section that has notes of its own."""
    own = [note(NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY, entry.to_bytes(size, "little")) for size in notes.entries]
    if notes.relocation is not None:
        own.append(note(NOTE_NAME, XEN_ELFNOTE_PHYS32_RELOC, struct.pack(f"<{len(notes.relocation)}I", *notes.relocation)))
    others = [note(*other) for other in notes.others]
    if notes.homes == "sections":
        return [others] if others else [], [own]
    every = own + others
    first = notes.first % len(every)
    every = every[first:] + every[:first]
    split = notes.split % len(every)
    return [group for group in (every[:split], every[split:]) if group], []


def _append_notes(draft: Draft, group: list[bytes], padding: int) -> tuple[int, int]:
    """Puts notes at the end; offset and size."""
    start = len(draft.data)
    draft.tables[NOTES].offsets.extend(draft.append(data) for data in group)
    draft.append(bytes(padding))
    return start, len(draft.data) - start


def _append_sections(draft: Draft, spans: list[tuple[int, int]], names: int) -> None:
    """Puts section headers at the end: the null one, one for each span of notes, the names; e_shstrndx is as given."""
    names_at = draft.append(_SECTION_NAMES)
    records = [{}, {"sh_name": _NAMES_NAME, "sh_type": SHT_STRTAB, "sh_offset": names_at, "sh_size": len(_SECTION_NAMES)}]
    records += [{"sh_name": _NOTES_NAME, "sh_type": SHT_NOTE, "sh_offset": at, "sh_size": size} for at, size in spans]
    draft.put_table(SECTION_HEADERS, records)
    draft.set_fields(HEADER, 0, {"e_shstrndx": names, "e_shentsize": draft.layouts.section_header.size})


def _header(shape: _Shape, draft: Draft) -> dict[str, int]:
    return shape.header | {
        "ei_mag": int.from_bytes(ELF_MAGIC, "little"),
        "ei_class": ELFCLASS64 if shape.bits == 64 else ELFCLASS32,
        "ei_data": ELFDATA2LSB,
        "ei_version": EV_CURRENT,
        "e_version": EV_CURRENT,
        "e_ehsize": draft.layouts.header.size,
        "e_phentsize": draft.layouts.program_header.size,
    }


def _relocation(values: tuple[int, ...], loads: list[tuple[_Load, KernelSegment]]) -> Relocation:
    """What a PHYS32_RELOC note with these values means: facts of Xen's elfnote.h."""
    largest = max(load.align for load, _ in loads)
    defaults = (largest if largest >= PAGE_SIZE else PHYS32_RELOC_ALIGN, PHYS32_RELOC_MIN, PHYS32_RELOC_MAX)
    return Relocation(*values, *defaults[len(values) :])
