"""What a file is, and whether and why it can boot as a PVH kernel: told of any readable file, however broken."""

import os
import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.elf import GNU_NOTE_NAME, LINUX_NOTE_NAME, NT_GNU_ABI_TAG, NT_GNU_BUILD_ID, NT_GNU_PROPERTY_TYPE_0
from pvhboot.shim.abi.pvh import (
    NOTE_NAME,
    XEN_ELFNOTE_BSD_SYMTAB,
    XEN_ELFNOTE_NAMES,
    XEN_ELFNOTE_PHYS32_ENTRY,
    XEN_ELFNOTE_PHYS32_RELOC,
    XEN_ELFNOTE_XEN_VERSION,
    Relocation,
)
from pvhboot.shim.errors import BootError

from .bzimage import SetupHeader, find_payload, is_bzimage, read_setup_header
from .codecs import Progress
from .elf import Header, NoteSpan, ProgramHeader, note_sections, note_segments, read_header, read_program_headers
from .examination import examine
from .facts import Facts, Note
from .image import FileImage, OpenImage, read_head
from .notes import read_notes
from .picture import show_flags
from .printable import printable
from .symbols import SymbolSource, symbol_source
from .verdict import Judged, judge
from .verdicts.base import Verdict
from .wrapping import Wrapping, describe, unwrap

_GNU_TYPES: Final = {NT_GNU_ABI_TAG: "ABI_TAG", NT_GNU_BUILD_ID: "BUILD_ID", NT_GNU_PROPERTY_TYPE_0: "PROPERTY_TYPE_0"}
# Linux include/linux/build-salt.h and elfnote-lto.h.
_LINUX_TYPES: Final = {0x100: "BUILD_SALT", 0x101: "LTO_INFO"}
_TYPES: Final = {NOTE_NAME: XEN_ELFNOTE_NAMES, GNU_NOTE_NAME: _GNU_TYPES, LINUX_NOTE_NAME: _LINUX_TYPES}

_SHOWN_TYPES: Final = ("PT_LOAD", "PT_NOTE", "PT_DYNAMIC", "PT_INTERP", "PT_TLS")
_SHOWN_BYTES: Final = 16  # of a descriptor or a name
_XEN_TEXTS: Final = range(XEN_ELFNOTE_XEN_VERSION, XEN_ELFNOTE_BSD_SYMTAB + 1)  # with a NUL at the end or without
_TEXT_BYTES: Final = 80  # of a descriptor that is one
_BUILD_ID_BYTES: Final = 64  # a SHA-512, the longest build-id in use


class DecodedNote(NamedTuple):
    """A note made readable. `number` is its type as it stands; `descriptor` all of it, in hexadecimal; `value` the number in
    it, of those of Xen's notes that have one, in 4 or 8 bytes; `places` are all that hold the same note."""

    owner: str
    type: str
    number: int
    descriptor: str
    value: int | None
    text: str
    places: tuple[str, ...]


class BzImageFacts(NamedTuple):
    """A bzImage's setup header and payload: offset in the file, sizes in bytes. None for what could not be found."""

    protocol: str
    kernel_version: str | None
    header: SetupHeader
    codec: str | None
    payload_offset: int | None
    packed_size: int | None
    unpacked_size: int | None

    def to_json(self) -> dict[str, Any]:
        """All of it on one level, the setup header's fields by their names."""
        own = self._asdict()
        return {**own.pop("header")._asdict(), **own}


class Inspection(NamedTuple):
    """What was found. What could not be read is None or empty, and `problems` says why.

    `kind` is as in Kernel, or says what else the file is; `reason` says why it is bootable or not; `entry` is the physical
    address of the PVH entry of a bootable kernel; `bzimage` is None for any other file; `relocation` is None unless it is
    bootable and can be moved; `symbols` is where their names are from, None without any.
    """

    path: str
    size: int
    kind: str
    elf_class: str | None
    machine: str | None
    type: str | None
    elf_entry: int | None
    headers: tuple[ProgramHeader, ...]
    notes: tuple[DecodedNote, ...]
    problems: tuple[str, ...]
    bootable: bool
    reason: str
    entry: int | None
    bzimage: BzImageFacts | None
    relocation: Relocation | None
    symbols: SymbolSource | None
    verdicts: tuple[Verdict, ...]

    def to_text(self) -> str:
        """Lines for a person, without a newline at the end: of at most 100 columns but for the path, and of many segments or
        notes the first and the last."""
        from .inspection_text import as_text

        return as_text(self)

    def to_json(self) -> dict[str, Any]:
        """The same for a program: numbers as integers, nothing that JSON lacks."""
        return {
            **self._asdict(),
            "bzimage": self.bzimage and self.bzimage.to_json(),
            "headers": [{**header._asdict(), "flags": show_flags(header.flags)} for header in self.headers],
            "notes": [{**note._asdict(), "places": list(note.places)} for note in self.notes],
            "problems": list(self.problems),
            "relocation": self.relocation and self.relocation._asdict(),
            "symbols": self.symbols and self.symbols._asdict(),
            "verdicts": [{**verdict._asdict(), "remarks": list(verdict.remarks)} for verdict in self.verdicts],
        }


def inspect(path: str | os.PathLike[str], progress: Progress | None = None) -> Inspection:
    """Reads all that can be read of a file; BootError only if it cannot be read. `progress` as in Kernel.open."""
    name = os.fspath(path)
    try:
        image = FileImage(path)
    except BootError as error:
        raise BootError(f"{name}: {error}") from None
    try:
        return _inspect(name, image, progress)
    finally:
        image.close()


def _inspect(path: str, file: FileImage, progress: Progress | None) -> Inspection:
    try:
        head = read_head(file)
    except BootError as error:
        raise BootError(f"{path}: {error}") from None
    bzimage = _bzimage_facts(file, head)
    nothing = Inspection(path, file.size, "", None, None, None, None, (), (), (), False, "", None, bzimage, None, None, ())
    try:
        image, wrapping = unwrap(file, progress)
    except BootError as error:
        kind = describe(head).partition(":")[0] if file.size else "an empty file"
        verdicts = judge(Judged(file, Wrapping("", 0, file.size, bzimage is not None), None, None, str(error)))
        return nothing._replace(kind=kind or "unknown", reason=str(error), verdicts=verdicts)
    if bzimage is not None:
        nothing = nothing._replace(bzimage=bzimage._replace(unpacked_size=image.size))
    found, facts = _look_into(nothing, image, wrapping)
    return found._replace(verdicts=judge(Judged(file, wrapping, image, facts, found.reason)))


def _look_into(nothing: Inspection, image: OpenImage, wrapping: Wrapping) -> tuple[Inspection, Facts | None]:
    """What the ELF image is; all but the verdicts."""
    try:
        header = read_header(image)
    except BootError as error:
        return nothing._replace(kind=f"{wrapping.prefix}ELF", reason=str(error)), None
    found = nothing._replace(
        kind=f"{wrapping.prefix}ELF{header.bits}",
        elf_class=f"ELF{header.bits}",
        machine=header.machine,
        type=header.type,
        elf_entry=header.entry,
    )
    found = _with_contents(found, image, header)
    try:
        facts = examine(image)
    except BootError as error:
        reason = str(error)
        problems = tuple(text for text in found.problems if text != reason)
        return found._replace(reason=reason, problems=problems), None
    source = next(note.source for note in facts.notes if note.type == XEN_ELFNOTE_PHYS32_ENTRY and note.name == NOTE_NAME)
    reason = f"PHYS32_ENTRY {facts.entry:#x} in {source}"
    return found._replace(bootable=True, entry=facts.entry, reason=reason, relocation=facts.relocation), facts


def _bzimage_facts(file: FileImage, head: bytes) -> BzImageFacts | None:
    """What the setup header says, as far as it can be read; why not is what unwrap says."""
    if not is_bzimage(head):
        return None
    try:
        header = read_setup_header(file)
    except BootError:
        return None
    facts = BzImageFacts(header.protocol_name, header.kernel_version or None, header, None, None, None, None)
    try:
        packed = find_payload(file, header)
    except BootError:
        return facts
    return facts._replace(codec=packed.codec.name, payload_offset=packed.offset, packed_size=packed.size)


def _with_contents(found: Inspection, image: OpenImage, header: Header) -> Inspection:
    """Adds program headers, notes and what tells of symbols, as far as they can be read."""
    problems: list[str] = []
    notes: dict[tuple[bytes, int, bytes], list[str]] = {}
    headers: list[ProgramHeader] = []
    symbols: SymbolSource | None = None

    def collect(spans: Iterable[NoteSpan]) -> None:
        try:
            for note in read_notes(image, spans):
                notes.setdefault((note.name, note.type, note.descriptor), []).append(note.source)
        except BootError as error:
            problems.append(str(error))

    try:
        headers = read_program_headers(image, header)
    except BootError as error:
        problems.append(str(error))
    if not header.big_endian:
        collect(note_segments(headers, image))
        collect(note_sections(image, header))
        symbols = symbol_source(image, header, headers)
    return found._replace(
        headers=tuple(header for header in headers if header.type in _SHOWN_TYPES),
        notes=tuple(_decode(Note(*key, ""), tuple(dict.fromkeys(places))) for key, places in notes.items()),
        problems=tuple(problems),
        symbols=symbols,
    )


def _decode(note: Note, places: tuple[str, ...]) -> DecodedNote:
    owner = printable(note.name.rstrip(b"\0")[:_SHOWN_BYTES])
    kind = _TYPES.get(note.name, {}).get(note.type, f"{note.type:#x}")
    descriptor, value = note.descriptor, None
    size = len(descriptor)
    shown = _BUILD_ID_BYTES if (note.name, note.type) == (GNU_NOTE_NAME, NT_GNU_BUILD_ID) else _SHOWN_BYTES
    text = descriptor.rstrip(b"\0")
    is_text = note.name == NOTE_NAME and note.type in _XEN_TEXTS
    is_number = note.name == NOTE_NAME and size in (4, 8)
    is_word = 0 < len(text) <= _TEXT_BYTES and text == printable(text).encode()
    if (note.name, note.type) == (NOTE_NAME, XEN_ELFNOTE_PHYS32_RELOC) and size in (4, 8, 12):
        fields = zip(("align", "min", "max"), struct.unpack(f"<{size // 4}I", descriptor), strict=False)
        shown_as = ", ".join(f"{name} {number:#x}" for name, number in fields)
    elif is_word and (is_text or (size == len(text) + 1 and not is_number)):
        shown_as = f'"{text.decode("ascii")}"'
    elif is_number:
        value = int.from_bytes(descriptor, "little")
        shown_as = f"{value:#x} ({size} bytes)"
    else:
        shown_as = descriptor[:shown].hex() + (f"… ({size} bytes)" if size > shown else "")
    return DecodedNote(owner, kind, note.type, descriptor.hex(), value, shown_as, places)
