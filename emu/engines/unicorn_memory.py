"""The memory that a CPU under Unicorn sees: the board's, and the bus where none is."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pvhboot.loader.memory import GuestMemory, Region

from .unicorn_exceptions import ADDRESS_BITS

_PHYSICAL_END: Final = 1 << ADDRESS_BITS


class _Piece(NamedTuple):
    """What is mapped in [start, end), physical addresses: memory, or the bus (None)."""

    start: int
    end: int
    memory: Region | None


class _Bus(NamedTuple):
    load: Callable[[int, int], int]
    store: Callable[[int, int, int], None]


class MemoryMap:
    """RAM and ROM share the board's memory; every other physical address is the bus's: `load` (address, bytes) and `store`
    (address, bytes, value) are called for it."""

    def __init__(
        self, uc: Any, memory: GuestMemory, load: Callable[[int, int], int], store: Callable[[int, int, int], None]
    ) -> None:
        self._uc, self._memory, self._bus = uc, memory, [_Bus(load, store)]
        self._mapped: set[_Piece] = set()
        self.update()

    def update(self) -> None:
        """Maps what the board shows now. What is mapped as it has to be stays so: within a hook, where this may be called, the
        memory that the hook serves must not go away."""
        import unicorn

        wanted, at = set(), 0
        for region in self._memory.regions:
            wanted |= {_Piece(at, region.span.start, None), _Piece(region.span.start, region.span.end, region)}
            at = region.span.end
        wanted = {piece for piece in (*wanted, _Piece(at, _PHYSICAL_END, None)) if piece.start < piece.end}
        for piece in self._mapped - wanted:
            self._uc.ctl_remove_cache(piece.start, piece.end)
            self._uc.mem_unmap(piece.start, piece.end - piece.start)
        for start, end, memory in wanted - self._mapped:
            if memory is None:
                self._map_bus(start, end)
            else:
                self._uc.mem_map_ptr(start, end - start, unicorn.UC_PROT_ALL, memory.host)
                if memory.readonly:  # told at once, it would report the stores and do them all the same
                    self._uc.mem_protect(start, end - start, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self._mapped = wanted

    def let_go(self) -> None:
        """The bus is not asked any more."""
        self._bus.clear()  # to unmap would take Unicorn seconds: it looks at every page

    def _map_bus(self, start: int, end: int) -> None:
        bus = self._bus  # and nothing else that is held here: Unicorn never lets go of its callbacks

        def on_read(_uc: Any, offset: int, size: int, _data: Any) -> int:
            return bus[0].load(start + offset, size)

        def on_write(_uc: Any, offset: int, size: int, value: int, _data: Any) -> None:
            bus[0].store(start + offset, size, value)

        self._uc.mmio_map(start, end - start, on_read, None, on_write, None)
