"""ELF notes, and the one that makes a kernel a PVH kernel.

Sources: System V ABI, "Note Section"; Xen xen/include/public/elfnote.h. Notes are packed to 4 bytes whatever the p_align of
their segment says: tool chains have emitted an alignment of 8 over notes packed to 4.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pvhboot.shim.abi.elf import NOTE_ALIGN
from pvhboot.shim.abi.elf_layouts import NOTE_HEAD
from pvhboot.shim.abi.pvh import (
    NOTE_NAME,
    PHYS32_RELOC_ALIGN,
    PHYS32_RELOC_MAX,
    PHYS32_RELOC_MIN,
    XEN_ELFNOTE_NAMES,
    XEN_ELFNOTE_PHYS32_ENTRY,
    XEN_ELFNOTE_PHYS32_RELOC,
    Relocation,
)
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.errors import BootError

from .elf import NoteSpan
from .facts import Note
from .image import Image

# Of all notes of a file together, in bytes. Kernels have less than 1 KiB; without a bound, the segments of a hostile file could
# all name the same hundred megabytes.
NOTES_MAX_SIZE: Final = 1 << 20

_SHOWN: Final = 8  # how much of a list or a name an error message repeats
_RELOC_SIZES: Final = (0, 4, 8, 12)  # bytes of a PHYS32_RELOC descriptor


def iter_notes(data: bytes, source: str, where: str) -> Iterator[Note]:
    """The notes in `data`, one after the other; BootError, with `source` and `where`, at one that is truncated.

    Zeros at the end, too few for a note, are padding.
    """
    at = 0
    while at < len(data):
        if len(data) - at < NOTE_HEAD.size:
            if any(data[at:]):
                raise BootError(
                    f"{source} ({where}): truncated note at +{at:#x}: {len(data) - at} bytes, its header alone has "
                    f"{NOTE_HEAD.size}"
                )
            return
        name_size, descriptor_size, kind = NOTE_HEAD.unpack(data, at)
        name_at = at + NOTE_HEAD.size
        descriptor_at = name_at + name_size + -name_size % NOTE_ALIGN
        end = descriptor_at + descriptor_size if descriptor_size else name_at + name_size
        if end > len(data):
            raise BootError(
                f"{source} ({where}): truncated note at +{at:#x}: name of {name_size} bytes and descriptor of "
                f"{descriptor_size} bytes, but only {len(data) - name_at} follow"
            )
        name = data[name_at : name_at + name_size]
        yield Note(name, kind, data[descriptor_at : descriptor_at + descriptor_size], source)
        at = descriptor_at + descriptor_size + -descriptor_size % NOTE_ALIGN


def read_notes(image: Image, spans: Iterable[NoteSpan]) -> Iterator[Note]:
    """The notes of the spans, in order; BootError at a truncated one, and before more than NOTES_MAX_SIZE bytes are read."""
    total = 0
    for span in spans:
        total += span.size
        if total > NOTES_MAX_SIZE:
            raise BootError(
                f"{total} bytes of notes up to {span.source}: a kernel has a few hundred, the limit is {NOTES_MAX_SIZE}"
            )
        yield from iter_notes(image.read(span.offset, span.size), span.source, f"file offset {span.offset:#x}")


def has_pvh_entry(notes: Iterable[Note]) -> bool:
    """Whether a PHYS32_ENTRY note of Xen is among them, right or wrong."""
    return any(note.type == XEN_ELFNOTE_PHYS32_ENTRY and note.name == NOTE_NAME for note in notes)


def pvh_entry(notes: Sequence[Note]) -> int:
    """The physical address of the PVH entry.

    BootError if no PHYS32_ENTRY note is there (it says which notes are), or its descriptor has neither 4 nor 8 bytes, or is no
    32-bit address, or two of them differ: each loader would take another.
    """
    candidates = [note for note in notes if note.type == XEN_ELFNOTE_PHYS32_ENTRY]
    entries = [(note, _entry_value(note)) for note in candidates if note.name == NOTE_NAME]
    if not entries:
        raise BootError(_why_no_entry(notes, candidates))
    first, value = entries[0]
    for note, other in entries:
        if other != value:
            raise BootError(
                f"two PHYS32_ENTRY notes that differ: {value:#x} in {first.source} and {other:#x} in {note.source}: "
                "which one counts depends on the loader"
            )
    return value


def pvh_relocation(notes: Iterable[Note], load_aligns: Iterable[int]) -> Relocation | None:
    """What the PHYS32_RELOC note says, None without one: such a kernel runs where it is linked and nowhere else.

    `load_aligns` are the p_align of the PT_LOAD segments, which count where the note has no alignment. BootError for a
    descriptor of another size than 0, 4, 8 or 12 bytes, for an alignment that is no power of two, or if two of them differ.
    """
    found = {note.descriptor: note for note in notes if (note.name, note.type) == (NOTE_NAME, XEN_ELFNOTE_PHYS32_RELOC)}
    if not found:
        return None
    note, *others = found.values()
    if others:
        raise BootError(f"two PHYS32_RELOC notes that differ, in {note.source} and {others[0].source}")
    size = len(note.descriptor)
    if size not in _RELOC_SIZES:
        raise BootError(
            f"the PHYS32_RELOC note in {note.source} has a descriptor of {size} bytes: 0, 4, 8 or 12 would be right "
            "(alignment, lowest and highest address)"
        )
    largest = max(load_aligns, default=0)
    defaults = largest if largest >= PAGE_SIZE else PHYS32_RELOC_ALIGN, PHYS32_RELOC_MIN, PHYS32_RELOC_MAX
    values = struct.unpack(f"<{size // 4}I", note.descriptor)
    relocation = Relocation(*values, *defaults[len(values) :])
    if relocation.align.bit_count() != 1:
        whose = (
            f"the PHYS32_RELOC note in {note.source} has"
            if values
            else "the PHYS32_RELOC note leaves it to the segments to have"
        )
        raise BootError(f"{whose} an alignment of {relocation.align:#x}: a power of two would be right")
    return relocation


def _entry_value(note: Note) -> int:
    size = len(note.descriptor)
    if size not in (4, 8):
        raise BootError(f"the PHYS32_ENTRY note in {note.source} has a descriptor of {size} bytes: 4 or 8 would be right")
    value = int.from_bytes(note.descriptor, "little")
    if value >= ADDRESS_4G:
        raise BootError(f"the PHYS32_ENTRY note in {note.source} says {value:#x}: the entry is a 32-bit address")
    return value


def _why_no_entry(notes: Sequence[Note], candidates: Sequence[Note]) -> str:
    if candidates:
        note = candidates[0]
        more = "…" if len(note.name) > _SHOWN else ""
        return (
            f"no PHYS32_ENTRY note: the note of type {XEN_ELFNOTE_PHYS32_ENTRY} in {note.source} has the name "
            f"{note.name[:_SHOWN]!r}{more}, not {NOTE_NAME!r}"
        )
    if not notes:
        return "no ELF notes at all: a PVH kernel has a Xen note PHYS32_ENTRY"
    kinds = sorted({note.type for note in notes if note.name == NOTE_NAME})
    names = [XEN_ELFNOTE_NAMES.get(kind, f"type {kind:#x}") for kind in kinds[: 2 * _SHOWN]] + ["…"] * (len(kinds) > 2 * _SHOWN)
    others = len({note[:3] for note in notes})  # the same note can be in a segment and in a section
    seen = f"its Xen notes are {', '.join(names)}" if kinds else f"none of its notes ({others}) is Xen's"
    return f"no PHYS32_ENTRY note, so no PVH kernel: {seen}"
