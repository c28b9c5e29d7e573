"""A kernel with a PHYS32_ENTRY note that every loader reads alike, made from one that has none, or a malformed one.

Every byte of the kernel stays what and where it is, but for the program headers that name notes (and e_phoff and e_phnum, if a
header has to be added): the notes are written anew behind the end of the file. They look as the loaders agree on:

- one PT_NOTE: of several, linux-loader (rust-vmm, src/loader/elf/mod.rs) and QEMU (include/hw/elf_ops.h) each take the last;
- PHYS32_ENTRY first in it: QEMU takes the first note of that type, whatever its name;
- p_align 4 over notes packed to 4: QEMU steps by p_align, and linux-loader did before 0.9.0;
- a descriptor of 8 bytes in an ELF64, for QEMU up to 9 reads 8 there whatever the note says, and of 4 in an ELF32.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.elf import NOTE_ALIGN, PF_R, PN_XNUM, PT_NOTE, PT_NULL
from pvhboot.shim.abi.elf_layouts import LAYOUTS, NOTE_HEAD
from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.elfwriter import note
from pvhboot.shim.errors import BootError

from .elf import Header, NoteSpan, ProgramHeader, note_sections, note_segments, read_header, read_program_headers, require_x86
from .examination import examine
from .facts import Note
from .image import Image, OpenImage, SizedSource
from .notes import NOTES_MAX_SIZE, iter_notes
from .symbols import find_symbol, physical_address
from .wrapping import require_plain_elf

_APPENDED_ALIGN: Final = 8
_DESCRIPTOR_SIZE: Final = {32: 4, 64: 8}  # bytes
_XEN: Final = NOTE_NAME.rstrip(b"\0")
# The head of a PHYS32_ENTRY note and its name, terminated or not.
_OLD_NOTE: Final = re.compile(
    b"(?s:.{%d})" % NOTE_HEAD.fields["n_type"].offset + re.escape(XEN_ELFNOTE_PHYS32_ENTRY.to_bytes(4, "little")) + _XEN
)
_OLD_MAX: Final = 64
_NAMES_MAX: Final = 16  # bytes: what is longer is no "Xen", however padded
_OLD_PADDING: Final = (NOTE_ALIGN, 8, 1)  # how names are found padded, the right way first


class OldNote(NamedTuple):
    """A PHYS32_ENTRY note that was there: its `place`, its `value` (None: no reading of it lies in the kernel), and what is
    wrong with it ("": nothing)."""

    place: str
    value: int | None
    fault: str


class Injection(NamedTuple):
    """The kernel as it is to be: `image`, and what was done to it.

    `entry` is what its note says; `old` are the notes that it replaces; `kept` counts the other notes; `offset` and `size` say
    where all notes lie now; `table` is where the program headers went, None if they stayed; `lost` says what was unreadable.
    """

    image: "Patched"
    entry: int
    old: tuple[OldNote, ...]
    kept: int
    offset: int
    size: int
    table: int | None
    lost: tuple[str, ...]


class Patched:
    """An image with some bytes changed and some added behind its end (after zeros, if need be); `size` in bytes."""

    def __init__(self, base: SizedSource, patches: Mapping[int, bytes]) -> None:
        self._base = base
        self._patches = dict(patches)
        self.size = max([base.size, *(at + len(data) for at, data in patches.items())])

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; BootError if there are fewer."""
        if offset + size > self.size:
            raise BootError(f"no bytes at {offset:#x}-{offset + size:#x}: the image ends at {self.size:#x}")
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer, which ends within the image; BootError as the image that was changed."""
        from_base = max(0, min(len(buffer), self._base.size - offset))
        if from_base:
            self._base.read_into(offset, buffer[:from_base])
        buffer[from_base:] = bytes(len(buffer) - from_base)
        for at, data in self._patches.items():
            low, high = max(at, offset), min(at + len(data), offset + len(buffer))
            if low < high:
                buffer[low - offset : high - offset] = data[low - at : high - at]


def find_entry(image: Image, name: str) -> int:
    """The physical address of a symbol of an ELF image; BootError if there is none, or several, or it is not loaded."""
    header, headers = _headers(image)
    symbols = find_symbol(image, header, name)
    if not symbols:
        raise BootError(f"no symbol {name!r}: nm lists what there is; an address is written 0x100000")
    if len(symbols) > 1:
        values = ", ".join(f"{symbol.value:#x}" for symbol in symbols[:4])
        raise BootError(f"{len(symbols)} symbols {name!r}, at {values}: give the address")
    paddr = physical_address(symbols[0], headers)
    if paddr is None:
        raise BootError(f"the symbol {name!r} at {symbols[0].value:#x} lies in no PT_LOAD segment")
    return paddr


def inject(image: OpenImage, entry: int | None = None) -> Injection:
    """The ELF `image` with one well-formed PHYS32_ENTRY note for `entry`, a physical address (None: what its old note says).

    BootError if the entry lies in no bytes that are loaded, if it is None and no old note has one, or the old one is as every
    loader likes it, or if the result could still not be booted. Nothing is read into memory but headers and notes.
    """
    header, headers = _headers(image)
    places, lost = _places(image, header, headers)
    notes, faults = _readable(places)
    old = list(islice((found for place in places for found in _old_notes(place, headers, header.bits)), _OLD_MAX))
    if len(old) == _OLD_MAX:
        raise BootError(f"{_OLD_MAX} PHYS32_ENTRY notes or more: a kernel has one")
    if entry is None:
        _require_fault(headers, notes, old, faults, header)
        entry = _old_entry(old)
    _require_loaded(entry, headers)
    kept = list({note[:3]: note for note in notes if not _is_entry(note)}.values())
    descriptor = entry.to_bytes(_DESCRIPTOR_SIZE[header.bits], "little")
    blob = note(NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY, descriptor) + b"".join(note(*other[:3]) for other in kept)
    patches, offset, table = _placed(image, header, blob)
    result = Patched(image, patches)
    if header.bits == 32 and result.size > ADDRESS_4G:
        raise BootError("a file of 4 GiB: an ELF32 has no offsets for more")
    examine(result)
    return Injection(result, entry, tuple(old), len(kept), offset, len(blob), table, (*lost, *faults))


def _headers(image: Image) -> tuple[Header, list[ProgramHeader]]:
    require_plain_elf(image)
    header = read_header(image)
    require_x86(header)
    return header, read_program_headers(image, header)


class _Place(NamedTuple):
    """Notes as they lie; `align` is the p_align of their segment, None for a section."""

    source: str
    offset: int
    data: bytes
    align: int | None


def _places(image: Image, header: Header, headers: Sequence[ProgramHeader]) -> tuple[list[_Place], list[str]]:
    """The PT_NOTE segments, and the SHT_NOTE sections if these hold no PHYS32_ENTRY; why a segment could not be read."""
    places: list[_Place] = []
    lost: list[str] = []
    room = NOTES_MAX_SIZE

    def collect(spans: Iterator[NoteSpan], align: int | None) -> None:
        nonlocal room
        for span in spans:
            room -= span.size
            if room < 0:
                raise BootError(f"too many notes, up to {span.source}: a kernel has a few hundred bytes of them")
            places.append(_Place(span.source, span.offset, image.read(span.offset, span.size), align))

    for program_header in headers:
        try:
            collect(note_segments([program_header], image), program_header.align)
        except BootError as error:
            lost.append(str(error))
    if not any(_OLD_NOTE.search(place.data) for place in places):
        with suppress(BootError):  # what is wrong with the sections stays as it is
            collect(note_sections(image, header), None)
    return places, lost


def _readable(places: Iterable[_Place]) -> tuple[list[Note], list[str]]:
    """The notes up to the first fault of each place, and the faults of the segments."""
    notes: list[Note] = []
    faults: list[str] = []
    for place in places:
        try:
            notes.extend(iter_notes(place.data, place.source, f"file offset {place.offset:#x}"))
        except BootError as error:
            if place.align is not None:
                faults.append(str(error))
    return notes, faults


def _is_entry(note: Note) -> bool:
    return note.type == XEN_ELFNOTE_PHYS32_ENTRY and note.name.rstrip(b"\0") == _XEN


def _old_notes(place: _Place, headers: Sequence[ProgramHeader], bits: int) -> Iterator[OldNote]:
    """The PHYS32_ENTRY notes, found by their first bytes: what is in front of them may be as wrong as they are."""
    data = place.data
    for match in _OLD_NOTE.finditer(data):
        head = NOTE_HEAD.unpack(data, match.start())
        if not len(_XEN) <= head.n_namesz <= _NAMES_MAX or head.n_descsz > 8:
            continue
        name_at = match.start() + NOTE_HEAD.size
        name = data[name_at : name_at + head.n_namesz]
        if name.rstrip(b"\0") != _XEN:
            continue
        faults = [f"the name {name!r}"] if name != NOTE_NAME else []
        value = None
        for padding in _OLD_PADDING:
            at = name_at + head.n_namesz + -head.n_namesz % padding
            descriptor = data[at : at + head.n_descsz]
            number = int.from_bytes(descriptor, "little")
            if len(descriptor) == head.n_descsz and number and _is_loaded(number, headers):
                value = number
                if padding != NOTE_ALIGN:
                    faults.append(f"a name padded to {padding} bytes")
                break
        if head.n_descsz != _DESCRIPTOR_SIZE[bits]:
            faults.append(f"a descriptor of {head.n_descsz} bytes")
        if place.align != NOTE_ALIGN:
            faults.append("no segment" if place.align is None else f"p_align {place.align}")
        yield OldNote(place.source, value, ", ".join(faults))


def _require_fault(
    headers: Sequence[ProgramHeader], notes: Sequence[Note], old: Sequence[OldNote], faults: Sequence[str], header: Header
) -> None:
    """BootError if there is nothing to do: one PT_NOTE, one PHYS32_ENTRY in it, nothing wrong with it."""
    segments = sum(header.type == "PT_NOTE" for header in headers)
    of_type = sum(note.type == XEN_ELFNOTE_PHYS32_ENTRY for note in notes)
    usable_table = header.phoff >= LAYOUTS[header.bits].header.size
    if segments == of_type == len(old) == 1 and not old[0].fault and not faults and usable_table and old[0].value is not None:
        raise BootError(
            f"nothing to repack: its PHYS32_ENTRY {old[0].value:#x} in {old[0].place} is well-formed; --entry gives it another"
        )


def _old_entry(old: Sequence[OldNote]) -> int:
    if not old:
        raise BootError("no PHYS32_ENTRY note to repack: give its entry with --entry, an address or a symbol")
    values = {found.value: found.place for found in old if found.value is not None}
    if not values:
        raise BootError(f"the PHYS32_ENTRY note in {old[0].place} says nothing that is loaded: give the entry with --entry")
    if len(values) > 1:
        listed = " and ".join(f"{value:#x} in {place}" for value, place in values.items())
        raise BootError(f"PHYS32_ENTRY notes that differ, {listed}: give the right one with --entry")
    return next(iter(values))


def _is_loaded(entry: int, headers: Sequence[ProgramHeader]) -> bool:
    return entry < ADDRESS_4G and any(
        header.type == "PT_LOAD" and header.paddr <= entry < header.paddr + header.filesz for header in headers
    )


def _require_loaded(entry: int, headers: Sequence[ProgramHeader]) -> None:
    if entry >= ADDRESS_4G:
        raise BootError(f"the entry {entry:#x} is no 32-bit address: it is called in 32-bit mode, without paging")
    if not _is_loaded(entry, headers):
        loads = [header for header in headers if header.type == "PT_LOAD" and header.filesz]
        spans = [f"{header.paddr:#x}-{header.paddr + header.filesz:#x}" for header in loads[:4]] + ["…"] * (len(loads) > 4)
        raise BootError(f"no bytes of the file are loaded to the entry {entry:#x}: those of PT_LOAD go to {', '.join(spans)}")


def _placed(image: Image, header: Header, blob: bytes) -> tuple[dict[int, bytes], int, int | None]:
    """What to change, by file offset; where the notes lie; where the program headers lie, if not where they were."""
    layouts = LAYOUTS[header.bits]
    layout = layouts.program_header
    table: list[Any] = [layout.unpack(image.read(header.phoff + at * layout.size, layout.size)) for at in range(header.phnum)]
    offset = image.size + -image.size % _APPENDED_ALIGN
    noted = [at for at, entry in enumerate(table) if entry.p_type == PT_NOTE]
    free = next(iter(noted), None)
    if free is None:
        free = next((at for at, entry in enumerate(table) if entry.p_type == PT_NULL), None)
    for at in noted:
        table[at] = table[at]._replace(p_type=PT_NULL)
    moves = free is None or header.phoff < layouts.header.size  # linux-loader refuses one inside of the ELF header
    if free is None:
        free = len(table)
        table.append(table[0])
    if len(table) >= PN_XNUM:
        raise BootError(f"{len(table)} program headers with one for the notes: an ELF file has at most {PN_XNUM - 1}")
    new = {"p_type": PT_NOTE, "p_flags": PF_R, "p_offset": offset, "p_vaddr": 0, "p_paddr": 0}
    new |= {"p_filesz": len(blob), "p_memsz": len(blob), "p_align": NOTE_ALIGN}
    table[free] = table[free]._replace(**new)
    patches = {offset: blob}
    packed = b"".join(layout.pack(entry) for entry in table)
    if not moves:
        return patches | {header.phoff: packed}, offset, None
    table_at = offset + len(blob) + -len(blob) % _APPENDED_ALIGN
    patches[table_at] = packed
    fields = layouts.header.fields
    for field, value in (("e_phoff", table_at), ("e_phnum", len(table))):
        patches[fields[field].offset] = value.to_bytes(fields[field].size, "little")
    return patches, offset, table_at
