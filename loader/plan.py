"""BootPlan: where everything goes, proven to fit and not to overlap before a byte is written; then placed."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from pvhboot.shim.abi import params, pvh
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import PARAMS_PADDR, ROM_MAX, MachineSpec, Span, ram_spans, rom_span

from .elf import ELF_MAGIC
from .kernel import Kernel
from .memory import GuestMemory
from .payload import Payload
from .sizes import show_size

_COPY_CHUNK = 1 << 20  # bytes


class _Source(Protocol):
    def read_into(self, offset: int, buffer: memoryview) -> None: ...


class Module(NamedTuple):
    """A module to load: its file and its command line (None: it has none)."""

    path: str
    cmdline: str | None = None


class PlannedModule(NamedTuple):
    """A module with its place (physical address, page-aligned) and the bytes of its command line, without terminator."""

    payload: Payload
    paddr: int
    cmdline: bytes | None

    @property
    def span(self) -> Span:
        """Where its bytes lie."""
        return Span(f"module {self.payload.path}", self.paddr, self.paddr + self.payload.size)


class BootPlan(NamedTuple):
    """Everything that a boot puts into memory. `rom` is the plan's own copy of the firmware, its parameter block filled.

    `cmdline` is without terminator, None where there is none; `memmap` is what the guest is told; `spans` are all pieces
    in RAM and the ROM, sorted by address.
    """

    spec: MachineSpec
    kernel: Kernel
    entry: int
    ram: tuple[Span, ...]
    memmap: tuple[E820Entry, ...]
    modules: tuple[PlannedModule, ...]
    cmdline: bytes | None
    rom: bytes
    spans: tuple[Span, ...]

    def place(self, memory: GuestMemory | bytearray | memoryview) -> None:
        """Writes kernel (its bss zeroed) and modules into `memory`: a GuestMemory, or any writable buffer whose index is
        the physical address. The ROM is not in there: map `rom` so that it ends at 4 GiB.

        The kernel must still be open. Raises BootError if the buffer is too short, before it writes, or if a file cannot be
        read as far as planned.
        """
        if not isinstance(memory, GuestMemory):
            memory = memoryview(memory).cast("B")  # of whatever items the buffer is made, the index is bytes
            end = max(span.end for span in (*self._kernel_spans(), *(module.span for module in self.modules)))
            if len(memory) < end:
                raise BootError(f"the buffer of {len(memory)} bytes ends before {end:#x}, where the last piece does")

        def view(paddr: int, size: int) -> memoryview:
            if isinstance(memory, GuestMemory):
                return memory.view(paddr, size)
            return memory[paddr : paddr + size]

        for segment in self.kernel.segments:
            self.kernel.read_into(segment.offset, view(segment.paddr, segment.filesz))
            _zero(view(segment.paddr + segment.filesz, segment.memsz - segment.filesz))
        for module in self.modules:
            module.payload.read_into(0, view(module.paddr, module.payload.size))

    def memory(self) -> GuestMemory:
        """A GuestMemory of the planned size with everything placed."""
        memory = GuestMemory(self.ram, self.rom)
        self.place(memory)
        return memory

    def first_difference(self, memory: GuestMemory) -> str | None:
        """Compares kernel and modules in `memory` with their files; says where they differ first."""
        pieces: list[tuple[str, int, int, int, _Source]]
        pieces = [(f"kernel segment at {s.paddr:#x}", s.paddr, s.filesz, s.offset, self.kernel) for s in self.kernel.segments]
        pieces += [(module.span.name, module.paddr, module.payload.size, 0, module.payload) for module in self.modules]
        chunk = memoryview(bytearray(_COPY_CHUNK))
        for name, paddr, size, offset, source in pieces:
            for at in range(0, size, _COPY_CHUNK):
                part = chunk[: min(_COPY_CHUNK, size - at)]
                source.read_into(offset + at, part)
                if memory.view(paddr + at, len(part)) != part:
                    return f"{name} was changed between {paddr + at:#x} and {paddr + at + len(part):#x}"
        for segment in self.kernel.segments:
            start, size = segment.paddr + segment.filesz, segment.memsz - segment.filesz
            for at in range(0, size, _COPY_CHUNK):
                count = min(_COPY_CHUNK, size - at)
                if memory.view(start + at, count) != bytes(count):
                    return f"the zeroed part of the kernel segment at {segment.paddr:#x} was changed behind {start + at:#x}"
        return None

    def _kernel_spans(self) -> list[Span]:
        return [Span("kernel", segment.paddr, segment.end) for segment in self.kernel.segments]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, addresses as numbers."""
        return {
            "machine": self.spec.name,
            "kernel": {"path": self.kernel.path, "kind": self.kernel.kind, "entry": self.entry},
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
            "memmap": [entry._asdict() for entry in self.memmap],
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
) -> BootPlan:
    """Plans a boot with `memory` bytes of RAM. The first module is the initrd, if there is one.

    A `firmware` that has pvhboot's parameter block gets it filled; any other is taken as it is. Raises BootError for the
    first thing that cannot be, with nothing written anywhere.
    """
    _check_memory(spec, memory)
    ram = ram_spans(spec, memory)
    rom = rom_span(len(firmware))
    if firmware[:4] == ELF_MAGIC:
        raise BootError("the firmware is an ELF file: give the ROM image itself")
    if not firmware or len(firmware) % PAGE_SIZE or len(firmware) > ROM_MAX:
        raise BootError(
            f"a firmware of {len(firmware)} bytes is not possible: "
            f"it takes a multiple of {PAGE_SIZE}, at most {show_size(ROM_MAX)}"
        )
    low = spec.low
    spans = [span for span in low if span is not low.modlist or modules]
    for number, segment in enumerate(kernel.segments):
        spans.append(Span(f"kernel segment {number}", segment.paddr, segment.end))
        _require_ram(spans[-1], ram, kernel.path, memory)
    _require_disjoint(spans)
    planned = _place_modules(modules, spans, ram[0], memory)
    spans += [module.span for module in planned]
    _require_disjoint(spans)
    memmap = tuple(E820Entry(span.start, span.size, pvh.MEMMAP_TYPE_RAM) for span in ram)
    memmap += (E820Entry(rom.start, rom.size, pvh.MEMMAP_TYPE_RESERVED),)
    memmap = tuple(sorted(memmap))
    line = None if cmdline is None else _encode_cmdline(cmdline, "the kernel's command line")
    if line is None and any(module.cmdline is not None for module in planned):
        line = b""  # the block's strings begin with the kernel's
    filled = firmware
    if _takes_params(firmware):
        block = _params_block(kernel.entry, memmap, planned, line)
        at = PARAMS_PADDR - rom.start
        filled = firmware[:at] + block + firmware[at + len(block) :]
    return BootPlan(spec, kernel, kernel.entry, ram, memmap, planned, line, filled, tuple(sorted([*spans, rom], key=_start)))


def _start(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _check_memory(spec: MachineSpec, memory: int) -> None:
    if memory % PAGE_SIZE:
        raise BootError(f"{memory} bytes of memory: give a multiple of 4 KiB")
    if not spec.ram_min <= memory <= spec.ram_max:
        low, high = show_size(spec.ram_min), show_size(spec.ram_max)
        raise BootError(f"{show_size(memory)} of memory: the machine {spec.name} takes {low} to {high}")


def _require_ram(span: Span, ram: Sequence[Span], path: str, memory: int) -> None:
    if not any(part.start <= span.start and span.end <= part.end for part in ram):
        raise BootError(
            f"{path}: {span.name} at {span.start:#x}-{span.end:#x} does not fit into {show_size(memory)} of memory: "
            f"RAM is {', '.join(f'{part.start:#x}-{part.end:#x}' for part in ram)}"
        )


def _require_disjoint(spans: Sequence[Span]) -> None:
    ordered = sorted((span for span in spans if span.size), key=_start)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            raise BootError(
                f"{after.name} at {after.start:#x}-{after.end:#x} overlaps {before.name} at {before.start:#x}-{before.end:#x}"
            )


def _place_modules(modules: Sequence[Module], taken: Sequence[Span], ram: Span, memory: int) -> tuple[PlannedModule, ...]:
    """From the top of low RAM downwards, each at the highest page that is free: where Linux likes its initrd."""
    if len(modules) > params.PARAMS_MAX_MODULES:
        raise BootError(f"{len(modules)} modules: at most {params.PARAMS_MAX_MODULES} are possible")
    busy = sorted(taken, key=_start)
    planned: list[PlannedModule] = []
    for module in modules:
        payload = Payload(module.path)
        paddr = (ram.end - payload.size) & ~(PAGE_SIZE - 1)
        for span in sorted(busy, key=_start, reverse=True):
            if paddr < span.end and span.start < paddr + payload.size:
                paddr = (span.start - payload.size) & ~(PAGE_SIZE - 1)
        if paddr <= 0:
            raise BootError(
                f"{module.path}: no room for its {payload.size} bytes beside the kernel in {show_size(memory)} of memory: "
                "give more with --memory"
            )
        line = None if module.cmdline is None else _encode_cmdline(module.cmdline, f"the command line of {module.path}")
        planned.append(PlannedModule(payload, paddr, line))
        busy.append(planned[-1].span)
    return tuple(planned)


def _encode_cmdline(text: str, whose: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise BootError(f"{whose} contains a NUL character: that would end it")
    return data


def _takes_params(firmware: bytes) -> bool:
    if len(firmware) < params.PARAMS_FROM_END:
        return False
    header = params.PARAMS_HEADER.unpack(firmware, len(firmware) - params.PARAMS_FROM_END)
    if header.magic != params.PARAMS_MAGIC:
        return False
    if header.version != params.PARAMS_VERSION:
        raise BootError(
            f"the firmware wants a parameter block of version {header.version}: "
            f"this pvhboot writes version {params.PARAMS_VERSION}"
        )
    return True


def _params_block(entry: int, memmap: Sequence[E820Entry], modules: Sequence[PlannedModule], cmdline: bytes | None) -> bytes:
    strings = bytearray()
    if cmdline is not None:
        strings += cmdline + b"\0"
    records = b""
    for module in modules:
        offset = 0
        if module.cmdline is not None:
            offset = len(strings)
            strings += module.cmdline + b"\0"
        records += params.PARAMS_MODULE.pack(params.ParamsModule(module.paddr, module.payload.size, offset))
    entries = b"".join(map(E820_ENTRY.pack, memmap))
    size = params.PARAMS_HEADER.size + len(entries) + len(records) + len(strings)
    if size > params.PARAMS_MAX_SIZE:
        room = params.PARAMS_MAX_SIZE - (size - len(strings))
        raise BootError(f"the command lines have {len(strings)} bytes with their terminators: there is room for {room}")
    header = params.ParamsHeader(
        params.PARAMS_MAGIC, params.PARAMS_VERSION, size, entry, len(memmap), len(modules), len(strings)
    )
    return params.PARAMS_HEADER.pack(header) + entries + records + bytes(strings)
