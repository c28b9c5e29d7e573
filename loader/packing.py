"""Compression, in pieces, as Linux's own decoders take it; the same data gives the same bytes: no time, no name goes in.

Sources: Linux scripts/Makefile.lib (cmd_gzip, cmd_xzmisc, cmd_lz4 …: how the kernel's build packs an initramfs),
lib/decompress_*.c (what is taken: of xz the check CRC32 only, of LZ4 the legacy frame); lz4 doc/lz4_Frame_format.md, "Legacy
frame".
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from pvhboot.shim.errors import BootError

from .codecs import GZIP_WBITS, LZ4_BLOCK, LZ4_LEGACY_MAGIC

_XZ_DICTIONARY: Final = 1 << 20  # bytes, which the decoder has to allocate: what the kernel's build uses for an initramfs


class Packer(Protocol):
    """Compresses a stream: what both return is the compressed stream so far not returned."""

    def compress(self, data: bytes, /) -> bytes:
        """Takes more."""

    def flush(self) -> bytes:
        """Ends it."""


class _Kind(NamedTuple):
    """`level` is what the codec's own tool calls so, for an initramfs."""

    make: Callable[[int], Packer]
    level: int


def make_packer(codec: str, level: int | None = None) -> Packer:
    """What compresses by the codec of that name (codecs.CODECS); a higher `level` takes longer, as the codec's tool counts.

    BootError for a codec that is not written here, or if this Python lacks what compresses by it.
    """
    try:
        kind = _KINDS[codec]
        return kind.make(kind.level if level is None else level)
    except KeyError:
        raise BootError(f"{codec} is not written here: choose {', '.join(PACKED_BY)}") from None
    except ImportError as error:
        raise BootError(f"this Python has no module {error.name} to compress by {codec}: install it") from None


def compress(data: bytes, codec: str, level: int = 1) -> bytes:
    """All of `data` at once, by default in a hurry; BootError as make_packer."""
    packer = make_packer(codec, level)
    return packer.compress(data) + packer.flush()


def _gzip(level: int) -> Packer:
    import zlib

    return zlib.compressobj(level, zlib.DEFLATED, GZIP_WBITS)


def _bzip2(level: int) -> Packer:
    import bz2

    return bz2.BZ2Compressor(level)


def _lzma(level: int) -> Packer:
    import lzma

    return lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=level)


def _xz(level: int) -> Packer:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": _XZ_DICTIONARY}]
    return lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)


def _zstd(level: int) -> Packer:
    import zstandard

    return zstandard.ZstdCompressor(level, write_checksum=True).compressobj()


class _Lz4Legacy:
    """Blocks of LZ4_BLOCK bytes, each with its compressed size in front; nothing says where they end."""

    def __init__(self, level: int) -> None:
        import lz4.block

        self._pack: Callable[..., bytes] = lz4.block.compress
        self._level = level
        self._head = LZ4_LEGACY_MAGIC
        self._pending = bytearray()

    def compress(self, data: bytes, /) -> bytes:
        """What fills whole blocks; the rest waits."""
        self._pending += data
        out = bytearray(self._head)
        self._head = b""
        while len(self._pending) >= LZ4_BLOCK:
            out += self._block(bytes(self._pending[:LZ4_BLOCK]))
            del self._pending[:LZ4_BLOCK]
        return bytes(out)

    def flush(self) -> bytes:
        """The last block, if there is something for it."""
        return self._head + (self._block(bytes(self._pending)) if self._pending else b"")

    def _block(self, data: bytes) -> bytes:
        packed = self._pack(data, mode="high_compression", compression=self._level, store_size=False)
        return len(packed).to_bytes(4, "little") + packed


class _Lz4Frame:
    def __init__(self, level: int) -> None:
        import lz4.frame

        self._frame = lz4.frame.LZ4FrameCompressor(compression_level=level)
        self._head: bytes = self._frame.begin()

    def compress(self, data: bytes, /) -> bytes:
        """With the header in front, the first time."""
        head, self._head = self._head, b""
        return head + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        """The rest."""
        return self._head + bytes(self._frame.flush())


_KINDS: Final = {
    "gzip": _Kind(_gzip, 9),
    "bzip2": _Kind(_bzip2, 9),
    "lzma": _Kind(_lzma, 6),
    "xz": _Kind(_xz, 6),
    "lz4": _Kind(_Lz4Legacy, 9),
    "lz4 frame": _Kind(_Lz4Frame, 0),
    "zstd": _Kind(_zstd, 9),
}
PACKED_BY: Final = tuple(_KINDS)  # the names of the codecs that are written here
