"""A file as its bytes are, without a judgement: fields are read where each loader reads them, whatever they say.

Source: as in abi/elf.py. Nothing here is allocated by a size that a file claims, and no error is raised for what it says.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

from pvhboot.shim.abi.elf import EI_CLASS, ELFCLASS64, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.elf_layouts import LAYOUTS, NOTE_HEAD, ElfHeader, NoteHead, SectionHeader

from ..image import Image

# Of notes of one file that are walked, whatever their number: a loader that takes more is not followed.
NOTES_MAX: Final = 1 << 16

_WINDOW: Final = 1 << 12  # bytes read at once, at least
_NAMES: Final = {PT_LOAD: "PT_LOAD", PT_NOTE: "PT_NOTE"}


class RawFile:
    """An image, and its ELF headers as those of either class."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.size = image.size
        self._window = b""
        self._start = 0
        self._program_headers: dict[int, list[tuple[str, Any]]] = {}

    @property
    def bits(self) -> int:
        """64 if EI_CLASS says so, else 32."""
        return 64 if self.take(EI_CLASS, 1) == bytes([ELFCLASS64]) else 32

    def take(self, offset: int, size: int) -> bytes:
        """As many of the `size` bytes from `offset` on as the file has."""
        size = max(0, min(size, self.size - offset))
        at = offset - self._start
        if not 0 <= at <= len(self._window) - size:
            self._window = self._image.read(offset, min(max(_WINDOW, size), self.size - offset)) if size else b""
            self._start, at = offset, 0
        return self._window[at : at + size]

    def number(self, offset: int, size: int) -> int | None:
        """The little-endian number there; None if the file ends before it does."""
        data = self.take(offset, size)
        return int.from_bytes(data, "little") if len(data) == size else None

    def field(self, what: tuple[int, str]) -> int:
        """A number by its offset and its struct format, which is little-endian; what is behind the end of the file is 0."""
        offset, code = what
        return int.from_bytes(self.take(offset, struct.calcsize(code)), "little")

    def note_head(self, offset: int) -> NoteHead:
        """What a note there begins with; what is behind the end of the file is 0."""
        return NOTE_HEAD.unpack(self.take(offset, NOTE_HEAD.size).ljust(NOTE_HEAD.size, b"\0"))

    def header(self, bits: int) -> ElfHeader | None:
        """The first bytes as the ELF header of that class; None if there are fewer."""
        layout = LAYOUTS[bits].header
        data = self.take(0, layout.size)
        return layout.unpack(data) if len(data) == layout.size else None

    def program_headers(self, bits: int) -> list[tuple[str, Any]]:
        """The program headers that lie in the file, by name, read as those of that class: e_phnum of them, or fewer."""
        if bits not in self._program_headers:
            header, layout = self.header(bits), LAYOUTS[bits].program_header
            found = (
                [] if header is None else self.table(header.e_phoff, header.e_phnum, layout.size, layout.size, layout.unpack)
            )
            self._program_headers[bits] = named(found)
        return self._program_headers[bits]

    def section_headers(self, bits: int) -> list[SectionHeader]:
        """The section headers that lie in the file, read as those of that class."""
        header, layout = self.header(bits), LAYOUTS[bits].section_header
        if header is None:
            return []
        return self.table(header.e_shoff, header.e_shnum, layout.size, layout.size, layout.unpack)

    def table(self, offset: int, count: int, stride: int, size: int, unpack: Callable[[bytes], Any]) -> list[Any]:
        """Records of `size` bytes, the next one `stride` bytes on, up to the first that the file does not have whole."""
        found = []
        for at in range(offset, offset + count * stride, stride) if stride else [offset] * count:
            data = self.take(at, size)
            if len(data) < size:
                break
            found.append(unpack(data))
        return found


def named(headers: list[Any]) -> list[tuple[str, Any]]:
    """Each with its type and its number among those of that type."""
    counts: dict[int, int] = {}
    out = []
    for header in headers:
        number = counts[header.p_type] = counts.get(header.p_type, -1) + 1
        out.append((f"{_NAMES.get(header.p_type, f'{header.p_type:#x}')} {number}", header))
    return out
