"""Kernel: a PVH kernel file, plain, compressed or in a bzImage, proven fit to load before anyone reads a segment of it.

Source: System V ABI, "Object Files".
"""

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from pvhboot.shim.abi.pvh import Relocation
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.errors import BootError

from .codecs import Progress
from .elf import ProgramHeader, note_sections, note_segments, read_header, read_program_headers, require_x86
from .image import BytesImage, FileImage, Image, OpenImage
from .notes import Note, has_pvh_entry, pvh_entry, pvh_relocation, read_notes
from .symbols import CodeSymbol, code_symbols
from .wrapping import unwrap


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
    relocation: Relocation | None


class Kernel:
    """A PVH kernel that passed every check. Keeps its file open until closed; a context manager.

    `kind` is "ELF64", "gzip of ELF32", "bzImage (zstd) of ELF64" …; `segments` are the non-empty PT_LOAD segments by physical
    address, none overlapping another; `entry` is the physical address of the PVH entry, `elf_entry` what the ELF header says;
    `notes` are all notes of the PT_NOTE segments, and those of sections only if the entry is not in a segment; `relocation` is
    None for a kernel that must run where it is linked.
    """

    def __init__(self, path: str, kind: str, image: OpenImage, facts: Facts) -> None:
        self.path = path
        self.kind = kind
        self.segments = facts.segments
        self.entry = facts.entry
        self.elf_entry = facts.elf_entry
        self.notes = facts.notes
        self.relocation = facts.relocation
        self._image = image

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: Progress | None = None) -> Self:
        """Reads and checks a file; BootError, with the path in front, for all that is wrong.

        `progress` is called with bytes consumed and bytes in total while the kernel is decompressed, if it is compressed.
        """
        name = os.fspath(path)
        try:
            return cls._from_image(FileImage(path), name, progress)
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
    def _from_image(cls, file: OpenImage, path: str, progress: Progress | None = None) -> Self:
        image = file
        try:
            image, wrapping = unwrap(file, progress)
            facts = examine(image)
        except BaseException:
            file.close()
            raise
        if image is not file:
            file.close()
        return cls(path, f"{wrapping.prefix}ELF{facts.bits}", image, facts)

    @property
    def end(self) -> int:
        """The first physical address after the highest segment."""
        return self.segments[-1].end

    @property
    def is_plain_file(self) -> bool:
        """Whether the file at `path` is the uncompressed image itself."""
        return isinstance(self._image, FileImage)

    @property
    def descriptor(self) -> int | None:
        """The open file, if the uncompressed image is one."""
        return self._image.descriptor

    @property
    def image_size(self) -> int:
        """Of the uncompressed image, in bytes: read_into(0, …) gives all of it."""
        return self._image.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer from that offset of the uncompressed image; BootError if the file ends before."""
        try:
            self._image.read_into(offset, buffer)
        except BootError as error:
            raise BootError(f"{self.path}: {error}") from None

    def symbols(self) -> list[CodeSymbol]:
        """Its functions and labels, as symbols.code_symbols has them."""
        return code_symbols(self._image)

    def close(self) -> None:
        """Closes the file; twice is no error."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    relocation = pvh_relocation(notes, (header.align for header in headers if header.type == "PT_LOAD"))
    return Facts(header.bits, segments, entry, header.entry, tuple(notes), relocation)


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
