"""Kernel: a PVH kernel file, plain, compressed or in a bzImage, proven fit to load before anyone reads a segment of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from pvhboot.shim.errors import BootError

from .cache import Cache, Opened
from .facts import Facts
from .image import BytesImage, FileImage, OpenImage

if TYPE_CHECKING:  # what proves and unpacks a kernel is imported when one is neither proven nor unpacked
    from .codecs import Progress
    from .symbols import CodeSymbol


class Kernel:
    """A PVH kernel that passed every check. Keeps its file open until closed; a context manager.

    `kind` is "ELF64", "gzip of ELF32", "bzImage (zstd) of ELF64" …; `segments` are the non-empty PT_LOAD segments by physical
    address, none overlapping another; `entry` is the physical address of the PVH entry, `elf_entry` what the ELF header says;
    `notes` are all notes of the PT_NOTE segments, and those of sections only if the entry is not in a segment; `relocation` is
    None for a kernel that must run where it is linked.
    """

    def __init__(self, path: str, prefix: str, image: OpenImage, facts: Facts) -> None:
        """`prefix` is how the image was wrapped in the file at `path`, as of Wrapping."""
        self.path = path
        self.kind = f"{prefix}ELF{facts.bits}"
        self.segments = facts.segments
        self.entry = facts.entry
        self.elf_entry = facts.elf_entry
        self.notes = facts.notes
        self.relocation = facts.relocation
        self._image = image
        self._is_plain = not prefix
        self._symbols: list[CodeSymbol] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: "Progress | None" = None, *, cache: Cache | None = None) -> Self:
        """Reads and checks a file, unless the cache knows it; BootError, with the path in front, for all that is wrong.

        `progress` is called with bytes consumed and bytes in total while the kernel is decompressed, if it is compressed.
        """
        name = os.fspath(path)
        with _naming(name):
            return cls._from_image(FileImage(path), name, progress, cache)

    @classmethod
    def from_bytes(cls, data: bytes, name: str, *, cache: Cache | None = None) -> Self:
        """Checks a file that is in memory; BootError, with `name` in front, for all that is wrong."""
        with _naming(name):
            return cls._from_image(BytesImage(data), name, None, cache)

    @classmethod
    def _from_image(cls, file: OpenImage, path: str, progress: "Progress | None", cache: Cache | None) -> Self:
        def read(source: OpenImage) -> Opened:
            return _read(source, progress)

        try:
            image, prefix, facts, _ = read(file) if cache is None else cache.open(file, read)
        except BaseException:
            file.close()
            raise
        if image is not file:
            file.close()
        return cls(path, prefix, image, facts)

    @property
    def end(self) -> int:
        """The first physical address after the highest segment."""
        return self.segments[-1].end

    @property
    def descriptor(self) -> int | None:
        """The open file, if the uncompressed image is one."""
        return self._image.descriptor

    @property
    def image_path(self) -> str | None:
        """The path of a file that is the uncompressed image, for other processes of this user too, as long as this is open: its
        own, or one in the cache. None if the image is in memory."""
        descriptor = self._image.descriptor
        if descriptor is None:
            return None
        return self.path if self._is_plain else f"/proc/{os.getpid()}/fd/{descriptor}"

    @property
    def image_size(self) -> int:
        """Of the uncompressed image, in bytes: read_into(0, …) gives all of it."""
        return self._image.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer from that offset of the uncompressed image; BootError if the file ends before."""
        with _naming(self.path):
            self._image.read_into(offset, buffer)

    def symbols(self) -> "list[CodeSymbol]":
        """Its functions and labels, as symbols.code_symbols has them; the same list each time. BootError if they cannot be
        read."""
        if self._symbols is None:
            from .symbols import code_symbols

            with _naming(self.path):
                self._symbols = code_symbols(self._image)
        return self._symbols

    def symbol(self, name: str) -> "CodeSymbol | None":
        """One of them, as symbols.code_symbol has it. BootError as symbols()."""
        from .symbols import code_symbol

        with _naming(self.path):
            return code_symbol(self._image, name)

    def close(self) -> None:
        """Closes the file; twice is no error."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Puts the path in front of what a BootError says."""
    try:
        yield
    except BootError as error:
        raise BootError(f"{path}: {error}") from None


def _read(file: OpenImage, progress: "Progress | None") -> Opened:
    """Unpacks a file and proves what is in it; BootError, without a path, at the first fault."""
    from .cache_entry import Witness
    from .examination import examine
    from .wrapping import unwrap

    image, wrapping = unwrap(file, progress)
    witness = Witness(image)
    facts = examine(witness)
    return Opened(image, wrapping.prefix, facts, tuple(witness.reads))
