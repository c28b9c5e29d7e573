"""An initramfs buffer: one archive or several, some compressed, one after the other, as Linux unpacks them.

Sources: Linux Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c, unpack_to_rootfs (an uncompressed
archive begins at a multiple of 4; zeros between archives are skipped), lib/decompress_unlz4.c (LZ4 data in front of
something else ends with a word of zeros); the .xz file format 1.2.1, 2.1.1.2 "Stream Flags".
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.errors import BootError

from .codecs import Codec, Progress, decompressed, find_codec
from .cpio import Entry, Follower, archive
from .image import FileImage, Image, OpenImage
from .packing import make_packer
from .wrapping import describe

_ALIGN: Final = 4
_CHUNK: Final = 1 << 20  # bytes
_LZ4: Final = "lz4"
_LZ4_END: Final = bytes(4)
_LZ4_FRAME: Final = "lz4 frame"
_XZ: Final = "xz"
_XZ_CHECK_AT: Final = 7  # bytes after the start
_XZ_CHECKS: Final = (0, 1)  # none, CRC32
_HEAD: Final = 16  # bytes


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
            for at in range(0, self.image.size, _CHUNK):
                yield self.image.read(at, min(_CHUNK, self.image.size - at))
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
    at = _skip_zeros(image, 0)
    while at < image.size:
        head = image.read(at, min(_HEAD, image.size - at))
        codec = find_codec(head)
        try:
            if codec is None:
                if not head.startswith(b"0"):
                    what = describe(head) or f"something that starts with {head[:4].hex(' ')}"
                    raise BootError(f"no cpio archive, plain or compressed, but {what}")
                if at % _ALIGN:
                    raise BootError(f"an uncompressed archive must begin at a multiple of {_ALIGN}: Linux would not find it")
                pieces: Iterable[tuple[bytes, int]] = _plain(image, at)
            else:
                pieces = _unpacked(image, codec, head, at)
            end, count, size = _follow(pieces, codec is None, image.size, progress)
        except BootError as error:
            raise BootError(f"the archive at {at:#x}: {error}" if at else str(error)) from None
        codecs.append(codec.name if codec else "")
        end = _skip_zeros(image, end)
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


def _follow(pieces: Iterable[tuple[bytes, int]], plain: bool, total: int, progress: Progress | None) -> tuple[int, int, int]:
    """Where the pieces end in the image, their entries and their size: one plain archive, or all in what is compressed."""
    entries = size = end = 0
    follower = Follower()
    for piece, end in pieces:
        if progress:
            progress(end, total)
        at = 0
        while True:
            at = follower.feed(piece, at)
            if not follower.done or plain:
                break
            rest = piece[at:].lstrip(b"\0")
            if not rest:
                break
            at = len(piece) - len(rest)
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


def _plain(image: Image, start: int) -> Iterator[tuple[bytes, int]]:
    for at in range(start, image.size, _CHUNK):
        piece = image.read(at, min(_CHUNK, image.size - at))
        yield piece, at + len(piece)


def _unpacked(image: Image, codec: Codec, head: bytes, at: int) -> Iterator[tuple[bytes, int]]:
    if codec.name == _LZ4_FRAME:
        raise BootError("an LZ4 frame: Linux takes the legacy format only (lz4 -l)")
    if codec.name == _XZ and len(head) > _XZ_CHECK_AT and head[_XZ_CHECK_AT] not in _XZ_CHECKS:
        raise BootError(f"xz with a check of type {head[_XZ_CHECK_AT]}: Linux takes CRC32 only (xz --check=crc32)")
    return decompressed(image, codec, at, image.size)


def _skip_zeros(image: Image, at: int) -> int:
    while at < image.size:
        piece = image.read(at, min(_CHUNK, image.size - at))
        if rest := piece.lstrip(b"\0"):
            return at + len(piece) - len(rest)
        at += len(piece)
    return at
