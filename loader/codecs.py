"""What Linux kernels are compressed with: known by the first bytes, decompressed in pieces, whatever the data claims.

Sources: Linux scripts/Makefile.lib (how each is made), lib/decompress_*.c; RFC 1952 (gzip); RFC 8878 (zstd), "Frame Header"
and "Blocks"; lz4 doc/lz4_Frame_format.md, "Legacy frame"; LZMA SDK lzma-specification.txt (the .lzma header).

Each library is imported when data for it is met: no start pays for all of them, and a Python that lacks one reads the others.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pvhboot.shim.errors import BootError

from .image import HEAD_SIZE, Image

UNPACKED_MAX_SIZE: Final = 1 << 30  # bytes; the early page tables of Linux and FreeBSD map no more
WINDOW_MAX_SIZE: Final = 128 << 20  # bytes back that data may refer to: what the kernel's xz and zstd -22 use at most

_CHUNK: Final = 1 << 16  # read at once, in bytes, at most: an error is told with the chunk that it was found in
_FIRST_CHUNK: Final = 1 << 12  # what may be short is not to cost more
_PIECE: Final = 1 << 20  # decompressed at once, at most, where the format has no bound of its own

GZIP_WBITS: Final = 31  # zlib's number for a gzip wrapper around the largest window
_LZMA_OVERHEAD: Final = 16 << 20  # what a decoder of xz needs beside its window, in bytes, and more
_LZMA_LIMIT_ERROR: Final = "Memory usage limit exceeded"  # Python tells LZMA_MEMLIMIT_ERROR by this text only
LZ4_LEGACY_MAGIC: Final = b"\x02\x21\x4c\x18"
LZ4_BLOCK: Final = 8 << 20  # bytes that a block of a legacy frame decompresses to, at most
_LZ4_PACKED_BLOCK: Final = LZ4_BLOCK + LZ4_BLOCK // 255 + 16  # LZ4_COMPRESSBOUND
_ZSTD_BLOCK: Final = 128 << 10  # Block_Maximum_Size
_ZSTD_BLOCK_HEADER: Final = 3  # bytes: Last_Block (1 bit), Block_Type (2), Block_Size (21)
_ZSTD_RLE: Final = 1
_ZSTD_CHECKSUM: Final = 4  # bytes
_ZSTD_SHORTEST_HEADER: Final = 5  # bytes, with the magic number: they tell how long the header is

Progress = Callable[[int, int], None]  # bytes consumed, bytes in total


class _TruncatedError(Exception):
    """The data ends before its format says so."""


class _CorruptError(Exception):
    """The data is not what its format says; the message is the reason."""


class _Source:
    """A range of an image, read from its start to its end: `at` is the offset of the next byte.

    `unit` is where that unit of the format begins, or that chunk, which an error is to be told of.
    """

    def __init__(self, image: Image, start: int, end: int) -> None:
        self._image = image
        self.unit = self.at = start
        self.end = end
        self._chunk = _FIRST_CHUNK

    def take(self, size: int) -> bytes:
        """The next bytes: fewer than `size` only at the end."""
        data = self._image.read(self.at, min(size, self.end - self.at))
        self.at += len(data)
        return data

    def more(self) -> bytes:
        """The next bytes, as many as are convenient; _TruncatedError if there are none."""
        self.unit = self.at
        data = self.take(self._chunk)
        self._chunk = min(2 * self._chunk, _CHUNK)
        if not data:
            raise _TruncatedError
        return data

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes; _TruncatedError if there are fewer."""
        data = self.take(size)
        if len(data) < size:
            raise _TruncatedError
        return data

    def give_back(self, size: int) -> None:
        """What was taken and is not needed."""
        self.at -= size


class Codec(NamedTuple):
    """A way of compression, known by `magic`; `unpack` gives the decompressed bytes of a source, bounded pieces one by one.

    `size_follows`: in a bzImage, the 4 bytes after the data are the decompressed size (mkpiggy reads it there); gzip ends so by
    itself.
    """

    name: str
    magic: bytes
    unpack: Callable[[_Source], Iterator[bytes]]
    size_follows: bool = True


def decompress(
    image: Image,
    codec: Codec,
    start: int,
    end: int,
    check_head: Callable[[bytes], None],
    progress: Progress | None = None,
) -> bytearray:
    """The data that lies compressed at [start, end) of an image; what follows its end there is ignored unless it is more of it.

    `check_head` gets the first HEAD_SIZE bytes as soon as they are there, and raises BootError if the rest is not worth the
    work. BootError if the data is truncated, corrupt, larger than UNPACKED_MAX_SIZE or needs a window larger than
    WINDOW_MAX_SIZE, or this Python lacks what decompresses it. No size that the data claims is trusted with memory.
    """
    source = _Source(image, start, end)
    out = bytearray()
    checked = False
    for piece in _pieces(codec, source):
        if len(out) + len(piece) > UNPACKED_MAX_SIZE:
            raise BootError(
                f"{codec.name} of more than {UNPACKED_MAX_SIZE} bytes ({UNPACKED_MAX_SIZE >> 20} MiB): no kernel is that large"
            )
        try:
            out += piece
        except MemoryError:
            raise _no_memory(len(out)) from None
        if not checked and len(out) >= HEAD_SIZE:
            check_head(bytes(out[:HEAD_SIZE]))
            checked = True
        if progress:
            progress(source.at - start, end - start)
    if not checked:
        check_head(bytes(out))
    end_of_data = source.at
    if source.take(len(codec.magic)) == codec.magic:
        raise BootError(
            f"{codec.name} data of several members, the second at {end_of_data:#x}: compress the kernel in one piece"
        )
    return out


def decompressed(image: Image, codec: Codec, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The same piece by piece, however many there are: each with the offset up to which the image has been consumed; the last
    is empty, and its offset that of the end of the data. BootError as decompress, but no size is too large."""
    source = _Source(image, start, end)
    for piece in _pieces(codec, source):
        yield piece, source.at
    yield b"", source.at


def find_codec(head: bytes) -> Codec | None:
    """The codec of data that starts so; None if it is none of them."""
    return next((codec for codec in CODECS if head.startswith(codec.magic)), None)


def _pieces(codec: Codec, source: _Source) -> Iterator[bytes]:
    """What the codec gives, and a BootError for what goes wrong in it."""
    done = 0
    try:
        for piece in codec.unpack(source):
            done += len(piece)
            yield piece
    except _TruncatedError:
        raise BootError(f"truncated {codec.name} data: it ends at {source.end:#x}, with {done} bytes decompressed") from None
    except _CorruptError as error:
        raise BootError(
            f"corrupt {codec.name} data at {source.unit:#x}-{source.at:#x}, after {done} decompressed bytes: {error}"
        ) from None
    except MemoryError:
        raise _no_memory(done) from None
    except ImportError as error:
        raise BootError(
            f"{codec.name} data, but this Python has no module {error.name} to decompress it: install it, or unpack the kernel"
        ) from None


def _no_memory(done: int) -> BootError:
    return BootError(f"the host has no memory to decompress it: {done} bytes so far")


def _window_error() -> _CorruptError:
    return _CorruptError(f"a window of more than {WINDOW_MAX_SIZE} bytes, which is the most that a kernel is compressed with")


def _gzip(source: _Source) -> Iterator[bytes]:
    import zlib

    decoder = zlib.decompressobj(GZIP_WBITS)
    pending = b""
    while not decoder.eof:
        pending = pending or source.more()
        try:
            piece = decoder.decompress(pending, _PIECE)
        except zlib.error as error:
            raise _CorruptError(str(error).rpartition(": ")[2]) from None
        pending = decoder.unconsumed_tail
        yield piece
    source.give_back(len(decoder.unused_data))


def _bzip2(source: _Source) -> Iterator[bytes]:
    import bz2

    return _stream(source, bz2.BZ2Decompressor(), OSError)


def _lzma(source: _Source) -> Iterator[bytes]:
    import lzma

    try:
        yield from _stream(source, lzma.LZMADecompressor(memlimit=WINDOW_MAX_SIZE + _LZMA_OVERHEAD), lzma.LZMAError)
    except _CorruptError as error:
        if str(error) == _LZMA_LIMIT_ERROR:
            raise _window_error() from None
        raise


def _lz4_frame(source: _Source) -> Iterator[bytes]:
    import lz4.frame

    return _stream(source, lz4.frame.LZ4FrameDecompressor(), RuntimeError)


def _stream(source: _Source, decoder: Any, error_class: type[Exception]) -> Iterator[bytes]:
    """The common face of decoders in Python: BZ2Decompressor, LZMADecompressor and their like."""
    while not decoder.eof:
        chunk = source.more() if decoder.needs_input else b""
        try:
            piece = decoder.decompress(chunk, _PIECE)
        except error_class as error:
            raise _CorruptError(str(error)) from None
        yield piece
    source.give_back(len(decoder.unused_data or b""))


def _lz4_legacy(source: _Source) -> Iterator[bytes]:
    """Blocks to the end of the source: the format has no end of its own. A size of 0 is padding, as it is for the kernel."""
    import lz4.block

    source.exactly(len(LZ4_LEGACY_MAGIC))
    while source.at < source.end:
        source.unit = source.at
        word = source.exactly(4)
        if word == LZ4_LEGACY_MAGIC:
            source.give_back(len(word))
            return
        size = int.from_bytes(word, "little")
        if not size:
            return
        if size > _LZ4_PACKED_BLOCK:
            raise _CorruptError(f"a block of {size} bytes, where one has {_LZ4_PACKED_BLOCK} at most")
        block = source.exactly(size)
        try:
            piece: bytes = lz4.block.decompress(block, uncompressed_size=LZ4_BLOCK)
        except lz4.block.LZ4BlockError as error:
            raise _CorruptError(str(error)) from None
        yield piece


def _zstd(source: _Source) -> Iterator[bytes]:
    """A frame, block by block: given more at once, the library would return whatever that decompresses to."""
    import zstandard

    try:
        header = source.exactly(_ZSTD_SHORTEST_HEADER)
        header += source.exactly(zstandard.frame_header_size(header) - len(header))
        frame = zstandard.get_frame_parameters(header)
        if frame.window_size > WINDOW_MAX_SIZE:
            raise _window_error()
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_SIZE).decompressobj()
        yield decoder.decompress(header)
        last = False
        while not last:
            source.unit = source.at
            header = source.exactly(_ZSTD_BLOCK_HEADER)
            word = int.from_bytes(header, "little")
            last, kind, size = bool(word & 1), word >> 1 & 3, word >> 3
            if size > _ZSTD_BLOCK:
                raise _CorruptError(f"a block of {size} bytes, where one has {_ZSTD_BLOCK} at most")
            yield decoder.decompress(header + source.exactly(1 if kind == _ZSTD_RLE else size))
        if frame.has_checksum:
            yield decoder.decompress(source.exactly(_ZSTD_CHECKSUM))
    except zstandard.ZstdError as error:
        raise _CorruptError(str(error)) from None


def _lzo(source: _Source) -> Iterator[bytes]:  # noqa: ARG001
    raise BootError("lzo data, which is not read here: unpack it with lzop, or a bzImage with Linux's scripts/extract-vmlinux")


CODECS: Final = (
    Codec("gzip", b"\x1f\x8b", _gzip, size_follows=False),
    Codec("bzip2", b"BZh", _bzip2),
    Codec("lzma", b"\x5d\0\0", _lzma),
    Codec("xz", b"\xfd7zXZ\0", _lzma),
    Codec("lzo", b"\x89LZO\0\r\n\x1a", _lzo),
    Codec("lz4", LZ4_LEGACY_MAGIC, _lz4_legacy),
    Codec("lz4 frame", b"\x04\x22\x4d\x18", _lz4_frame),
    Codec("zstd", b"\x28\xb5\x2f\xfd", _zstd),
)
