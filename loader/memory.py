"""GuestMemory: RAM and ROM of a machine, shared by the loader, the devices and every engine."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError, NoMemoryError
from pvhboot.shim.machines import Span, rom_span

from .image import MappableSource

# Linux include/uapi/asm-generic/mman*.h, include/uapi/linux/mman.h; Python 3.11 has no names for them.
_MAP_NORESERVE: Final = 0x4000
_MREMAP_MAYMOVE: Final = 1
_MREMAP_FIXED: Final = 2
_MAP_FAILED: Final = ctypes.c_void_p(-1).value
_PAGE_MASK: Final = mmap.PAGESIZE - 1
# Pieces of files that are mapped, at most. Linux gives a process 65530 mappings (vm.max_map_count), and without any left it
# finds no memory for anything: a hostile kernel can have as many segments.
_MAPPED_MAX: Final = 256


class ReadableMemory(Protocol):
    """Physical memory as one looks at it: that of a board, or of a machine in another process."""

    def read(self, paddr: int, size: int) -> bytes:
        """`size` bytes at a physical address; NoMemoryError where there is none."""


class Region(NamedTuple):
    """A span of memory and the host's mapping behind it, from `offset` bytes into `buffer` on; `host` is the address of its
    first byte in this process. Two regions may share a mapping: a ROM that lies at two places."""

    span: Span
    buffer: mmap.mmap
    offset: int
    host: int
    readonly: bool

    def cut(self, start: int, end: int) -> "Region":
        """The part of it in [start, end), physical addresses within its span."""
        skipped = start - self.span.start
        span = self.span._replace(start=start, end=end)
        return self._replace(span=span, offset=self.offset + skipped, host=self.host + skipped)


class ShadowPart(NamedTuple):
    """A part of the shadow RAM that can be seen, in [start, end); `readonly`: the CPU's stores to it are dropped."""

    start: int
    end: int
    readonly: bool


class _MappedFile(NamedTuple):
    """Pages of a file in memory of this process, in [start, end); `offset` in the source is that of the first."""

    start: int
    end: int
    source: MappableSource
    offset: int


class GuestMemory:
    """RAM spans and a ROM that ends at 4 GiB, anonymous memory of this process. Pages never touched are never committed.

    `regions` are what the guest sees now, sorted by address. While the guest runs `before_write` are told (physical address,
    bytes) of what a device, or an exception that the engine delivers, is about to write, `listeners` of what a device has;
    `fetch_listeners` (physical address, data) of what a device has read, `map_listeners` that `regions` has changed.

    `copied` and `mapped` are the bytes that `load` has put here, `mappings` the pieces of files that it has mapped.
    """

    def __init__(
        self,
        ram: Sequence[Span],
        rom: bytes,
        *,
        low_rom: Span | None = None,
        rom_writable: bool = False,
        blank_rom: Span | None = None,
        shadow: Span | None = None,
    ) -> None:
        """`low_rom` is where the end of the ROM lies a second time. A ROM that is not `rom_writable` refuses stores.
        `blank_rom` is a ROM of zeros. `shadow` is RAM that nobody sees until `show_shadow` says so.

        Raises BootError if the host has no room for it, or the ROM is no multiple of 4 KiB.
        """
        if not rom or len(rom) % PAGE_SIZE:
            raise BootError(f"the firmware has {len(rom)} bytes: a ROM is a multiple of {PAGE_SIZE}")
        high = self._map(rom_span(len(rom)), not rom_writable)
        high.buffer[:] = rom
        regions = [*(self._map(span, False) for span in ram), high]
        if low_rom is not None:
            offset = len(rom) - low_rom.size
            regions.append(high._replace(span=low_rom, offset=offset, host=high.host + offset))
        if blank_rom is not None:
            regions.append(self._map(blank_rom, True))
        self._below = _sorted(regions)
        self._shadow = None if shadow is None else self._map(shadow, False)
        self.regions = self._below
        self.copied = self.mapped = self.mappings = 0
        self._files: list[_MappedFile] = []  # the last one first; what is mapped over another takes its place
        self.before_write: list[Callable[[int, int], None]] = []
        self.fetch_listeners: list[Callable[[int, bytes], None]] = []
        self.listeners: list[Callable[[int, int], None]] = []
        self.map_listeners: list[Callable[[], None]] = []

    @staticmethod
    def _map(span: Span, readonly: bool) -> Region:
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            buffer = mmap.mmap(-1, span.size, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise BootError(
                f"the host has no {span.size >> 20} MiB for the guest's memory: {getattr(error, 'strerror', None) or error}"
            ) from None
        return Region(span, buffer, 0, ctypes.addressof(ctypes.c_char.from_buffer(buffer)), readonly)

    def show_shadow(self, parts: Sequence[ShadowPart]) -> None:
        """The shadow RAM is seen at these disjoint parts of it and nowhere else, in place of what else lies there."""
        assert self._shadow is not None
        shown = [self._shadow.cut(start, end)._replace(readonly=readonly) for start, end, readonly in parts]
        self.show(_sorted([*(piece for region in self._below for piece in _beside(region, parts)), *shown]))

    @property
    def shown(self) -> tuple[ShadowPart, ...]:
        """What of the shadow RAM is seen, as `show_shadow` was told."""
        buffer = None if self._shadow is None else self._shadow.buffer
        seen = [region for region in self.regions if region.buffer is buffer]
        return tuple(ShadowPart(region.span.start, region.span.end, region.readonly) for region in seen)

    def show(self, regions: tuple[Region, ...]) -> None:
        """The guest sees these, which `regions` has been before."""
        if regions != self.regions:
            self.regions = regions
            for listener in self.map_listeners:
                listener()

    def region(self, paddr: int, size: int) -> Region:
        """The region that holds all of [paddr, paddr + size); NoMemoryError if none does."""
        for region in self.regions:
            if region.span.start <= paddr and paddr + size <= region.span.end:
                return region
        raise NoMemoryError(f"no memory at {paddr:#x}-{paddr + size:#x}")

    def is_rom(self, paddr: int) -> bool:
        """Whether there is memory that drops a CPU's stores."""
        return any(region.readonly and region.span.start <= paddr < region.span.end for region in self.regions)

    def read(self, paddr: int, size: int) -> bytes:
        """`size` bytes at a physical address, of as many regions as they lie in; NoMemoryError where there is none."""
        parts = []
        at, end = paddr, paddr + size
        for region in self.regions:
            if region.span.start <= at < region.span.end:
                offset, count = region.offset + at - region.span.start, min(end, region.span.end) - at
                parts.append(region.buffer[offset : offset + count])
                at += count
                if at == end:
                    return b"".join(parts)
        if not size:
            return b""
        raise NoMemoryError(f"no memory at {paddr:#x}-{paddr + size:#x}")

    def fetch(self, paddr: int, size: int) -> bytes:
        """As `read`, for a device while the guest runs: the listeners are told what it was given."""
        data = self.read(paddr, size)
        for listener in self.fetch_listeners:
            listener(paddr, data)
        return data

    def view(self, paddr: int, size: int) -> memoryview:
        """A writable view of `size` bytes of RAM; BootError for a ROM, NoMemoryError where there is none. That shadow RAM is
        read-only is so for the CPU alone, as in QEMU."""
        region = self.region(paddr, size)
        if region.readonly and not (self._shadow is not None and region.buffer is self._shadow.buffer):
            raise BootError(f"{paddr:#x} lies in the ROM")
        at = region.offset + paddr - region.span.start
        return memoryview(region.buffer)[at : at + size]

    def load(self, paddr: int, size: int, source: MappableSource, offset: int) -> None:
        """Puts `size` bytes of the source, from `offset` on, to a physical address in RAM.

        Whole pages of a file that lie in it as they are to lie in memory are mapped, copy on write, and cost nothing until they
        are touched. Whoever changes the file in place then changes what has not been stored to yet; whoever truncates it takes
        it away, and this process ends by SIGBUS. The rest is read.
        BootError for what cannot be read, NoMemoryError where there is no RAM.
        """
        view = self.view(paddr, size)
        host = self._host(paddr, size)
        first, end = -host & _PAGE_MASK, size - (host + size & _PAGE_MASK)  # of the whole pages, counted from paddr
        descriptor = source.descriptor
        if (
            descriptor is None
            or (offset - host) & _PAGE_MASK
            or first >= end
            or self.mappings == _MAPPED_MAX
            or not _map_file(host + first, end - first, descriptor, offset + first)
        ):
            source.read_into(offset, view)
            self.copied += size
            return
        self.mappings += 1
        self.mapped += end - first
        self._files.insert(0, _MappedFile(host + first, host + end, source, offset + first))
        source.read_into(offset, view[:first])
        source.read_into(offset + end, view[end:])
        self.copied += size - (end - first)

    def _host(self, paddr: int, size: int) -> int:
        region = self.region(paddr, size)
        return region.host + paddr - region.span.start

    def unproven(self, paddr: int, size: int, source: MappableSource, offset: int) -> list[tuple[int, int]]:
        """Which parts [start, end) of [paddr, paddr + size) have to be compared to find out whether they still hold what
        `load`, given the same, has put there: all but those pages of a file that nobody has stored to. None is read."""
        from .pagemap import stored_spans

        host = self._host(paddr, size)
        file = next((file for file in self._files if file.start < host + size and host < file.end), None)
        if file is not None:
            first, end = file.start - host, file.end - host
            if file.source is source and first >= 0 and end <= size and file.offset == offset + first:
                stored = [(first + at, first + to) for at, to in stored_spans(file.start, end - first, of_file=True)]
                return [(paddr + at, paddr + to) for at, to in ((0, first), *stored, (end, size)) if at < to]
        return [(paddr, paddr + size)]

    def unproven_zeros(self, paddr: int, size: int) -> list[tuple[int, int]]:
        """The same for memory that was to be left as it is, and zero: all but those pages that nobody has touched."""
        from .pagemap import stored_spans

        host = self._host(paddr, size)
        first, end = -host & _PAGE_MASK, size - (host + size & _PAGE_MASK)
        if first >= end or any(file.start < host + size and host < file.end for file in self._files):
            return [(paddr, paddr + size)]
        stored = [(first + at, first + to) for at, to in stored_spans(host + first, end - first, of_file=False)]
        return [(paddr + at, paddr + to) for at, to in ((0, first), *stored, (end, size)) if at < to]

    @contextmanager
    def writing(self, paddr: int, size: int) -> Iterator[memoryview]:
        """A view as of `view`, for a device that writes while the guest runs: the listeners are told when it has."""
        view = self.view(paddr, size)
        for listener in self.before_write:
            listener(paddr, size)
        yield view
        for listener in self.listeners:
            listener(paddr, size)


def _map_file(host: int, size: int, descriptor: int, offset: int) -> bool:
    """Maps pages of a file over memory of this process; False, with nothing changed, if the file cannot be mapped, is closed,
    or has become too short. BootError if the host has too many mappings."""
    try:
        if os.fstat(descriptor).st_size < offset + size:
            return False
    except OSError:
        return False
    libc = ctypes.CDLL(None)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64
    libc.mremap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    # Not by MAP_FIXED: where a file cannot be mapped after all, that would have taken away what was there.
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    found = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, offset)
    if found == _MAP_FAILED:
        return False
    if libc.mremap(found, size, size, _MREMAP_MAYMOVE | _MREMAP_FIXED, host) != host:
        libc.munmap(found, size)
        raise BootError("the host has no room for one more mapping")
    return True


def _sorted(regions: Sequence[Region]) -> tuple[Region, ...]:
    return tuple(sorted(regions, key=lambda region: region.span.start))


def _beside(region: Region, parts: Sequence[ShadowPart]) -> Iterator[Region]:
    """What is left of a region beside the parts."""
    at = region.span.start
    for start, end, _ in sorted(parts):
        if start < region.span.end and at < end:
            if at < start:
                yield region.cut(at, start)
            at = end
    if at < region.span.end:
        yield region.cut(at, region.span.end)
