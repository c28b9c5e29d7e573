"""An initramfs buffer: one archive or several, some compressed, one after the other, as Linux unpacks them.

Sources: Linux Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c, unpack_to_rootfs (an uncompressed
archive begins at a multiple of 4; zeros between archives are skipped), lib/decompress_unlz4.c (LZ4 data in front of
something else ends with a word of zeros); the .xz file format 1.2.1, 2.1.1.2 "Stream Flags".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.errors import BootError

from .codecs import Codec, Progress, decompressed, find_codec
from .cpio import Entry, Follower, archive
from .image import PIECE, FileImage, Image, OpenImage, pieces
from .packing import make_packer
from .wrapping import describe

_ALIGN: Final = 4
_LZ4: Final = "lz4"
_LZ4_END: Final = bytes(4)
_LZ4_FRAME: Final = "lz4 frame"
_XZ: Final = "xz"
_XZ_CHECK_AT: Final = 7  # bytes after the start
_XZ_CHECKS: Final = (0, 1)  # none, CRC32
_HEAD: Final = 16  # bytes
_NO_ZERO: Final = re.compile(rb"[^\0]")


class Archives(NamedTuple):
    """What a file was found to hold, in order: `codecs` are the names, "" for an archive that is not compressed; `entries` are
    those of all, and `unpacked` is the size of all in bytes, uncompressed, with the zeros behind them."""

    codecs: tuple[str, ...]
    entries: int
    unpacked: int


class Existing:
    """A file that Linux would unpack, held open until closed; goes into a buffer as it is."""

    def __init__(self, path: str, progress: Progress | None = None) -> None:
        """Reads all of it; BootError if Linux would not."""
        self.path = path
        try:
            self.image: OpenImage = FileImage(path)
        except BootError as error:
            raise BootError(f"{path}: {error}") from None
        try:
            self.archives = survey(self.image, progress)
        except BaseException as error:
            self.close()
            if isinstance(error, BootError):
                raise BootError(f"{path}: {error}") from None
            raise

    def pieces(self) -> Iterator[bytes]:
        """Its bytes; BootError if they cannot be read."""
        try:
            for piece in pieces(self.image, 0, self.image.size):
                yield bytes(piece)
        except BootError as error:
            raise BootError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Closes the file; twice is no error."""
        self.image.close()


def survey(image: Image, progress: Progress | None = None) -> Archives:
    """The archives in a buffer, each followed to its end; BootError, with the offset, for what Linux would not unpack.

    `progress` is called with bytes consumed and bytes in total.
    """
    codecs: list[str] = []
    entries = unpacked = 0
    window = _Window(image)
    at = _skip_zeros(window, 0)
    while at < image.size:
        head = bytes(window.rest(at, _HEAD)[:_HEAD])
        codec = find_codec(head)
        try:
            if codec is None:
                if not head.startswith(b"0"):
                    what = describe(head) or f"something that starts with {head[:4].hex(' ')}"
                    raise BootError(f"no cpio archive, plain or compressed, but {what}")
                if at % _ALIGN:
                    raise BootError(f"an uncompressed archive must begin at a multiple of {_ALIGN}: Linux would not find it")
                parts: Iterable[tuple[bytes | memoryview, int]] = _plain(window, at)
            else:
                parts = _unpacked(window, codec, head, at)
            end, count, size = _follow(parts, codec is None, image.size, progress)
        except BootError as error:
            raise BootError(f"the archive at {at:#x}: {error}" if at else str(error)) from None
        codecs.append(codec.name if codec else "")
        end = _skip_zeros(window, end)
        entries += count
        unpacked += size if codec else end - at
        at = end
    if not codecs:
        raise BootError(f"no cpio archive: {'it holds zeros only' if image.size else 'an empty file'}")
    return Archives(tuple(codecs), entries, unpacked)


class Buffer:
    """What is to be written: files as they are, and an archive of each sequence of entries, compressed by `codec` ("": not).

    `entries` counts those of all; `unpacked` and `size` are what has been written, uncompressed and as it is, in bytes.
    """

    def __init__(self, parts: Sequence[Existing | Sequence[Entry]], codec: str, mtime: int) -> None:
        """`mtime` as in cpio.archive. BootError if this Python lacks what compresses."""
        self._parts = parts
        self._codec = codec
        self._mtime = mtime
        self.entries = sum(part.archives.entries if isinstance(part, Existing) else len(part) for part in parts)
        self.unpacked = sum(part.archives.unpacked for part in parts if isinstance(part, Existing))
        self.size = 0
        if codec:
            make_packer(codec)

    def pieces(self, progress: Progress | None = None) -> Iterator[bytes]:
        """All of it; BootError as cpio.archive. `progress` is called with bytes read and about how many there are in total."""
        total = sum(map(_read_size, self._parts))
        done = 0
        after_lz4 = False
        for part in self._parts:
            if self.size:
                yield self._counted((_LZ4_END if after_lz4 else b"") + bytes(-self.size % _ALIGN))
            packer = make_packer(self._codec) if self._codec and not isinstance(part, Existing) else None
            for piece in part.pieces() if isinstance(part, Existing) else archive(part, self._mtime):
                done += len(piece)
                if progress:
                    progress(min(done, total), total)
                if not isinstance(part, Existing):
                    self.unpacked += len(piece)
                yield self._counted(packer.compress(piece) if packer else piece)
            if packer:
                yield self._counted(packer.flush())
            after_lz4 = (part.archives.codecs[-1] if isinstance(part, Existing) else self._codec) == _LZ4

    def _counted(self, piece: bytes) -> bytes:
        self.size += len(piece)
        return piece


def _read_size(part: Existing | Sequence[Entry]) -> int:
    """About how many bytes are to be read for it."""
    if isinstance(part, Existing):
        return part.image.size
    contents = (entry.content for entry in part)
    return sum(len(content) if isinstance(content, bytes) else content.size for content in contents)


class _Window:
    """An Image of which what was read last is at hand: whoever goes forwards in small steps has it read once."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._data = memoryview(b"")
        self._start = 0
        self.size = image.size

    def rest(self, at: int, least: int = 1) -> memoryview:
        """What is at hand from that offset on: `least` bytes or more, fewer only at the end of the image."""
        begin = at - self._start
        if begin < 0 or len(self._data) - begin < min(least, self.size - at):
            self._data = memoryview(self._image.read(at, min(max(PIECE, least), self.size - at)))
            self._start, begin = at, 0
        return self._data[begin:]

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes, which lie within the image."""
        return bytes(self.rest(offset, size)[:size])


def _follow(
    parts: Iterable[tuple[bytes | memoryview, int]], plain: bool, total: int, progress: Progress | None
) -> tuple[int, int, int]:
    """Where the parts end in the image, their entries and their size: one plain archive, or all in what is compressed."""
    entries = size = end = 0
    follower = Follower()
    for piece, end in parts:
        if progress:
            progress(end, total)
        at = 0
        while True:
            at = follower.feed(piece, at)
            if not follower.done or plain:
                break
            more = _NO_ZERO.search(piece, at)
            if more is None:
                break
            at = more.start()
            if (size + at) % _ALIGN:
                raise BootError(f"a further archive at +{size + at:#x}, which is no multiple of {_ALIGN}")
            entries += follower.entries
            follower = Follower()
        size += at if plain else len(piece)
        if plain and follower.done:
            end -= len(piece) - at
            break
    if not follower.done:
        raise BootError(f"a truncated cpio archive: it ends after {follower.entries} entries, without its trailer")
    return end, entries + follower.entries, size


def _plain(window: _Window, at: int) -> Iterator[tuple[memoryview, int]]:
    while at < window.size:
        piece = window.rest(at)
        at += len(piece)
        yield piece, at


def _unpacked(image: _Window, codec: Codec, head: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    if codec.name == _LZ4_FRAME:
        raise BootError("an LZ4 frame: Linux takes the legacy format only (lz4 -l)")
    if codec.name == _XZ and len(head) > _XZ_CHECK_AT and head[_XZ_CHECK_AT] not in _XZ_CHECKS:
        raise BootError(f"xz with a check of type {head[_XZ_CHECK_AT]}: Linux takes CRC32 only (xz --check=crc32)")
    return decompressed(image, codec, at, image.size)


def _skip_zeros(window: _Window, at: int) -> int:
    while at < window.size:
        piece = window.rest(at)
        if found := _NO_ZERO.search(piece):
            return at + found.start()
        at += len(piece)
    return at
