"""What a guest and its devices write to memory, for tests that ask where."""

from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Cpu, Watch


class Stores(list[tuple[int, int]]):
    """A Watcher: (physical address, bytes) of each store, of the CPU or of a device."""

    def start(self, _cpu: Cpu, _board: Board) -> Watch:
        return Watch(store=lambda paddr, size, _value: self.append((paddr, size)), device_store=self._add)

    def _add(self, paddr: int, size: int) -> None:
        self.append((paddr, size))
