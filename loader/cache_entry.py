"""An entry of the cache of kernels, as bytes: what was proven of one, and what that rests on.

All numbers are little-endian. An entry carries its own check sum, against disks and programs that garble files; against people
it is its place that protects it (cache.py).
"""

import binascii
import struct
from itertools import pairwise
from typing import Final, NamedTuple

from pvhboot.shim.abi.pvh import Relocation

from .facts import Facts, KernelSegment, Note
from .image import Image

# Part of an entry's name: another number for another layout, and for another proof (examination.py) within one version.
FORMAT: Final = 1
PACKED_MAX: Final = 128 << 10  # bytes; real kernels need some 2000

_MAGIC: Final = b"pvhboot kernel\n\0"
_HEAD: Final = struct.Struct("<16sI")  # the magic, the check sum of what follows
_STAMP: Final = struct.Struct("<4Q")
# Class, entries, bytes of the image; alignment (0: not relocatable), lowest and highest address; how much of each kind follows.
_FACTS: Final = struct.Struct("<B3Q3I4I")
_SEGMENT: Final = struct.Struct("<5Q")
_READ: Final = struct.Struct("<QI")  # offset in the image, bytes
_NOTE: Final = struct.Struct("<4I")  # bytes of the name, type, bytes of the descriptor, bytes of the source
_MEMO: Final = struct.Struct("<4Q32s")


class Stamp(NamedTuple):
    """What of a file changes when the file does: its number, its size in bytes, its times in ns. All 0: there is no file."""

    inode: int
    size: int
    mtime: int
    ctime: int


NO_FILE: Final = Stamp(0, 0, 0, 0)


class Read(NamedTuple):
    """Bytes that were read from an image, at an offset of it."""

    offset: int
    data: bytes


class Entry(NamedTuple):
    """`facts` hold of each image of `size` bytes that has the `reads` where they are. `prefix` is how the image was wrapped in
    its file, as of Wrapping; `stamp` is that of the unpacked image that the cache holds."""

    prefix: str
    size: int
    facts: Facts
    reads: tuple[Read, ...]
    stamp: Stamp = NO_FILE

    def holds_of(self, image: Image) -> bool:
        """Whether the image has all that the facts rest on. BootError if it cannot be read."""
        return image.size == self.size and all(image.read(at, len(data)) == data for at, data in self.reads)


class Witness:
    """An image that remembers what was read of it."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.size = image.size
        self.reads: list[Read] = []

    def read(self, offset: int, size: int) -> bytes:
        """See Image."""
        data = self._image.read(offset, size)
        self.reads.append(Read(offset, data))
        return data


def pack(entry: Entry) -> bytes | None:
    """The bytes of an entry; None for one that is larger than any kernel needs."""
    facts = entry.facts
    relocation = facts.relocation
    parts = [
        _STAMP.pack(*entry.stamp),
        _FACTS.pack(
            facts.bits,
            facts.entry,
            facts.elf_entry,
            entry.size,
            *((0, 0, 0) if relocation is None else relocation),
            len(entry.prefix),
            len(facts.segments),
            len(facts.notes),
            len(entry.reads),
        ),
        entry.prefix.encode(),
        *(_SEGMENT.pack(*segment) for segment in facts.segments),
    ]
    for name, kind, descriptor, source in facts.notes:
        parts += [_NOTE.pack(len(name), kind, len(descriptor), len(source.encode())), name, descriptor, source.encode()]
    for offset, data in entry.reads:
        parts += [_READ.pack(offset, len(data)), data]
    data = _sealed(b"".join(parts))
    return None if len(data) > PACKED_MAX else data


def unpack(data: bytes) -> Entry | None:
    """The entry in these bytes; None if they are not what `pack` gave, or say what cannot be."""
    body = _opened(data)
    if body is None:
        return None
    try:
        return _unpack(body)
    except (struct.error, UnicodeDecodeError, ValueError):
        return None


def pack_memo(stamp: Stamp, digest: str) -> bytes:
    """The bytes that remember the digest of a file with that stamp; `digest` is that of SHA-256, hexadecimal."""
    return _sealed(_MEMO.pack(*stamp, bytes.fromhex(digest)))


def unpack_memo(data: bytes, stamp: Stamp) -> str | None:
    """The digest; None if these bytes are not what `pack_memo` gave, or are of another file, or of an older state of it."""
    body = _opened(data)
    if body is None or len(body) != _MEMO.size:
        return None
    *words, digest = _MEMO.unpack(body)
    return digest.hex() if stamp == tuple(words) else None


def _sealed(body: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, binascii.crc32(body)) + body


def _opened(data: bytes) -> bytes | None:
    """What was sealed; None if that is broken."""
    body = data[_HEAD.size :]
    return body if data[: _HEAD.size] == _HEAD.pack(_MAGIC, binascii.crc32(body)) else None


class _Cursor:
    """Bytes, taken from their start to their end; ValueError if there are fewer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next bytes."""
        data = self._data[self._at : self._at + size]
        self._at += size
        if len(data) < size:
            raise ValueError("truncated")
        return data

    def fields(self, layout: struct.Struct) -> tuple[int, ...]:
        """The next structure."""
        return layout.unpack(self.take(layout.size))

    @property
    def is_at_end(self) -> bool:
        """Whether all was taken."""
        return self._at == len(self._data)


def _unpack(body: bytes) -> Entry:
    """ValueError for what cannot be."""
    cursor = _Cursor(body)
    stamp = Stamp(*cursor.fields(_STAMP))
    bits, entry, elf_entry, size, align, low, high, prefix_size, segment_count, note_count, read_count = cursor.fields(_FACTS)
    prefix = cursor.take(prefix_size).decode()
    segments = tuple(KernelSegment(*cursor.fields(_SEGMENT)) for _ in range(segment_count))
    notes = tuple(_note(cursor) for _ in range(note_count))
    reads = tuple(_read(cursor) for _ in range(read_count))
    relocation = Relocation(align, low, high) if align else None
    if not (
        cursor.is_at_end
        and bits in (32, 64)
        and all(one.filesz <= one.memsz and one.offset + one.filesz <= size and one.end <= 1 << bits for one in segments)
        and all(one.end <= other.paddr for one, other in pairwise(segments))
        and any(one.paddr <= entry < one.end for one in segments)
        and all(one.offset + len(one.data) <= size for one in reads)
    ):
        raise ValueError("no kernel is like that")
    return Entry(prefix, size, Facts(bits, segments, entry, elf_entry, notes, relocation), reads, stamp)


def _note(cursor: _Cursor) -> Note:
    name, kind, descriptor, source = cursor.fields(_NOTE)
    return Note(cursor.take(name), kind, cursor.take(descriptor), cursor.take(source).decode())


def _read(cursor: _Cursor) -> Read:
    offset, size = cursor.fields(_READ)
    return Read(offset, cursor.take(size))
