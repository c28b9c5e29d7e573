"""The bytes of a file, in memory or on disk, behind one face: read where asked, and never beyond the end."""

import os
import stat
from collections.abc import Iterator
from typing import Final, Protocol, Self

from pvhboot.shim.errors import BootError
from pvhboot.shim.files import fill, open_file

HEAD_SIZE: Final = 0x210  # bytes; enough of a file to tell what it is
PIECE: Final = 1 << 20  # bytes that are copied at once


class Source(Protocol):
    """Bytes that can be put somewhere."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer from that offset; BootError if there are fewer bytes."""


class MappableSource(Source, Protocol):
    """Bytes that may be those of a file; `descriptor` is that of the file, None if they are of none."""

    @property
    def descriptor(self) -> int | None: ...


class SizedSource(Source, Protocol):
    """Bytes of which the number is known; `size` in bytes."""

    size: int


class Image(Protocol):
    """The bytes of a file; `size` in bytes."""

    size: int

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; BootError if the file ends before."""


class OpenImage(Image, SizedSource, MappableSource, Protocol):
    """An Image that fills buffers and is closed."""

    def close(self) -> None:
        """Lets go of the file; twice is no error."""


class BytesImage:
    """A file that is in memory; `view` are its bytes."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.view = memoryview(data).toreadonly().cast("B")
        self.size = len(self.view)
        self.descriptor = None

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes; BootError if there are fewer."""
        _require_inside(offset, size, self.size)
        return bytes(self.view[offset : offset + size])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer; BootError if there are fewer bytes."""
        _require_inside(offset, buffer.nbytes, self.size)
        buffer.cast("B")[:] = self.view[offset : offset + buffer.nbytes]

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
            raise BootError(f"cannot be opened: {'a directory' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
        self.size = status.st_size

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """A regular file that is open already, and is closed with this."""
        image = cls.__new__(cls)
        image._fd = descriptor
        image.size = os.fstat(descriptor).st_size
        return image

    @property
    def descriptor(self) -> int:
        """The open file."""
        return self._fd

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


def read_head(image: Image) -> bytes:
    """The first HEAD_SIZE bytes, or as many as there are."""
    return image.read(0, min(HEAD_SIZE, image.size))


def pieces(source: Source, offset: int, size: int) -> Iterator[memoryview]:
    """The `size` bytes from `offset` on, piece by piece, each to be used before the next; BootError as read_into."""
    buffer = memoryview(bytearray(min(PIECE, size)))
    for at in range(0, size, PIECE):
        piece = buffer[: min(PIECE, size - at)]
        source.read_into(offset + at, piece)
        yield piece


def _require_inside(offset: int, size: int, available: int) -> None:
    if offset < 0 or offset + size > available:
        raise BootError(f"no bytes at {offset:#x}-{offset + size:#x}: the image ends at {available:#x}")
