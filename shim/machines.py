"""The machines, as validated data: the only place where they differ. A20 is open at reset on all of them.

`bare` is RAM, a ROM and no device that the firmware needs. `microvm` is QEMU's machine of that name with acpi=off and one CPU,
`microvm-acpi` the same with acpi=on and any number (QEMU hw/i386/microvm.c, x86.c).
"""

from typing import Final, NamedTuple

from .abi import acpi_loader, e820, fw_cfg, params, pvh
from .abi.firmware import FW_CFG, PARAMS
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

    @property
    def bounds(self) -> tuple[int, int]:
        """Start and end: what spans are sorted by."""
        return self.start, self.end


class LowMemory(NamedTuple):
    """Where the firmware keeps its data in RAM, all of it below 1 MiB and none of it at 0.

    `control` (the DMA descriptor and single items) and `transfer` (directory, then e820) are for fw_cfg; `e820` (instead, where
    the directory is needed later), `script` and `allocated` (of the table-loader) for ACPI. None without.
    """

    gdt: Span
    stack: Span
    start_info: Span
    modlist: Span
    memmap: Span
    strings: Span
    control: Span | None = None
    transfer: Span | None = None
    e820: Span | None = None
    script: Span | None = None
    allocated: Span | None = None

    def spans(self) -> tuple[Span, ...]:
        """Those that there are."""
        return tuple(span for span in self if span is not None)


class MachineSpec(NamedTuple):
    """A machine: what the firmware is specialised for and what the board models.

    `source`: how the firmware learns what to boot (PARAMS or FW_CFG). `low_ram_max`: RAM above this physical address
    continues at 4 GiB. `low_rom_max`: so many bytes of the ROM's end, at most, lie below 1 MiB too. `rom_writable`: a store
    to the ROM changes it. `reset_ports`: there are a keyboard controller and port 0x92. `acpi`: fw_cfg may have ACPI tables.
    `unclaimed`: what an access that nobody answers does ("ones": reads give all ones and writes are dropped, as on a PC;
    "stop": it ends the run).
    """

    name: str
    source: str
    low: LowMemory
    low_ram_max: int
    low_rom_max: int
    rom_writable: bool
    reset_ports: bool
    acpi: bool
    ram_min: int
    ram_max: int
    unclaimed: str


GDT_ENTRIES: Final = 4
MAX_MODULES: Final = {PARAMS: params.PARAMS_MAX_MODULES, FW_CFG: 1}

FW_CFG_DIR_CHUNK: Final = 40  # directory entries that are read at once: QEMU's directories hold fewer
# What the firmware adds to the host's map: RAM below the low copy of the ROM, that copy, the ROM.
FW_CFG_MAX_E820: Final = pvh.MEMMAP_MAX_ENTRIES - 3
FW_CFG_WORDS: Final = 4  # of 32 bits behind the DMA descriptor: single items
ACPI_WORDS: Final = 6  # and behind those
CMDLINE_MAX: Final = 32 * KIB  # bytes, with the terminator

_GDT: Final = Span("firmware GDT", 0x1000, 0x1000 + GDT_ENTRIES * DESC_SIZE)
_BARE_LOW: Final = LowMemory(
    gdt=_GDT,
    stack=Span("firmware stack", 0x2000, 0x3000),
    start_info=Span("start_info", 0x6000, 0x6000 + pvh.HVM_START_INFO.size),
    modlist=Span("module list", 0x6040, 0x6040 + MAX_MODULES[PARAMS] * pvh.HVM_MODLIST_ENTRY.size),
    memmap=Span("memory map", 0x7000, 0x7000 + pvh.MEMMAP_MAX_ENTRIES * pvh.HVM_MEMMAP_ENTRY.size),
    strings=Span("command lines", 0x20000, 0x20000 + params.PARAMS_MAX_SIZE),
)

BARE: Final = MachineSpec(
    name="bare",
    source=PARAMS,
    low=_BARE_LOW,
    low_ram_max=3 * GIB,
    low_rom_max=0,
    rom_writable=False,
    reset_ports=True,
    acpi=False,
    ram_min=16 * MIB,
    ram_max=1024 * GIB,
    unclaimed="ones",
)

_DIRECTORY_BYTES: Final = fw_cfg.FW_CFG_FILE_COUNT_BYTES + FW_CFG_DIR_CHUNK * fw_cfg.FW_CFG_FILE.size
_TRANSFER_BYTES: Final = max(_DIRECTORY_BYTES, FW_CFG_MAX_E820 * e820.E820_ENTRY.size)

MICROVM: Final = MachineSpec(
    name="microvm",
    source=FW_CFG,
    low=_BARE_LOW._replace(
        modlist=Span("module list", 0x6040, 0x6040 + MAX_MODULES[FW_CFG] * pvh.HVM_MODLIST_ENTRY.size),
        strings=Span("command line", 0x20000, 0x20000 + CMDLINE_MAX),
        control=Span("fw_cfg control", _GDT.end, _GDT.end + fw_cfg.FW_CFG_DMA.size + FW_CFG_WORDS * 4),
        transfer=Span("fw_cfg transfer", 0x3000, 0x3000 + _TRANSFER_BYTES),
    ),
    low_ram_max=3 * GIB,
    low_rom_max=128 * KIB,
    rom_writable=True,
    reset_ports=False,
    acpi=False,
    ram_min=16 * MIB,
    ram_max=1024 * GIB,
    unclaimed="ones",
)

LOADER_MAX_BYTES: Final = 16 * KIB  # of a table-loader script; QEMU's have 2 to 4 KiB
ALLOCATED_MAX: Final = 32  # files that it puts into memory; QEMU's have 2 to 5

MICROVM_ACPI: Final = MICROVM._replace(
    name="microvm-acpi",
    acpi=True,
    low=MICROVM.low._replace(
        control=Span("fw_cfg control", _GDT.end, _GDT.end + fw_cfg.FW_CFG_DMA.size + (FW_CFG_WORDS + ACPI_WORDS) * 4),
        e820=Span("etc/e820", 0x8000, 0x8000 + FW_CFG_MAX_E820 * e820.E820_ENTRY.size),
        allocated=Span("ACPI files", 0x9000, 0x9000 + ALLOCATED_MAX * acpi_loader.ALLOCATED_FILE.size),
        script=Span("table-loader", 0xA000, 0xA000 + LOADER_MAX_BYTES),
    ),
)

MACHINES: Final = {spec.name: spec for spec in (BARE, MICROVM, MICROVM_ACPI)}


def machine(name: str) -> MachineSpec:
    """The machine of that name; BootError names those that there are."""
    try:
        return MACHINES[name]
    except KeyError:
        raise BootError(f"no machine named {name!r}; there is: {', '.join(MACHINES)}") from None


def firmware_end(spec: MachineSpec) -> int:
    """The physical address below which the firmware keeps its data."""
    return max(span.end for span in spec.low.spans())


def ram_spans(spec: MachineSpec, size: int) -> tuple[Span, ...]:
    """`size` bytes of RAM, split around the machine's 32-bit hole."""
    low = Span("RAM", 0, min(size, spec.low_ram_max))
    if size <= spec.low_ram_max:
        return (low,)
    return (low, Span("RAM above 4 GiB", ADDRESS_4G, ADDRESS_4G + size - spec.low_ram_max))


def rom_span(size: int) -> Span:
    """A ROM of `size` bytes: it ends at 4 GiB, so that the reset vector lies in it."""
    return Span("ROM", ADDRESS_4G - size, ADDRESS_4G)


def low_rom_span(spec: MachineSpec, rom_size: int) -> Span | None:
    """Where the end of a ROM of `rom_size` bytes lies below 1 MiB, in place of RAM; None on a machine without."""
    size = min(rom_size, spec.low_rom_max)
    return Span("low ROM", MIB - size, MIB) if size else None


def visible_ram(spec: MachineSpec, size: int, rom_size: int) -> tuple[Span, ...]:
    """The RAM that is left beside the low copy of the ROM."""
    first, *rest = ram_spans(spec, size)
    rom = low_rom_span(spec, rom_size)
    if rom is None:
        return (first, *rest)
    return (Span("low RAM", first.start, rom.start), first._replace(start=rom.end), *rest)


CODE_ORIGIN: Final = ADDRESS_4G - params.PARAMS_FROM_END + params.PARAMS_MAX_SIZE
PARAMS_PADDR: Final = ADDRESS_4G - params.PARAMS_FROM_END
assert PARAMS_PADDR >= RESET_CS_BASE, "the 16-bit code reaches the last 64 KiB only"
