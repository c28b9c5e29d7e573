"""kallsyms: the symbols of a Linux that has no symbol table, found by the structure of the tables that it carries for itself.

No address of them is told anywhere. The token table is found by the digits in it and proven by its index, which lies behind it;
the markers lie in front of it and prove the names, and those their number. Layouts and source: shim/abi/kallsyms.py.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from operator import le
from typing import Final, NamedTuple

from pvhboot.shim.abi.kallsyms import (
    BIG_NAME,
    BIG_NAME_SHIFT,
    MARKED,
    NAME_MAX,
    OFFSET_BYTES,
    OFFSET_NEGATIVE,
    TEXT_TYPES,
    TOKEN_INDEX_BYTES,
    TOKEN_TABLE_MAX,
    TOKENS,
)

from .elf import ProgramHeader
from .image import PIECE, SizedSource

_DIGITS: Final = b"\0".join(b"0123456789"[at : at + 1] for at in range(10))  # are all used by some symbol: tokens by themselves
_FIRST_DIGIT: Final = ord("0")
_ENTRY_MAX: Final = NAME_MAX + 2  # bytes in names, its length among them
_ENTRY_MIN: Final = 2
_PADDING_MAX: Final = 7
_SYMBOLS_MAX: Final = 1 << 20  # a distribution's kernel has 200000
_NAMES_MAX: Final = 1 << 24  # bytes; 2 MB
_TEXT_MAX: Final = 1 << 28  # bytes of all names, if each token were as long as the longest; 40 MB
_BEFORE_TOKENS: Final = 1 << 22  # bytes, in which the markers begin: between them and the tokens are 3 for each symbol at most
# What looks like a table and is none is passed over so many times, so that a file made for it cannot keep us busy.
_SEGMENTS_TRIED: Final = 8
_DIGITS_TRIED: Final = 256
_TOKENS_TRIED: Final = 2
_ZEROS_TRIED: Final = 1 << 13
_MARKERS_TRIED: Final = 8
_NUMBERS_TRIED: Final = 32


class Kallsyms:
    """The functions in kallsyms; names are printable ASCII, addresses virtual, and they ascend."""

    def __init__(self, names: Sequence[bytes], tokens: Sequence[str], addresses: Sequence[int]) -> None:
        self._tokens = tokens
        starts = bytes(code for code, token in enumerate(tokens) if token and token[0] in TEXT_TYPES)
        self._functions = [pair for pair in zip(addresses, names, strict=True) if pair[1][0] in starts]

    def __len__(self) -> int:
        return len(self._functions)

    def functions(self) -> list[tuple[int, str]]:
        """Address and name of each."""
        token = self._tokens.__getitem__
        return [(address, "".join(map(token, codes))[1:]) for address, codes in self._functions]

    def find(self, name: str) -> list[int]:
        """The addresses of those that have the name: static functions may share one."""
        # Most others are told apart by their last byte, and need not be decoded.
        ends = bytes(code for code, token in enumerate(self._tokens) if name.endswith(token) or token[1:] == name)
        token = self._tokens.__getitem__
        return [address for address, codes in self._functions if codes[-1] in ends and "".join(map(token, codes))[1:] == name]


class _Part:
    """What is loaded from the file for a segment. Its beginning is aligned to words, as Linux's segments are to pages."""

    def __init__(self, source: SizedSource, header: ProgramHeader) -> None:
        self._source = source
        self._offset = header.offset
        self.size = max(0, min(header.filesz, source.size - header.offset))
        self.vaddr = header.vaddr

    def read_into(self, at: int, buffer: memoryview) -> None:
        self._source.read_into(self._offset + at, buffer)

    def read(self, start: int, end: int) -> bytes:
        """As many bytes of it as there are."""
        start = min(max(0, start), self.size)
        data = bytearray(max(0, min(end, self.size) - start))
        self.read_into(start, memoryview(data))
        return bytes(data)


class _Tokens(NamedTuple):
    """token_table and token_index: where they start and end in a part, and the strings."""

    start: int
    end: int
    texts: tuple[str, ...]


class _Names(NamedTuple):
    """Where num_syms lies in a part, and what names holds."""

    number_at: int
    names: list[bytes]


def find_kallsyms(source: SizedSource, headers: Sequence[ProgramHeader], bits: int) -> Kallsyms | None:
    """Those of an uncompressed kernel of so many bits, of which all program headers are given; None if it has none that can
    be read. BootError only if the file cannot be read."""
    loaded = [header for header in headers if header.type == "PT_LOAD" and header.memsz]
    parts = [_Part(source, header) for header in loaded[:_SEGMENTS_TRIED]]
    for part, tokens in islice(_token_tables(parts), _TOKENS_TRIED):
        found = _names_before(part, tokens.start)
        if found is not None and sum(map(len, found.names)) * max(map(len, tokens.texts)) <= _TEXT_MAX:
            addresses = _addresses(part, loaded, tokens, found, bits // 8)
            if addresses is not None:
                return Kallsyms(found.names, tokens.texts, addresses)
    return None


def _token_tables(parts: Sequence[_Part]) -> Iterator[tuple[_Part, _Tokens]]:
    places = ((part, at) for part in parts for at in _digits(part))
    for part, at in islice(places, _DIGITS_TRIED):
        tokens = _token_table(part, at)
        if tokens is not None:
            yield part, tokens


def _digits(part: _Part) -> Iterator[int]:
    """Where the digits stand as tokens one after the other; all else is searched for near by."""
    buffer = bytearray(min(PIECE, part.size))
    step = PIECE - len(_DIGITS) + 1  # pieces overlap
    for start in range(0, part.size, step):
        size = min(len(buffer), part.size - start)
        part.read_into(start, memoryview(buffer)[:size])
        at = buffer.find(_DIGITS, 0, size)
        while at >= 0:
            yield start + at
            at = buffer.find(_DIGITS, at + 1, size)


def _token_table(part: _Part, digits: int) -> _Tokens | None:
    """The table in which the digits are, if it is one."""
    low = max(0, digits - TOKEN_TABLE_MAX)
    data = part.read(low, digits + TOKEN_TABLE_MAX + TOKEN_INDEX_BYTES)
    end = digits - low
    for _ in range(_FIRST_DIGIT, TOKENS):
        end = data.find(b"\0", end) + 1
        if not end:
            return None
    for align in (4, 8):
        at = _align_up(low + end, align) - low
        raw = data[at : at + TOKEN_INDEX_BYTES]
        if len(raw) < TOKEN_INDEX_BYTES:
            return None
        index = struct.unpack(f"<{TOKENS}H", raw)
        start = digits - low - index[_FIRST_DIGIT]
        if start < 0:
            continue
        table = data[start:end]
        texts = table.split(b"\0")[:-1]
        begins = accumulate((len(text) + 1 for text in texts[:-1]), initial=0)
        if tuple(begins) == index and table.isascii():
            names = tuple(text.decode("ascii") for text in texts)
            if "".join(names).isprintable():
                return _Tokens(low + start, low + at + TOKEN_INDEX_BYTES, names)
    return None


def _names_before(part: _Part, tokens_at: int) -> _Names | None:
    """The names with the last markers in front of a token table."""
    for at, markers in islice(_marker_tables(part, tokens_at), _MARKERS_TRIED):
        data = part.read(low := max(0, at - markers[-1] - MARKED * _ENTRY_MAX) & -8, at)
        # What lies behind may look like one or two more.
        for known in (markers[: len(markers) - more] for more in range(min(3, len(markers) - 1))):
            place = _number_before(data, low, known)
            if place is not None:
                names = _split(data[place.start :], place.total, known)
                return None if names is None else _Names(low + place.number_at, names)
    return None


def _marker_tables(part: _Part, end: int) -> Iterator[tuple[int, list[int]]]:
    """Where a table may begin in front of `end`, the last first, and what ascends from 0 there as markers do, two at least."""
    low = max(0, end - _BEFORE_TOKENS) & -8
    data = part.read(low, end)
    words = memoryview(data)[: len(data) & -4]
    to = len(words)
    for _ in range(_ZEROS_TRIED):
        zero = data.rfind(bytes(4), 0, to)
        if zero < 0:
            return
        to = zero + 3
        at = zero & -4
        if any(data[at:zero]):
            continue
        markers = [0]
        for (value,) in struct.iter_unpack("<I", words[at + 4 :]):
            if not MARKED * _ENTRY_MIN <= value - markers[-1] <= MARKED * _ENTRY_MAX:
                break
            markers.append(value)
        if len(markers) > 1 and markers[-1] < _NAMES_MAX and len(markers) <= _SYMBOLS_MAX // MARKED:
            yield low + at, markers


class _Place(NamedTuple):
    """Where num_syms and names lie in some bytes, and the number."""

    number_at: int
    start: int
    total: int


def _number_before(data: bytes, at: int, markers: Sequence[int]) -> _Place | None:
    """num_syms of the names that `data`, which lies at `at`, ends with: how many the last marker leaves is not told, so it is
    searched for, and is right if the first ones and the last ones are as long as the markers say."""
    most = len(markers) * MARKED
    words = _words(data[: max(0, len(data) - markers[-1] - _ENTRY_MIN) & -4])
    found = (number for number in range(len(words) - 1, -1, -1) if most - MARKED < words[number] <= most)
    for number in islice(found, _NUMBERS_TRIED):
        behind = 4 * number + 4
        padded = words[number + 1 : number + 2] == (0,) and (at + behind) % 8
        for start in (behind, behind + 4) if padded else (behind,):
            first, last = _behind(data, start, MARKED), _behind(data, start + markers[-1], words[number] - most + MARKED)
            if first == start + markers[1] and last is not None and len(data) - last <= _PADDING_MAX:
                return _Place(4 * number, start, words[number])
    return None


def _behind(data: bytes, at: int, count: int) -> int | None:
    """Where so many names that start at `at` end; None if they do not in the data."""
    for _ in range(count):
        if at + 1 >= len(data):
            return None
        length = data[at]
        if length & BIG_NAME:
            at += 1
            length = length & ~BIG_NAME | data[at] << BIG_NAME_SHIFT
        at += 1 + length
    return at if at <= len(data) else None


def _split(data: bytes, count: int, markers: Sequence[int]) -> list[bytes] | None:
    """So many names, without their lengths; None unless they begin where the markers say and fill the data, but for padding."""
    names: list[bytes] = []
    at = 0
    try:
        for marker in markers:
            if marker != at:
                return None
            for _ in range(min(MARKED, count - len(names))):
                length = data[at]
                at += 1
                if length & BIG_NAME:
                    length = length & ~BIG_NAME | data[at] << BIG_NAME_SHIFT
                    at += 1
                if not length:
                    return None
                names.append(data[at : at + length])
                at += length
    except IndexError:
        return None
    return names if at <= len(data) <= at + _PADDING_MAX and not any(data[at:]) else None


def _addresses(part: _Part, loaded: Sequence[ProgramHeader], tokens: _Tokens, found: _Names, word: int) -> list[int] | None:
    """The address of each name: the first reading of what lies in front of the names, or behind the tokens, that ascends inside
    of what is loaded."""
    low = min(header.vaddr for header in loaded)
    high = max(header.vaddr + header.memsz for header in loaded)
    for addresses in _readings(part, tokens, found, word):
        first = next((address for address in addresses if address >= OFFSET_NEGATIVE), addresses[0])
        if low <= first and addresses[-1] <= high and all(map(le, addresses, islice(addresses, 1, None))):
            return addresses
    return None


def _readings(part: _Part, tokens: _Tokens, found: _Names, word: int) -> Iterator[list[int]]:
    size = OFFSET_BYTES * len(found.names)
    base_at = found.number_at - word
    places = (base_at - size & -word, base_at), (tokens.end, _align_up(tokens.end + size, word))
    for offsets_at, base_at in places:
        offsets, base = (part.read(at, at + length) for at, length in ((offsets_at, size), (base_at, word)))
        if offsets_at >= 0 and len(offsets) == size and len(base) == word:
            yield _relative(_words(offsets), int.from_bytes(base, "little"))
    offsets = part.read(tokens.end, tokens.end + size)
    if len(offsets) == size:
        yield _from_their_places(_words(offsets), part.vaddr + tokens.end) if word == 8 else list(_words(offsets))


def _relative(offsets: Sequence[int], base: int) -> list[int]:
    if offsets[-1] < OFFSET_NEGATIVE:
        return [base + offset for offset in offsets]
    last = base - 1 + 2 * OFFSET_NEGATIVE
    return [last - offset if offset >= OFFSET_NEGATIVE else offset for offset in offsets]


def _from_their_places(offsets: Sequence[int], at: int) -> list[int]:
    places = range(at, at + OFFSET_BYTES * len(offsets), OFFSET_BYTES)
    signed = (offset - 2 * OFFSET_NEGATIVE if offset >= OFFSET_NEGATIVE else offset for offset in offsets)
    return [place + offset for place, offset in zip(places, signed, strict=True)]


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def _align_up(at: int, align: int) -> int:
    return at + align - 1 & -align
