"""Checkpoints: CPU, memory and devices as they are now, and back to it, at the price of what was changed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from mmap import mmap

from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import NoMemoryError

from .board import Board
from .engines.base import Cpu, Watch
from .memento import Memento


@contextmanager
def checkpoint(cpu: Cpu, board: Board, beside: Iterable[object] = ()) -> Iterator[None]:
    """At the end of the context all is as it was at its begin: the CPU with its counts, memory, devices, logs, consoles. They
    may be nested. While it lasts each store costs a call; a page is copied when it is stored to first. What is `beside` is not
    brought back, though a device may hold it.

    What is written to memory past GuestMemory.writing, and accessed and dirty bits that the CPU sets in page tables, stay.
    BootError of an engine that does not see stores.
    """
    back = cpu.save()
    pages = _Pages(board.memory)
    devices = Memento([board], [cpu, board.memory, board.plan, board.bus.listeners, *beside])
    memory = board.memory
    memory.before_write.append(pages.keep)
    memory.map_listeners.append(pages.forget)
    try:
        with cpu.watch(Watch(store=lambda paddr, size, _value: pages.keep(paddr, size))):
            yield
    finally:
        memory.before_write.remove(pages.keep)
        memory.map_listeners.remove(pages.forget)
        back()
        devices.restore()
        pages.restore()


class _Pages:
    """What the pages held that are about to be stored to."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._regions = memory.regions
        self._seen: set[int] = set()
        self._kept: list[tuple[mmap, int, bytes, int]] = []

    def keep(self, paddr: int, size: int) -> None:
        """[paddr, paddr + size) is about to be stored to."""
        first, last = paddr // PAGE_SIZE, (paddr + size - 1) // PAGE_SIZE
        if first == last and first in self._seen:
            return
        for page in range(first, last + 1):
            if page not in self._seen:
                self._keep(page)

    def _keep(self, page: int) -> None:
        start = page * PAGE_SIZE
        try:
            region = self._memory.region(start, PAGE_SIZE)
        except NoMemoryError:
            return
        at = region.offset + start - region.span.start
        self._seen.add(page)
        self._kept.append((region.buffer, at, region.buffer[at : at + PAGE_SIZE], start))

    def forget(self) -> None:
        """Other memory lies at some addresses now: what is stored there has to be kept, too."""
        self._seen.clear()

    def restore(self) -> None:
        """What was kept last is the first to go back: a page that lies at two addresses may have been kept twice."""
        for buffer, at, data, _ in reversed(self._kept):
            buffer[at : at + PAGE_SIZE] = data
        self._memory.show(self._regions)
        for _, _, _, paddr in self._kept:
            for listener in self._memory.listeners:
                listener(paddr, PAGE_SIZE)
