"""What a file is, and whether and why it can boot as a PVH kernel: told of any readable file, however broken."""

import os
import struct
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_NAMES, XEN_ELFNOTE_PHYS32_ENTRY, XEN_ELFNOTE_PHYS32_RELOC
from pvhboot.shim.errors import BootError

from .bzimage import find_payload, is_bzimage, read_setup_header
from .codecs import Progress
from .elf import Header, NoteSpan, ProgramHeader, note_sections, note_segments, read_header, read_program_headers
from .image import FileImage, OpenImage, read_head
from .kernel import examine
from .notes import Note, read_notes
from .wrapping import describe, unwrap

# binutils include/elf/common.h, NT_GNU_*.
_GNU_NAME: Final = b"GNU\0"
_GNU_BUILD_ID: Final = 3
_GNU_TYPES: Final = {1: "ABI_TAG", _GNU_BUILD_ID: "BUILD_ID", 5: "PROPERTY_TYPE_0"}

_SHOWN_TYPES: Final = ("PT_LOAD", "PT_NOTE", "PT_DYNAMIC", "PT_INTERP", "PT_TLS")
_SHOWN_BYTES: Final = 16  # of a descriptor or a name
_BUILD_ID_BYTES: Final = 64  # a SHA-512, the longest build-id in use
_FLAGS: Final = ((4, "R"), (2, "W"), (1, "X"))


class DecodedNote(NamedTuple):
    """A note made readable. `places` are all that hold the same note; `value` is the entry, for a PHYS32_ENTRY only."""

    owner: str
    type: str
    value: int | None
    text: str
    places: tuple[str, ...]


class BzImageFacts(NamedTuple):
    """A bzImage's setup header and payload: offset in the file, sizes in bytes. None for what could not be found."""

    protocol: str
    kernel_version: str | None
    codec: str | None
    payload_offset: int | None
    packed_size: int | None
    unpacked_size: int | None

    def to_rows(self) -> list[tuple[str, str]]:
        """Lines for a person, each with its name."""
        rows = [("bzImage", f"boot protocol {self.protocol}, {self.kernel_version or 'without a version string'}")]
        if self.codec is not None:
            unpacked = "not unpacked" if self.unpacked_size is None else f"{self.unpacked_size} unpacked"
            rows.append(("payload", f"{self.codec}, {self.packed_size} bytes at {self.payload_offset:#x}, {unpacked}"))
        return rows


class Inspection(NamedTuple):
    """What was found. What could not be read is None or empty, and `problems` says why.

    `kind` is as in Kernel, or says what else the file is; `reason` says why it is bootable or not; `entry` is the physical
    address of the PVH entry of a bootable kernel; `bzimage` is None for any other file.
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

    def to_text(self) -> str:
        """Aligned lines for a person, without a newline at the end."""
        rows = [("file", self.path), ("size", f"{self.size} bytes"), ("kind", self.kind)]
        if self.bzimage is not None:
            rows += self.bzimage.to_rows()
        if self.elf_class is not None:
            rows.append(("ELF", f"{self.elf_class}, {self.type}, {self.machine}, e_entry {self.elf_entry:#x}"))
        rows.append(("bootable", f"{'yes' if self.bootable else 'no'}: {self.reason}"))
        rows += [("problem", problem) for problem in self.problems]
        out = [f"{name + ':':<10}{value}" for name, value in rows]
        if self.headers:
            table: list[tuple[str, ...]] = [("segment", "paddr", "memory", "offset", "in file", "flags", "align")]
            for header in self.headers:
                numbers = (header.paddr, header.memsz, header.offset, header.filesz)
                table.append((header.name, *(f"{number:#x}" for number in numbers), _flags(header.flags), f"{header.align:#x}"))
            out += ["", *_aligned(table, range(1, 5))]
        if self.notes:
            rows_of_notes = [(note.owner, note.type, note.text, ", ".join(note.places)) for note in self.notes]
            out += ["", *_aligned([("note", "type", "descriptor", "where"), *rows_of_notes], range(0))]
        return "\n".join(out)

    def to_json(self) -> dict[str, Any]:
        """The same for a program: numbers as integers, nothing that JSON lacks."""
        return {
            **self._asdict(),
            "bzimage": self.bzimage and self.bzimage._asdict(),
            "headers": [{**header._asdict(), "flags": _flags(header.flags)} for header in self.headers],
            "notes": [{**note._asdict(), "places": list(note.places)} for note in self.notes],
            "problems": list(self.problems),
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
    nothing = Inspection(path, file.size, "", None, None, None, None, (), (), (), False, "", None, _bzimage_facts(file, head))
    try:
        image, wrapping = unwrap(file, progress)
    except BootError as error:
        kind = describe(head).partition(":")[0] if file.size else "an empty file"
        return nothing._replace(kind=kind or "unknown", reason=str(error))
    if nothing.bzimage is not None:
        nothing = nothing._replace(bzimage=nothing.bzimage._replace(unpacked_size=image.size))
    try:
        header = read_header(image)
    except BootError as error:
        return nothing._replace(kind=f"{wrapping}ELF", reason=str(error))
    found = nothing._replace(
        kind=f"{wrapping}ELF{header.bits}",
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
        return found._replace(reason=reason, problems=tuple(text for text in found.problems if text != reason))
    source = next(note.source for note in facts.notes if note.type == XEN_ELFNOTE_PHYS32_ENTRY and note.name == NOTE_NAME)
    return found._replace(bootable=True, entry=facts.entry, reason=f"PHYS32_ENTRY {facts.entry:#x} in {source}")


def _bzimage_facts(file: FileImage, head: bytes) -> BzImageFacts | None:
    """What the setup header says, as far as it can be read; why not is what unwrap says."""
    if not is_bzimage(head):
        return None
    try:
        header = read_setup_header(file)
    except BootError:
        return None
    facts = BzImageFacts(header.protocol_name, header.kernel_version or None, None, None, None, None)
    try:
        packed = find_payload(file, header)
    except BootError:
        return facts
    return facts._replace(codec=packed.codec.name, payload_offset=packed.offset, packed_size=packed.size)


def _with_contents(found: Inspection, image: OpenImage, header: Header) -> Inspection:
    """Adds program headers and notes, as far as they can be read."""
    problems: list[str] = []
    notes: dict[tuple[bytes, int, bytes], list[str]] = {}
    headers: list[ProgramHeader] = []

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
    return found._replace(
        headers=tuple(header for header in headers if header.type in _SHOWN_TYPES),
        notes=tuple(_decode(Note(*key, ""), tuple(dict.fromkeys(places))) for key, places in notes.items()),
        problems=tuple(problems),
    )


def _decode(note: Note, places: tuple[str, ...]) -> DecodedNote:
    owner = _printable(note.name.rstrip(b"\0")[:_SHOWN_BYTES])
    names = {NOTE_NAME: XEN_ELFNOTE_NAMES, _GNU_NAME: _GNU_TYPES}.get(note.name, {})
    kind = names.get(note.type, f"{note.type:#x}")
    descriptor, value = note.descriptor, None
    shown = _BUILD_ID_BYTES if (note.name, note.type) == (_GNU_NAME, _GNU_BUILD_ID) else _SHOWN_BYTES
    if (note.name, note.type) == (NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY) and len(descriptor) in (4, 8):
        value = int.from_bytes(descriptor, "little")
        text = f"{value:#x} ({len(descriptor)} bytes)"
    elif (note.name, note.type) == (NOTE_NAME, XEN_ELFNOTE_PHYS32_RELOC) and len(descriptor) in (4, 8, 12):
        fields = zip(("align", "min", "max"), struct.unpack(f"<{len(descriptor) // 4}I", descriptor), strict=False)
        text = ", ".join(f"{name} {number:#x}" for name, number in fields)
    elif len(descriptor) > shown:
        text = f"{descriptor[:shown].hex()}… ({len(descriptor)} bytes)"
    else:
        text = descriptor.hex()
        word = descriptor.rstrip(b"\0")
        if word and all(0x20 <= byte < 0x7F for byte in word) and len(word) + 1 == len(descriptor):
            text += f' "{_printable(word)}"'
    return DecodedNote(owner, kind, value, text, places)


def _printable(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data)


def _flags(flags: int) -> str:
    return "".join(letter if flags & bit else "-" for bit, letter in _FLAGS)


def _aligned(table: list[tuple[str, ...]], numbers: range) -> list[str]:
    """Rows with columns as wide as their widest cell, the columns of `numbers` to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = zip(row, widths, strict=True)
        shown = [cell.rjust(width) if at in numbers else cell.ljust(width) for at, (cell, width) in enumerate(cells)]
        lines.append("  ".join(shown).rstrip())
    return lines
