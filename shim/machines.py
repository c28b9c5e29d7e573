"""The machines, as validated data: the only place where they differ. A20 is open at reset on all of them.

Today there is one, `bare`: RAM, a ROM and no device that the firmware needs.
"""

from typing import Final, NamedTuple

from .abi import params, pvh
from .abi.x86 import ADDRESS_4G, DESC_SIZE, RESET_CS_BASE
from .errors import BootError

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

ROM_GRANULE: Final = 64 * KIB
ROM_MAX: Final = 16 * MIB  # below that lie the APICs (0xfec00000, 0xfee00000) and KVM's own pages


class Span(NamedTuple):
    """A named half-open range [start, end) of physical addresses."""

    name: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


class LowMemory(NamedTuple):
    """Where the firmware keeps its data in RAM, all of it below 1 MiB and none of it at 0."""

    gdt: Span
    stack: Span
    start_info: Span
    modlist: Span
    memmap: Span
    strings: Span


class MachineSpec(NamedTuple):
    """A machine: what the firmware is specialised for and what the board models.

    `low_ram_max`: RAM above this physical address continues at 4 GiB. `unclaimed`: what an access that nobody answers
    does ("ones": reads give all ones and writes are dropped, as on a PC; "stop": it ends the run).
    """

    name: str
    low: LowMemory
    low_ram_max: int
    ram_min: int
    ram_max: int
    unclaimed: str


GDT_ENTRIES: Final = 4

_LOW: Final = LowMemory(
    gdt=Span("firmware GDT", 0x1000, 0x1000 + GDT_ENTRIES * DESC_SIZE),
    stack=Span("firmware stack", 0x2000, 0x3000),
    start_info=Span("start_info", 0x6000, 0x6000 + pvh.HVM_START_INFO.size),
    modlist=Span("module list", 0x6040, 0x6040 + params.PARAMS_MAX_MODULES * pvh.HVM_MODLIST_ENTRY.size),
    memmap=Span("memory map", 0x7000, 0x7000 + pvh.MEMMAP_MAX_ENTRIES * pvh.HVM_MEMMAP_ENTRY.size),
    strings=Span("command lines", 0x20000, 0x20000 + params.PARAMS_MAX_SIZE),
)

BARE: Final = MachineSpec(
    name="bare",
    low=_LOW,
    low_ram_max=3 * GIB,
    ram_min=16 * MIB,
    ram_max=1024 * GIB,
    unclaimed="ones",
)

MACHINES: Final = {spec.name: spec for spec in (BARE,)}


def machine(name: str) -> MachineSpec:
    """The machine of that name; BootError names those that there are."""
    try:
        return MACHINES[name]
    except KeyError:
        raise BootError(f"no machine named {name!r}; there is: {', '.join(MACHINES)}") from None


def ram_spans(spec: MachineSpec, size: int) -> tuple[Span, ...]:
    """`size` bytes of RAM, split around the machine's 32-bit hole."""
    low = Span("RAM", 0, min(size, spec.low_ram_max))
    if size <= spec.low_ram_max:
        return (low,)
    return (low, Span("RAM above 4 GiB", ADDRESS_4G, ADDRESS_4G + size - spec.low_ram_max))


def rom_span(size: int) -> Span:
    """A ROM of `size` bytes: it ends at 4 GiB, so that the reset vector lies in it."""
    return Span("ROM", ADDRESS_4G - size, ADDRESS_4G)


CODE_ORIGIN: Final = ADDRESS_4G - params.PARAMS_FROM_END + params.PARAMS_MAX_SIZE
PARAMS_PADDR: Final = ADDRESS_4G - params.PARAMS_FROM_END
assert PARAMS_PADDR >= RESET_CS_BASE, "the 16-bit code reaches the last 64 KiB only"
