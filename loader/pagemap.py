"""Which pages of this process's private memory are still what was mapped there, as the kernel knows without a look at them.

Source: Linux Documentation/admin-guide/mm/pagemap.rst. An engine's guest stores to the same pages: they are this process's.
"""

import ctypes
import mmap
import os
from contextlib import suppress
from functools import cache
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
    spans = _spans(host, size, _UNSTORED if of_file else _UNTOUCHED) if _tells() else None
    return [(0, size)] if spans is None else spans


@cache
def _tells() -> bool:
    """Whether the kernel tells of this process's addresses. Where another kernel, or another processor, is only emulated it may
    be those of the emulator, of which nothing is mapped there: all would be told as untouched."""
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 3 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as probe:
        with suppress(OSError):  # a kernel without huge pages
            probe.madvise(mmap.MADV_NOHUGEPAGE)
        probe[page] = 1
        host = ctypes.addressof(ctypes.c_char.from_buffer(probe))
        return _spans(host, 3 * page, _UNTOUCHED) == [(page, 2 * page)]


def _spans(host: int, size: int, states: bytes) -> list[tuple[int, int]] | None:
    """Those of which the state is not _SAME; None where the kernel does not tell."""
    first, pages = host // mmap.PAGESIZE, size // mmap.PAGESIZE
    try:
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            entries = os.pread(descriptor, pages * _ENTRY_SIZE, first * _ENTRY_SIZE)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    if len(entries) != pages * _ENTRY_SIZE:
        return None
    found = entries[_ENTRY_SIZE - 1 :: _ENTRY_SIZE].translate(states)
    spans = []
    end = 0
    while (start := found.find(_OTHER, end)) >= 0:
        end = found.find(_SAME, start)
        end = pages if end < 0 else end
        spans.append((start * mmap.PAGESIZE, end * mmap.PAGESIZE))
    return spans
