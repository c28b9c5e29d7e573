"""Kernel: a PVH kernel file, plain or gzipped, proven fit to load before anyone reads a segment of it.

Sources: System V ABI, "Object Files"; RFC 1952 (gzip); Linux Documentation/arch/x86/boot.rst (how a bzImage is known).
"""

import os
import stat
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, Self

from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import fill, open_file

from .elf import (
    ELF_MAGIC,
    Image,
    ProgramHeader,
    note_sections,
    note_segments,
    read_header,
    read_program_headers,
    require_x86,
)
from .notes import Note, has_pvh_entry, pvh_entry, read_notes

GZIP_MAX_SIZE: Final = 1 << 30  # decompressed, in bytes; the early page tables of Linux and FreeBSD map no more

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WBITS: Final = 31  # zlib's number for a gzip wrapper around the largest window
_CHUNK: Final = 1 << 20
_HEAD_SIZE: Final = 0x210  # enough of a file to tell what it is
_MAGICS: Final = (
    # Offset, bytes, what it is; the first that fits. A bzImage with an EFI stub is a PE too.
    (0x202, b"HdrS", "a Linux bzImage: extract the vmlinux that it holds"),
    (0, b"MZ", "a PE executable, as EFI starts them"),
    (0, b"#!", "a script"),
    (0, _GZIP_MAGIC, "gzip: decompress it once more"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: decompress it"),
    (0, b"\xfd7zXZ\0", "xz-compressed: decompress it"),
    (0, b"BZh", "bzip2-compressed: decompress it"),
    (0, b"\x02\x21\x4c\x18", "lz4-compressed: decompress it"),
    (0, b"\x04\x22\x4d\x18", "lz4-compressed: decompress it"),
    (0, b"07070", "a cpio archive, as an initrd is"),
    (0, b"!<arch>\n", "an ar archive, as a .deb or a .a is"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
)


class OpenImage(Image, Protocol):
    """An Image that fills buffers and is closed."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer; BootError if the file ends before."""

    def close(self) -> None:
        """Lets go of the file; twice is no error."""


class BytesImage:
    """A file that is in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data).toreadonly().cast("B")
        self.size = len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; BootError if there are fewer."""
        _require_inside(offset, size, self.size)
        return bytes(self._data[offset : offset + size])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer; BootError if there are fewer bytes."""
        _require_inside(offset, buffer.nbytes, self.size)
        buffer.cast("B")[:] = self._data[offset : offset + buffer.nbytes]

    def close(self) -> None:
        """Nothing to let go of but memory."""


class FileImage:
    """A regular file, read where asked. Its size is that at the time of opening."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises BootError if it cannot be opened or is no regular file."""
        self._fd = -1
        try:
            self._fd = open_file(path)
            status = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise BootError(f"cannot be opened: {error.strerror or error}") from None
        except ValueError as error:  # a null byte, or a character that the file system's encoding lacks
            raise BootError(f"cannot be opened: {error}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise BootError("cannot be opened: a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        self.size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; BootError if the file ends before."""
        _require_inside(offset, size, self.size)
        data = bytearray(size)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer from the file, without a copy between; BootError if the file ends before."""
        _require_inside(offset, buffer.nbytes, self.size)
        try:
            done = fill(self._fd, offset, buffer.cast("B"))
        except OSError as error:
            raise BootError(f"cannot be read at {offset:#x}: {error.strerror or error}") from None
        if done < buffer.nbytes:
            raise BootError(f"ends at {offset + done:#x}: it had {self.size:#x} bytes when it was opened")

    def close(self) -> None:
        """Closes the file; twice is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class KernelSegment(NamedTuple):
    """A PT_LOAD segment: `filesz` bytes at `offset` of the uncompressed image go to `paddr`, zeros up to `memsz` bytes."""

    paddr: int
    offset: int
    filesz: int
    memsz: int
    flags: int

    @property
    def end(self) -> int:
        """The first physical address after the segment."""
        return self.paddr + self.memsz


class Facts(NamedTuple):
    """What a kernel image was proven to hold."""

    bits: int
    segments: tuple[KernelSegment, ...]
    entry: int
    elf_entry: int
    notes: tuple[Note, ...]


class Kernel:
    """A PVH kernel that passed every check. Keeps its file open until closed; a context manager.

    `kind` is "ELF64", "gzip of ELF32" …; `segments` are the non-empty PT_LOAD segments by physical address, none overlapping
    another; `entry` is the physical address of the PVH entry, `elf_entry` what the ELF header says; `notes` are all notes of
    the PT_NOTE segments, and those of sections only if the entry is not in a segment.
    """

    def __init__(self, path: str, kind: str, image: OpenImage, facts: Facts) -> None:
        self.path = path
        self.kind = kind
        self.segments = facts.segments
        self.entry = facts.entry
        self.elf_entry = facts.elf_entry
        self.notes = facts.notes
        self._image = image

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Reads and checks a file; BootError, with the path in front, for all that is wrong."""
        name = os.fspath(path)
        try:
            return cls._from_image(FileImage(path), name)
        except BootError as error:
            raise BootError(f"{name}: {error}") from None

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Checks a file that is in memory; BootError, with `name` in front, for all that is wrong."""
        try:
            return cls._from_image(BytesImage(data), name)
        except BootError as error:
            raise BootError(f"{name}: {error}") from None

    @classmethod
    def _from_image(cls, file: OpenImage, path: str) -> Self:
        image = file
        try:
            image, wrapping = unwrap(file)
            facts = examine(image)
        except BaseException:
            file.close()
            raise
        if image is not file:
            file.close()
        return cls(path, f"{wrapping}ELF{facts.bits}", image, facts)

    def read_into(self, segment_offset_in_image: int, buffer: memoryview) -> None:
        """Fills the whole buffer from that offset of the uncompressed image; BootError if the file ends before."""
        try:
            self._image.read_into(segment_offset_in_image, buffer)
        except BootError as error:
            raise BootError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Closes the file; twice is no error."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _require_inside(offset: int, size: int, available: int) -> None:
    if offset < 0 or offset + size > available:
        raise BootError(f"no bytes at {offset:#x}-{offset + size:#x}: the image ends at {available:#x}")


def describe(head: bytes) -> str:
    """What a file is, by its first bytes; "" if that is not known."""
    for offset, magic, what in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return what
    return "a text file" if head and all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in head) else ""


def unwrap(image: OpenImage) -> tuple[OpenImage, str]:
    """The ELF image in a file, and how it was wrapped ("" or "gzip of "); BootError, saying what it is, if it holds none."""
    if image.size == 0:
        raise BootError("an empty file")
    head = image.read(0, min(_HEAD_SIZE, image.size))
    if head.startswith(_GZIP_MAGIC):
        return BytesImage(_gunzip(image)), "gzip of "
    _require_elf(head, "")
    return image, ""


def _require_elf(head: bytes, wrapping: str) -> None:
    if not head.startswith(ELF_MAGIC):
        what = describe(head) or ("something" if head else "nothing") + f" that starts with {head[:4].hex(' ') or 'no byte'}"
        raise BootError(f"not an ELF file, but {wrapping}{what}")


def _gunzip(image: Image) -> bytearray:
    """The decompressed data of a gzip file of one member; what follows the member is ignored unless it is another one.

    BootError if it is truncated, corrupt, no ELF file (told from its first bytes) or larger than GZIP_MAX_SIZE.
    """
    decoder = zlib.decompressobj(_GZIP_WBITS)
    out = bytearray()
    at, pending, told = 0, b"", False
    while not decoder.eof:
        if not pending:
            pending = image.read(at, min(_CHUNK, image.size - at))
            at += len(pending)
            if not pending:
                raise BootError(f"truncated gzip file: it ends after {image.size} bytes, with {len(out)} decompressed")
        try:
            piece = decoder.decompress(pending, _CHUNK)
        except zlib.error as error:
            raise BootError(
                f"corrupt gzip file after {len(out)} decompressed bytes: {str(error).rpartition(': ')[2]}"
            ) from None
        pending = decoder.unconsumed_tail
        if len(out) + len(piece) > GZIP_MAX_SIZE:
            raise BootError(f"gzip of more than {GZIP_MAX_SIZE} bytes ({GZIP_MAX_SIZE >> 20} MiB): no kernel is that large")
        try:
            out += piece
        except MemoryError:
            raise BootError(f"the host has no memory to decompress it: {len(out)} bytes so far") from None
        if not told and (len(out) >= _HEAD_SIZE or decoder.eof):
            _require_elf(bytes(out[:_HEAD_SIZE]), "gzip of ")
            told = True
    if decoder.unused_data.startswith(_GZIP_MAGIC):
        raise BootError("a gzip file of several members: compress the kernel in one piece")
    return out


def examine(image: Image) -> Facts:
    """Checks an uncompressed ELF image from its header to its PVH entry; BootError, without a path, at the first fault."""
    header = read_header(image)
    require_x86(header)
    headers = read_program_headers(image, header)
    segments = _load_segments(headers, header.bits, image.size)
    notes = list(read_notes(image, note_segments(headers, image)))
    if not has_pvh_entry(notes):
        try:
            notes += read_notes(image, note_sections(image, header))
        except BootError as error:
            try:
                pvh_entry(notes)
            except BootError as reason:
                raise BootError(f"{reason}; and its sections cannot be searched: {error}") from None
    entry = pvh_entry(notes)
    if not any(segment.paddr <= entry < segment.end for segment in segments):
        raise BootError(f"the PVH entry {entry:#x} lies in no PT_LOAD segment: they span {_spans(segments)}")
    return Facts(header.bits, segments, entry, header.entry, tuple(notes))


def _spans(segments: Sequence[KernelSegment]) -> str:
    shown = [f"{segment.paddr:#x}-{segment.end:#x}" for segment in segments[:4]]
    return ", ".join(shown + ["…"] * (len(segments) > len(shown)))


def _load_segments(headers: Sequence[ProgramHeader], bits: int, size: int) -> tuple[KernelSegment, ...]:
    """The PT_LOAD segments with memory, by physical address; BootError if one cannot be loaded, or two overlap."""
    limit = 1 << bits
    limit_name = "4 GiB" if limit == ADDRESS_4G else "the 64-bit address space"
    found = []
    for header in headers:
        if header.type != "PT_LOAD":
            continue
        if header.filesz > header.memsz:
            raise BootError(f"{header.name} has more bytes in the file ({header.filesz:#x}) than in memory ({header.memsz:#x})")
        if header.memsz == 0:
            continue
        if header.filesz and header.offset + header.filesz > size:
            raise BootError(
                f"{header.name} lies at {header.offset:#x}-{header.offset + header.filesz:#x} of the file, "
                f"which ends at {size:#x}"
            )
        if header.paddr + header.memsz > limit:
            raise BootError(f"{header.name} at {header.paddr:#x} with {header.memsz:#x} bytes reaches beyond {limit_name}")
        segment = KernelSegment(header.paddr, header.offset, header.filesz, header.memsz, header.flags)
        found.append((segment, header.name))
    if not found:
        raise BootError("no PT_LOAD segment with memory: there is nothing to load")
    found.sort()
    for (low, low_name), (high, high_name) in pairwise(found):
        if high.paddr < low.end:
            raise BootError(
                f"{low_name} and {high_name} overlap in physical memory: {low.paddr:#x}-{low.end:#x} and "
                f"{high.paddr:#x}-{high.end:#x}"
            )
    return tuple(segment for segment, _ in found)
