"""BootPlan: where everything goes, proven to fit and not to overlap before a byte is written; then placed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG, PARAMS, ROM_MARK
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import (
    BARE,
    CMDLINE_MAX,
    PARAMS_PADDR,
    MachineSpec,
    Span,
    firmware_end,
    low_hole,
    low_rom_span,
    max_e820,
    ram_spans,
    reserved_spans,
    rom_span,
    visible_ram,
)

from .facts import KernelSegment
from .image import MappableSource
from .kernel import Kernel
from .limits import (
    check_firmware,
    check_memory,
    least_memory,
    require_disjoint,
    require_one_range,
    require_ram,
    require_reservable,
)
from .memory import GuestMemory
from .modules import (
    FREEBSD,
    LINUX,
    Module,
    PlannedModule,
    check_modules,
    encode_cmdline,
    place_initrd,
    place_modules,
    place_modules_behind,
)
from .params_block import params_block, takes_params
from .ranges import without
from .relocation import place_kernel

_COPY_CHUNK = 1 << 20  # bytes


class Piece(NamedTuple):
    """Bytes of a file with a place in memory; `offset` in the source, `size` in bytes."""

    name: str
    paddr: int
    size: int
    source: MappableSource
    offset: int


class BootPlan(NamedTuple):
    """Everything that a boot puts into memory. `rom` is the plan's own copy of the firmware, its parameter block filled.

    `source` is how the firmware learns what to boot: PARAMS, where the plan puts the modules into memory too, or FW_CFG,
    where the firmware does. `segments` and `entry` are the kernel's as it is loaded: moved, if it is. `ram` is the RAM that the
    guest sees, of `ram_size` bytes in all; of it, `reserved` is what it shall not use. `memmap` is what the guest is told, None
    where a firmware that is not pvhboot's decides that; `host_reserved` is what the host adds to it. `dma`: fw_cfg has its DMA
    interface. `cmdline` is without terminator, None where there is none; `spans` are all pieces in RAM and the ROM, sorted by
    address.
    """

    spec: MachineSpec
    source: str
    kernel: Kernel
    segments: tuple[KernelSegment, ...]
    entry: int
    ram_size: int
    ram: tuple[Span, ...]
    reserved: tuple[Span, ...]
    memmap: tuple[E820Entry, ...] | None
    host_reserved: tuple[E820Entry, ...]
    dma: bool
    modules: tuple[PlannedModule, ...]
    cmdline: bytes | None
    rom: bytes
    spans: tuple[Span, ...]

    @property
    def moved_by(self) -> int:
        """Bytes from where the kernel is linked to where it is loaded."""
        return self.segments[0].paddr - self.kernel.segments[0].paddr

    @property
    def usable_ram(self) -> tuple[Span, ...]:
        """RAM that is not reserved."""
        return tuple(without(self.ram, self.reserved))

    def place(self, memory: GuestMemory | bytearray | memoryview) -> None:
        """Writes kernel (its bss zeroed) and, unless the firmware fetches them, modules into `memory`: a GuestMemory, or any
        writable buffer whose index is the physical address. The ROM is not in there: map `rom` so that it ends at 4 GiB.

        The kernel must still be open. Raises BootError if the buffer is too short, before it writes, or if a file cannot be
        read as far as planned.
        """
        if isinstance(memory, GuestMemory):
            self._load(memory)
            for segment in self.segments:
                _zero(memory.view(segment.paddr + segment.filesz, segment.memsz - segment.filesz))
            return
        view = memoryview(memory).cast("B")  # of whatever items the buffer is made, the index is bytes
        loaded = self._pieces()
        end = max([segment.end for segment in self.segments] + [piece.paddr + piece.size for piece in loaded])
        if len(view) < end:
            raise BootError(f"the buffer of {len(view)} bytes ends before {end:#x}, where the last piece does")
        for piece in loaded:
            piece.source.read_into(piece.offset, view[piece.paddr : piece.paddr + piece.size])
        for segment in self.segments:
            _zero(view[segment.paddr + segment.filesz : segment.end])

    def memory(self) -> GuestMemory:
        """A GuestMemory of the planned size with everything placed."""
        blank_rom = shadow = None
        if self.spec.chipset is not None:
            from pvhboot.shim.abi.pam import OPTION_ROMS_END, SHADOW_END, SHADOW_START

            blank_rom = Span("option ROMs", SHADOW_START, OPTION_ROMS_END)
            shadow = Span("shadow RAM", SHADOW_START, SHADOW_END)
        memory = GuestMemory(
            self.ram,
            self.rom,
            low_rom=low_rom_span(self.spec, len(self.rom)),
            rom_writable=self.spec.rom_writable,
            blank_rom=blank_rom,
            shadow=shadow,
        )
        self._load(memory)  # what is new is zero
        return memory

    def _load(self, memory: GuestMemory) -> None:
        for piece in self._pieces():
            memory.load(piece.paddr, piece.size, piece.source, piece.offset)

    def _pieces(self) -> list[Piece]:
        """What is read from files into memory before the first instruction."""
        return self.kernel_pieces() + (self.module_pieces() if self.source == PARAMS else [])

    def kernel_pieces(self) -> list[Piece]:
        """The bytes of the kernel that come from its file."""
        return [
            Piece(f"kernel segment at {segment.paddr:#x}", segment.paddr, segment.filesz, self.kernel, segment.offset)
            for segment in self.segments
            if segment.filesz
        ]

    def module_pieces(self) -> list[Piece]:
        """The modules, whoever puts them into memory."""
        return [Piece(module.span.name, module.paddr, module.payload.size, module.payload, 0) for module in self.modules]

    def kernel_json(self) -> dict[str, Any]:
        """What is booted and where it is entered; `moved_by` in bytes."""
        return {"path": self.kernel.path, "kind": self.kernel.kind, "entry": self.entry, "moved_by": self.moved_by}

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, addresses as numbers."""
        return {
            "machine": self.spec.name,
            "memory": self.ram_size,
            "kernel": self.kernel_json(),
            "cmdline": None if self.cmdline is None else self.cmdline.decode(errors="replace"),
            "modules": [
                {
                    "path": module.payload.path,
                    "paddr": module.paddr,
                    "size": module.payload.size,
                    "cmdline": None if module.cmdline is None else module.cmdline.decode(errors="replace"),
                }
                for module in self.modules
            ],
            "memmap": None if self.memmap is None else [entry._asdict() for entry in self.memmap],
            "spans": [span._asdict() for span in self.spans],
        }


def _zero(view: memoryview) -> None:
    """Zeroes what is not zero yet: a page that is only read stays uncommitted."""
    zeros = bytes(min(len(view), _COPY_CHUNK))
    for at in range(0, len(view), _COPY_CHUNK):
        part = view[at : at + _COPY_CHUNK]
        if part != zeros[: len(part)]:
            part[:] = zeros[: len(part)]


def make_plan(
    spec: MachineSpec,
    firmware: bytes,
    kernel: Kernel,
    *,
    memory: int,
    modules: Sequence[Module] = (),
    cmdline: str | None = None,
    base: int | None = None,
    reserved: Sequence[Span] = (),
    guest: str = LINUX,
    host_reserved: Sequence[E820Entry] = (),
    dma: bool = True,
) -> BootPlan:
    """Plans a boot with `memory` bytes of RAM. The first module is the initrd, if there is one.

    A `firmware` that has pvhboot's parameter block gets it filled; any other is taken as it is. `base` is the physical address
    for the kernel's lowest segment (relocation.place_kernel says where it goes without); `reserved` is RAM that the memory map
    calls reserved, and that nothing is put into; `guest` (LINUX or FREEBSD) by whose rules modules are placed. `host_reserved`
    is what the host reserves beside its RAM (fw_cfg's etc/e820), `dma` whether its fw_cfg has a DMA interface. Raises BootError
    for the first thing that cannot be, with nothing written anywhere.
    """
    check_memory(spec, memory)
    check_firmware(firmware)
    rom = rom_span(len(firmware))
    ram = visible_ram(spec, memory, rom.size)
    has_block = takes_params(firmware)
    source = PARAMS if has_block else spec.source
    # Of a firmware that pvhboot has built it is known what memory it uses, and what it tells the guest.
    known = has_block or (source == FW_CFG and firmware.endswith(ROM_MARK))
    hole = low_hole(spec, rom.size)
    spans = [] if hole is None else [hole]
    if known:
        low = BARE.low if has_block else spec.low
        low_spans = [span for span in low.spans() if span is not low.modlist or modules]
        # What it puts into the hole, where it has opened it, the hole keeps free.
        spans += [span for span in low_spans if hole is None or not hole.start <= span.start < hole.end]
    told_whole = known and source == FW_CFG
    for span in reserved:
        require_reservable(span, ram, memory, from_host=told_whole)
    spans += reserved
    require_disjoint(spans)
    lowest = firmware_end(spec) if told_whole else 0
    free = without(ram, [*spans, Span("", 0, lowest)])
    least = least_memory(spec, kernel.segments)
    segments = place_kernel(kernel, free, memory, base, least=least, one_range=told_whole)
    moved_by = segments[0].paddr - kernel.segments[0].paddr
    least = least_memory(spec, segments)
    for number, segment in enumerate(segments):
        spans.append(Span(f"kernel segment {number}", segment.paddr, segment.end))
        require_ram(spans[-1], ram, kernel.path, memory, least)
    require_disjoint(spans, f"{kernel.path}: ")
    if told_whole:
        require_one_range(kernel.path, segments, lowest, without(ram, reserved))
    check_modules(modules, source, guest)
    planned = _place_modules(spec, source, guest, modules, segments, spans, ram_spans(spec, memory)[0], memory)
    spans += [module.span for module in planned]
    require_disjoint(spans, f"{kernel.path}: ", ": give more with --memory")
    if told_whole:
        told = len(without(ram_spans(spec, memory), reserved)) + len(reserved) + len(host_reserved)
        if told > (most := max_e820(spec)):
            raise BootError(f"{told} entries in fw_cfg's etc/e820: the firmware takes {most}, so reserve less")
    memmap = None
    if known:
        memmap = _memmap(without(ram, reserved), [*reserved_spans(spec, rom.size), *reserved], host_reserved)
    line = None if cmdline is None else encode_cmdline(cmdline, "the kernel's command line")
    if line is None and (source == FW_CFG or any(module.cmdline is not None for module in planned)):
        line = b""  # fw_cfg always has one, and the block's strings begin with the kernel's
    if told_whole and line is not None and len(line) >= CMDLINE_MAX:
        raise BootError(f"the command line has {len(line)} bytes: there is room for {CMDLINE_MAX - 1}")
    filled = firmware
    entry = kernel.entry + moved_by
    if has_block and memmap is not None:
        block = params_block(entry, memmap, planned, line)
        at = PARAMS_PADDR - rom.start
        filled = firmware[:at] + block + firmware[at + len(block) :]
    return BootPlan(
        spec=spec,
        source=source,
        kernel=kernel,
        segments=segments,
        entry=entry,
        ram_size=memory,
        ram=ram,
        reserved=tuple(reserved),
        memmap=memmap,
        host_reserved=tuple(host_reserved),
        dma=dma,
        modules=planned,
        cmdline=line,
        rom=filled,
        spans=tuple(sorted([*spans, rom], key=lambda span: span.bounds)),
    )


def _place_modules(
    spec: MachineSpec,
    source: str,
    guest: str,
    modules: Sequence[Module],
    segments: Sequence[KernelSegment],
    taken: Sequence[Span],
    low_ram: Span,
    memory: int,
) -> tuple[PlannedModule, ...]:
    if source == FW_CFG and guest == LINUX:
        return place_initrd(modules, low_ram, spec.initrd_reserve)
    free = without([low_ram], taken)
    if guest == FREEBSD:
        return place_modules_behind(modules, segments[-1].end, free, low_ram, memory)
    return place_modules(modules, free, low_ram, memory)


def _memmap(ram: Sequence[Span], reserved: Sequence[Span], host_reserved: Sequence[E820Entry]) -> tuple[E820Entry, ...]:
    """What pvhboot's firmware tells the guest, sorted by address; BootError if it has more entries than a guest takes."""
    entries = [E820Entry(span.start, span.size, pvh.MEMMAP_TYPE_RAM) for span in ram]
    entries += [E820Entry(span.start, span.size, pvh.MEMMAP_TYPE_RESERVED) for span in reserved]
    entries += host_reserved
    if len(entries) > pvh.MEMMAP_MAX_ENTRIES:
        raise BootError(f"{len(entries)} entries in the memory map: Linux takes {pvh.MEMMAP_MAX_ENTRIES}, so reserve less")
    return tuple(sorted(entries))
