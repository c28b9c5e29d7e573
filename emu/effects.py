"""What an instruction does beside registers: to memory and to devices."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from .bus import KINDS

LOAD: Final = "load"
STORE: Final = "store"
DMA: Final = "dma"
EFFECT_KINDS: Final = (*KINDS, LOAD, STORE, DMA)
DATA_MAX: Final = 64  # bytes of several accesses, or of a device's, that a record holds; of more it holds a hash

# The words for them on the command line.
EFFECTS: Final[Mapping[str, tuple[str, ...]]] = {"io": KINDS, "loads": (LOAD,), "stores": (STORE,), "dma": (DMA,)}


class Effect(NamedTuple):
    """What an instruction did: `kind` is load or store (memory), in, out, read or write (a device, by port or by address), or
    dma (a device wrote to memory).

    `at` is a port or a physical address, `size` that of one access in bytes. A repeated instruction has one effect for all
    accesses that follow one another, `times` of them, `at` the lowest address. Of those, and of dma, `value` is None and `data`
    what was moved, in hexadecimal and in the order in which it was, or of more than DATA_MAX bytes their SHA-256.
    """

    kind: str
    at: int
    size: int
    value: int | None = None
    device: str = ""
    times: int = 1
    data: str = ""
