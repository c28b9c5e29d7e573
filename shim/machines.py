"""The machines, as validated data: the only place where they differ. A20 is open at reset on all of them.

`bare` is RAM, a ROM and no device that the firmware needs. `microvm` and `microvm-acpi` are QEMU's machine of that name with
acpi=off and acpi=on, `pc` and `q35` its PCs with the chipsets i440FX and Q35 (QEMU hw/i386/microvm.c, pc_piix.c, pc_q35.c).
"""

from typing import Final, NamedTuple

from .abi import boot_params, e820, fw_cfg, params, pvh
from .abi.chipset import F_SEGMENT, F_SEGMENT_END, I440FX, ICH9, LOW_HOLE, PCIEXBAR, PCIEXBAR_SIZE, UPPER_MEMORY, Chipset
from .abi.firmware import ALLOCATED_FILE, FW_CFG, PARAMS
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

    `boot_params` and `setup_data` are for a bzImage, `control` (the DMA descriptor and single items) and `transfer` (directory,
    then e820) for fw_cfg; `e820` (instead, where the directory is needed later), `script` and `allocated` (of the table-loader)
    for ACPI, which a PC has in `upper`, `f_segment` for what its operating system looks for there, `mp_table` for the
    processors of another machine. None without.
    """

    gdt: Span
    stack: Span
    start_info: Span
    modlist: Span
    memmap: Span
    strings: Span
    boot_params: Span | None = None
    setup_data: Span | None = None
    control: Span | None = None
    transfer: Span | None = None
    e820: Span | None = None
    script: Span | None = None
    allocated: Span | None = None
    upper: Span | None = None
    f_segment: Span | None = None
    mp_table: Span | None = None

    def spans(self) -> tuple[Span, ...]:
        """Those that there are."""
        return tuple(span for span in self if span is not None)


class MachineSpec(NamedTuple):
    """A machine: what the firmware is specialised for and what the board models.

    `qemu`: QEMU's name of it. `source`: how the firmware learns what to boot (PARAMS or FW_CFG). `chipset`: its PCI chipset
    (abi/chipset.py), None without PCI. `low_ram_max`: RAM of `low_ram_whole` bytes and more is parted: from this physical
    address on it continues at 4 GiB. `low_rom_max`: so many bytes of the ROM's end, at most, lie below 1 MiB too.
    `rom_writable`: a store to the ROM changes it. `reset_ports`: there are a keyboard controller and port 0x92. `acpi`: fw_cfg
    may have ACPI tables. `mp_table`: the firmware makes an MP table where there are none. `initrd_reserve`: so many bytes at
    the top of low RAM QEMU keeps free of the initrd. `unclaimed`: what an access that nobody answers does ("ones": reads give
    all ones and writes are dropped, as on a PC; "stop": it ends the run). `detects`: the machines among which a firmware
    chooses at run time.
    """

    name: str
    qemu: str
    source: str
    chipset: Chipset | None
    low: LowMemory
    low_ram_max: int
    low_ram_whole: int
    low_rom_max: int
    rom_writable: bool
    reset_ports: bool
    acpi: bool
    mp_table: bool
    initrd_reserve: int
    ram_min: int
    ram_max: int
    unclaimed: str
    detects: tuple["MachineSpec", ...] = ()  # as a string it would cost 1 ms at import: typing compiles it

    @property
    def has_chipset(self) -> bool:
        """There is one, or may be."""
        return self.chipset is not None or bool(self.detects)


GDT_ENTRIES: Final = 4
MAX_MODULES: Final = {PARAMS: params.PARAMS_MAX_MODULES, FW_CFG: 1}

FW_CFG_DIR_CHUNK: Final = 40  # directory entries that are read at once: QEMU's directories hold fewer
# What the firmware adds to the host's map: RAM below the hole in front of 1 MiB, that hole, the ROM, one more (see max_e820).
FW_CFG_MAX_E820: Final = pvh.MEMMAP_MAX_ENTRIES - 4
# Words of 32 bits behind the DMA descriptor, as the assembly names them.
FW_CFG_WORDS: Final = ("FW_CFG_WORD_PADDR", "ENTRY_POINTER", "KERNEL_ADDR_PADDR", "KERNEL_SIZE_PADDR", "LINUX_ENTRY")
# A zone that tables are put into: its end, its start.
ACPI_WORDS: Final = ("RSDP_PADDR", "ACPI_TOP", "ACPI_BOTTOM", "ACPI_FLOOR", "ACPI_POINTER", "ACPI_POINTER_HIGH")
CHIPSET_WORDS: Final = ("UPPER_END", "UPPER_START", "FSEG_END", "FSEG_START")
DETECTS_WORDS: Final = ("MACHINE_POINTER",)
CMDLINE_MAX: Final = 32 * KIB  # bytes, with the terminator

_GDT: Final = Span("firmware GDT", 0x1000, 0x1000 + GDT_ENTRIES * DESC_SIZE)
_BARE_LOW: Final = LowMemory(
    gdt=_GDT,
    stack=Span("firmware stack", 0x2000, 0x3000),
    start_info=Span("start_info", 0x6000, 0x6000 + pvh.HVM_START_INFO.size),
    modlist=Span("module list", 0x8000, 0x8000 + MAX_MODULES[PARAMS] * pvh.HVM_MODLIST_ENTRY.size),
    memmap=Span("memory map", 0x7000, 0x7000 + pvh.MEMMAP_MAX_ENTRIES * pvh.HVM_MEMMAP_ENTRY.size),
    strings=Span("command lines", 0x20000, 0x20000 + params.PARAMS_MAX_SIZE),
)

BARE: Final = MachineSpec(
    name="bare",
    qemu="microvm,acpi=off",  # the smallest that has RAM and a ROM: nothing else is asked for
    source=PARAMS,
    chipset=None,
    low=_BARE_LOW,
    low_ram_max=3 * GIB,
    low_ram_whole=3 * GIB,
    low_rom_max=0,
    rom_writable=False,
    reset_ports=True,
    acpi=False,
    mp_table=False,
    initrd_reserve=0,
    ram_min=_BARE_LOW.strings.end,
    ram_max=1024 * GIB,
    unclaimed="ones",
)


def control_words(*, acpi: bool, chipset: bool, detects: bool) -> tuple[str, ...]:
    """The words that a firmware keeps, in their order."""
    parts = ((True, FW_CFG_WORDS), (acpi, ACPI_WORDS), (chipset, CHIPSET_WORDS), (detects, DETECTS_WORDS))
    return tuple(word for wanted, words in parts if wanted for word in words)


def _control(*, acpi: bool = False, chipset: bool = False, detects: bool = False) -> Span:
    words = control_words(acpi=acpi, chipset=chipset, detects=detects)
    return Span("fw_cfg control", _GDT.end, _GDT.end + fw_cfg.FW_CFG_DMA.size + len(words) * 4)


DIRECTORY_BYTES: Final = fw_cfg.FW_CFG_FILE_COUNT_BYTES + FW_CFG_DIR_CHUNK * fw_cfg.FW_CFG_FILE.size
_TRANSFER_BYTES: Final = max(DIRECTORY_BYTES, FW_CFG_MAX_E820 * e820.E820_ENTRY.size)

# The end of base memory: there an operating system looks for the pointer.
_MP_TABLE: Final = Span("MP table", LOW_HOLE - 8 * KIB, LOW_HOLE)

MICROVM: Final = MachineSpec(
    name="microvm",
    qemu="microvm,acpi=off",
    source=FW_CFG,
    chipset=None,
    low=_BARE_LOW._replace(
        modlist=Span("module list", 0x6040, 0x6040 + MAX_MODULES[FW_CFG] * pvh.HVM_MODLIST_ENTRY.size),
        strings=Span("command line", 0x20000, 0x20000 + CMDLINE_MAX),
        control=_control(),
        boot_params=Span("boot_params", 0x4000, 0x4000 + boot_params.BOOT_PARAMS_BYTES),
        setup_data=Span("setup_data", 0x10000, 0x20000),
        transfer=Span("fw_cfg transfer", 0x3000, 0x3000 + _TRANSFER_BYTES),
        mp_table=_MP_TABLE,
    ),
    low_ram_max=3 * GIB,
    low_ram_whole=3 * GIB,
    low_rom_max=128 * KIB,
    rom_writable=True,
    reset_ports=False,
    acpi=False,
    mp_table=True,
    initrd_reserve=0,
    ram_min=MIB,
    ram_max=1024 * GIB,
    unclaimed="ones",
)

LOADER_MAX_BYTES: Final = 16 * KIB  # of a table-loader script; QEMU's have 2 to 4 KiB
ALLOCATED_MAX: Final = 32  # files that it puts into memory; QEMU's have 2 to 5

MICROVM_ACPI: Final = MICROVM._replace(
    name="microvm-acpi",
    qemu="microvm,acpi=on",
    acpi=True,
    mp_table=False,
    low=MICROVM.low._replace(
        mp_table=None,
        control=_control(acpi=True),
        e820=Span("etc/e820", 0x8000, 0x8000 + FW_CFG_MAX_E820 * e820.E820_ENTRY.size),
        allocated=Span("ACPI files", 0x9000, 0x9000 + ALLOCATED_MAX * ALLOCATED_FILE.size),
        script=Span("table-loader", 0xA000, 0xA000 + LOADER_MAX_BYTES),
    ),
)

PC: Final = MICROVM_ACPI._replace(
    name="pc",
    qemu="pc",
    chipset=I440FX,
    low=MICROVM_ACPI.low._replace(
        control=_control(acpi=True, chipset=True),
        upper=Span("upper memory", UPPER_MEMORY, F_SEGMENT),
        f_segment=Span("F segment", F_SEGMENT, F_SEGMENT_END),
    ),
    low_ram_max=3 * GIB,
    low_ram_whole=0xE0000000,
    low_rom_max=128 * KIB,
    rom_writable=False,
    reset_ports=True,
    mp_table=True,
    initrd_reserve=160 * KIB,  # acpi_data_size in pc.c
)

Q35: Final = PC._replace(name="q35", qemu="q35", chipset=ICH9, low_ram_max=2 * GIB, low_ram_whole=0xB0000000)

# No machine, but a firmware for three: it finds out at run time on which it is.
UNIVERSAL: Final = Q35._replace(
    name="universal",
    qemu="",
    chipset=None,
    low=Q35.low._replace(control=_control(acpi=True, chipset=True, detects=True), mp_table=_MP_TABLE),
    detects=(PC, Q35, MICROVM_ACPI),
)

MACHINES: Final = {spec.name: spec for spec in (BARE, MICROVM, MICROVM_ACPI, PC, Q35)}


def machine(name: str) -> MachineSpec:
    """The machine of that name; BootError names those that there are."""
    try:
        return MACHINES[name]
    except KeyError:
        raise BootError(f"no machine named {name!r}; there is: {', '.join(MACHINES)}") from None


FIRMWARES: Final = {**MACHINES, UNIVERSAL.name: UNIVERSAL}


def firmware_machine(name: str) -> MachineSpec:
    """The machine of that name, or what is not one but has a firmware; BootError names those that there are."""
    try:
        return FIRMWARES[name]
    except KeyError:
        raise BootError(f"no firmware for {name!r}; there is: {', '.join(FIRMWARES)}") from None


def max_e820(spec: MachineSpec) -> int:
    """Entries of fw_cfg's etc/e820 that the firmware takes. With ACPI it tells of the tables, too: in RAM, which they part, or
    in a PC's hole; and of ECAM, where that is."""
    has_ecam = spec.chipset is not None and spec.chipset.pciexbar is not None
    return FW_CFG_MAX_E820 - (spec.acpi and (spec.chipset is None or has_ecam))


def firmware_end(spec: MachineSpec) -> int:
    """The physical address below which the firmware keeps its data, but for what an operating system looks for elsewhere."""
    apart = spec.low.upper, spec.low.f_segment, spec.low.mp_table
    return max(span.end for span in spec.low.spans() if span not in apart)


def ram_spans(spec: MachineSpec, size: int) -> tuple[Span, ...]:
    """`size` bytes of RAM, split around the machine's 32-bit hole."""
    if size <= spec.low_ram_max or size < spec.low_ram_whole:
        return (Span("RAM", 0, size),)
    high = Span("RAM above 4 GiB", ADDRESS_4G, ADDRESS_4G + size - spec.low_ram_max)
    return (Span("RAM", 0, spec.low_ram_max), high)


def rom_span(size: int) -> Span:
    """A ROM of `size` bytes: it ends at 4 GiB, so that the reset vector lies in it."""
    return Span("ROM", ADDRESS_4G - size, ADDRESS_4G)


def low_rom_span(spec: MachineSpec, rom_size: int) -> Span | None:
    """Where the end of a ROM of `rom_size` bytes lies below 1 MiB, in place of RAM; None on a machine without."""
    size = min(rom_size, spec.low_rom_max)
    return Span("low ROM", MIB - size, MIB) if size else None


def low_hole(spec: MachineSpec, rom_size: int) -> Span | None:
    """What below 1 MiB is no RAM to a guest: the low copy of the ROM, on a PC all from the video memory on; None if all is."""
    if spec.chipset is not None:
        return Span("video memory and ROMs", LOW_HOLE, MIB)
    return low_rom_span(spec, rom_size)


def visible_ram(spec: MachineSpec, size: int, rom_size: int) -> tuple[Span, ...]:
    """The RAM that is left beside that hole."""
    first, *rest = ram_spans(spec, size)
    hole = low_hole(spec, rom_size)
    if hole is None:
        return (first, *rest)
    parts = Span("low RAM", first.start, hole.start), first._replace(start=hole.end), *rest
    return tuple(part for part in parts if part.size)


def reserved_spans(spec: MachineSpec, rom_size: int) -> tuple[Span, ...]:
    """What the firmware adds to the host's memory map as reserved: the ROM, its low copy, and where it puts ECAM. The video
    memory of a PC is in nobody's map."""
    low = low_rom_span(spec, rom_size)
    ecam = Span("ECAM", PCIEXBAR, PCIEXBAR + PCIEXBAR_SIZE)
    has_ecam = spec.chipset is not None and spec.chipset.pciexbar is not None
    return (*([low] if low else []), *([ecam] if has_ecam else []), rom_span(rom_size))


MP_STATIC_PADDR: Final = ADDRESS_4G - 256  # in the ROM: the MP table of a machine without PCI and with one processor
CODE_ORIGIN: Final = ADDRESS_4G - params.PARAMS_FROM_END + params.PARAMS_MAX_SIZE
PARAMS_PADDR: Final = ADDRESS_4G - params.PARAMS_FROM_END
assert PARAMS_PADDR >= RESET_CS_BASE, "the 16-bit code reaches the last 64 KiB only"
