"""What stands behind a read-only ROM for a store: nothing changes, and the first stores are kept for the check."""

from typing import Final, NamedTuple

KEPT: Final = 64  # stores; those after them are counted on the bus only


class RomStore(NamedTuple):
    """A store: its offset from the ROM's start and its size in bytes, and the value."""

    offset: int
    size: int
    value: int


class RomWriteTrap:
    """Keeps the first stores in `stores`. Loads never get here: the ROM is memory to them."""

    def __init__(self) -> None:
        self.stores: list[RomStore] = []

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """All ones, as where nobody answers."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Changes nothing."""
        if len(self.stores) < KEPT:
            self.stores.append(RomStore(offset, size, value))
