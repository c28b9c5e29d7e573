"""Which pages of this process's private memory are still what was mapped there, as the kernel knows without a look at them.

Source: Linux Documentation/admin-guide/mm/pagemap.rst. An engine's guest stores to the same pages: they are this process's.
"""

import mmap
import os
from typing import Final

_ENTRY_SIZE: Final = 8
# Of the last byte of an entry, which is little-endian: bits 63, 62 and 61.
_PRESENT: Final = 1 << 7
_SWAPPED: Final = 1 << 6
_OF_FILE: Final = 1 << 5

_SAME: Final = 0
_OTHER: Final = 1


def _table(same: frozenset[int]) -> bytes:
    return bytes(_SAME if byte & (_PRESENT | _SWAPPED | _OF_FILE) in same else _OTHER for byte in range(256))


# Never touched; or, of a private mapping of a file, only read: a store gives the process a page of its own.
_UNTOUCHED: Final = _table(frozenset((0, _OF_FILE)))
_UNSTORED: Final = _table(frozenset((0, _OF_FILE, _PRESENT | _OF_FILE)))


def stored_spans(host: int, size: int, *, of_file: bool) -> list[tuple[int, int]]:
    """Of the whole pages of a private mapping, `size` bytes from the address `host` on, those that may hold something else than
    what was mapped: a file, or zeros (then a page that was only read counts, too). Half-open spans in bytes from `host` on; all
    of it where the kernel does not tell."""
    first, pages = host // mmap.PAGESIZE, size // mmap.PAGESIZE
    try:
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            entries = os.pread(descriptor, pages * _ENTRY_SIZE, first * _ENTRY_SIZE)
        finally:
            os.close(descriptor)
    except OSError:
        return [(0, size)]
    if len(entries) != pages * _ENTRY_SIZE:
        return [(0, size)]
    states = entries[_ENTRY_SIZE - 1 :: _ENTRY_SIZE].translate(_UNSTORED if of_file else _UNTOUCHED)
    spans = []
    end = 0
    while (start := states.find(_OTHER, end)) >= 0:
        end = states.find(_SAME, start)
        end = pages if end < 0 else end
        spans.append((start * mmap.PAGESIZE, end * mmap.PAGESIZE))
    return spans
