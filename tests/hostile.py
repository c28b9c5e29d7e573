"""A host that says what it likes, for the firmware under Unicorn: hypothesis draws what it says, and what comes of it is
judged.

Whatever fw_cfg holds, a firmware ends at the kernel's entry with all of it in order, or in a panic that has a name; it
writes nothing but what its manifest names, and RAM above 1 MiB where no kernel is; and it comes to an end.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import NamedTuple

from hypothesis import strategies as st
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.engines.base import Limits, Watcher
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.reasons import HALT
from pvhboot.emu.strategies import Contents, hostile_contents, setup_header
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi.firmware import panic_message
from pvhboot.shim.image import asm_source, build, panics_of
from pvhboot.shim.machines import MACHINES, MIB, UNIVERSAL, MachineSpec, Span
from stores import Stores

SPECS = ("microvm", "microvm-acpi", "pc", "q35")
MEMORY = 64 * MIB
KERNEL = 0x200000  # physical address
KERNEL_BYTES = 0x10000
INITRD_ADDR, INITRD_SIZE, CMDLINE_SIZE, CMDLINE_DATA, NB_CPUS = 0x0A, 0x0B, 0x14, 0x15, 0x05
KERNEL_ADDR, KERNEL_SIZE, KERNEL_ENTRY, KERNEL_DATA, SETUP_DATA = 0x07, 0x08, 0x10, 0x11, 0x18
FIRMWARE_END = 0x28000  # below it the firmware works
MANY, MAX_FILES = 300, 0x3FE0
SCRIPT, TABLES, RSDP = b"etc/table-loader", b"etc/acpi/tables", b"etc/acpi/rsdp"
ANCHOR, SMBIOS = b"etc/smbios/smbios-anchor", b"etc/smbios/smbios-tables"
LOCAL_APIC = range(0xFEE00000, 0xFEE01000)
# Each byte by port is an instruction; the longest of what is drawn here is a script with forty sums of 4 KiB.
BOUND = 1_000_000


class Host(NamedTuple):
    """`numbers` are items of 32 bits by key, `items` other ones; `files` by name, None where there is none; `sizes` and `names`
    are what the directory says of some instead of the truth, `count` how many there are; `fault` is what DMA transfer number
    `fault_at` does: "error", "never", or "" nothing. `kind` is "pvh" or "bzimage"."""

    machine: str
    universal: bool
    dma: bool
    kind: str
    numbers: Mapping[int, int]
    items: Mapping[int, bytes | None]
    files: Mapping[bytes, bytes | None]
    sizes: Mapping[bytes, int]
    names: Mapping[bytes, bytes]
    others: int
    count: int | None
    fault: str
    fault_at: int

    @classmethod
    def of(cls, machine: str, universal: bool, dma: bool, kind: str, contents: Contents, fault: str, fault_at: int) -> "Host":
        """With such a fw_cfg."""
        return cls(machine, universal, dma, kind, *contents, fault, fault_at)

    def contents(self) -> Contents:
        """What its fw_cfg holds."""
        numbers, items = dict(self.numbers), dict(self.items)
        if self.kind == "bzimage":
            numbers[KERNEL_ENTRY] = 0
            items = {SETUP_DATA: setup_header(), KERNEL_DATA: b"\xf4" * KERNEL_BYTES, **items}
        return Contents(numbers, items, self.files, self.sizes, self.names, self.others, self.count)


# What is drawn.


def hosts() -> st.SearchStrategy[Host]:
    """Most are wrong in one or two things only: those get far."""
    return st.builds(
        Host.of,
        machine=st.sampled_from(SPECS),
        universal=st.booleans(),
        dma=st.sampled_from((True, True, False)),
        kind=st.sampled_from(("pvh", "pvh", "bzimage")),
        contents=hostile_contents(MEMORY, Span("kernel", KERNEL, KERNEL + KERNEL_BYTES)),
        fault=st.sampled_from(("", "", "", "error", "never")),
        fault_at=st.integers(0, 20),
    ).map(_in_reason)


def _in_reason(host: Host) -> Host:
    """By port each byte is an instruction, and each look for a file among 16352 takes a million: too long to watch."""
    if host.dma:
        return host
    sizes = {key: KERNEL_BYTES for key in (KERNEL_SIZE, INITRD_SIZE) if KERNEL_BYTES < host.numbers.get(key, 0) <= MEMORY}
    absurd = host.count is not None and MANY < host.count <= MAX_FILES
    return host._replace(numbers={**host.numbers, **sizes}, count=MANY if absurd else host.count)


# What comes of it.


def impatient_roms() -> dict[str, bytes]:
    """The firmwares by name, with less patience for a host that does not answer."""
    patience = {"fw_cfg_read.s": "FW_CFG_DMA_POLLS", "cpus.s": "CPU_POLLS"}
    roms = {}
    for name in (*SPECS, UNIVERSAL.name):
        spec = MACHINES.get(name, UNIVERSAL)
        sources = {file: asm_source(file).replace(f"ecx, {word}", "ecx, 16") for file, word in patience.items()}
        if not spec.mp_table:
            del sources["cpus.s"]
        roms[name] = build(spec, sources=sources).data
    return roms


Run = Callable[[UnicornCpu, Board, int], bool]


def straight(cpu: UnicornCpu, _board: Board, target: int) -> bool:
    """The run: up to the kernel, or to what ends it before."""
    return cpu.run_to({target})


class Judge:
    """A plan for each machine, with one of these firmwares (by name)."""

    def __init__(self, kernel: Kernel, initrd: str, roms: Mapping[str, bytes]) -> None:
        self._roms, self._kernel, self._initrd = roms, kernel, initrd

    def plan(self, host: Host) -> tuple[BootPlan, MachineSpec]:
        """What an honest host would boot, and the machine that the firmware is for."""
        spec = MACHINES[host.machine]
        firmware = UNIVERSAL if host.universal else spec
        rom = self._roms[firmware.name]
        modules = [Module(self._initrd)]
        plan = make_plan(spec, rom, self._kernel, memory=MEMORY, modules=modules, cmdline="a b", dma=host.dma)
        return plan, firmware

    def require(self, host: Host, run: Run = straight, watchers: Sequence[Watcher] = ()) -> str:
        """Runs the firmware in such a host, as `run` does it; how it ended. AssertionError for what must not be."""
        plan, firmware = self.plan(host)
        board = Board(plan, fw_cfg_items=host.contents().fw_cfg_items(plan))
        machine = UnicornCpu(board, Limits(instructions=BOUND, seconds=120))
        writes = Stores()
        if host.fault and host.dma:
            _fail_transfer(board, host)
        target = int.from_bytes(_number(host, KERNEL_ADDR), "little") if host.kind == "bzimage" else plan.entry
        try:
            with ExitStack() as watching:
                for watcher in (writes, *watchers):
                    watching.enter_context(machine.watch(watcher.start(machine, board)))
                reached = run(machine, board, target)
            _require_writes(host, plan, firmware, writes)
            if not reached:
                return _require_panic(board, machine, firmware)
            if host.kind == "bzimage":
                return _require_linux(machine, board)
            return _require_boot(host, plan, machine)
        finally:
            machine.let_go()


def _number(host: Host, key: int) -> bytes:
    usual = {KERNEL_ADDR: KERNEL, KERNEL_SIZE: KERNEL_BYTES, CMDLINE_SIZE: 4, NB_CPUS: 1}
    return host.numbers.get(key, usual.get(key, 0)).to_bytes(4, "little")


def _fail_transfer(board: Board, host: Host) -> None:
    """DMA transfer number `fault_at` of this board's fw_cfg ends in an error, or never."""
    ports = board.bus._ports[0x514].device
    execute: Callable[[int], None] = ports._execute  # type: ignore[attr-defined]
    done = 0

    def faulty(paddr: int) -> None:
        nonlocal done
        done += 1
        if done - 1 != host.fault_at:
            execute(paddr)
        elif host.fault == "error":
            with board.memory.writing(paddr, 4) as word:
                word[:] = b"\0\0\0\1"

    ports._execute = faulty  # type: ignore[attr-defined]


def _require_writes(host: Host, plan: BootPlan, firmware: MachineSpec, writes: list[tuple[int, int]]) -> None:
    """Nothing but the firmware's own places, RAM above 1 MiB and the local APIC was written; and no kernel of which the host
    says where it is."""
    own = firmware.low.spans()
    kernel, kernel_size = (int.from_bytes(_number(host, key), "little") for key in (KERNEL_ADDR, KERNEL_SIZE))
    kernel_end = min(kernel + kernel_size, plan.ram[0].end)
    told = host.kind == "pvh" and not {KERNEL_ADDR, KERNEL_SIZE} & host.numbers.keys()
    for paddr, size in writes:
        if any(span.start <= paddr and paddr + size <= span.end for span in own) or paddr in LOCAL_APIC:
            continue
        if host.kind == "bzimage" and FIRMWARE_END <= kernel <= paddr and paddr + size <= kernel_end:
            continue  # a kernel may lie there, if the host says so
        assert paddr >= MIB, f"{size} bytes at {paddr:#x} were written, which is nobody's"
        assert paddr + size <= MEMORY, f"{size} bytes at {paddr:#x} were written, which is no RAM"
        if told:
            for segment in plan.kernel.segments:
                assert paddr + size <= segment.paddr or segment.end <= paddr, f"the kernel was written to at {paddr:#x}"


def _require_panic(board: Board, machine: UnicornCpu, firmware: MachineSpec) -> str:
    said = board.debug_console.decode()
    names = {panic_message(panic) + "\n": panic.name for panic in panics_of(firmware)}
    assert machine.stop is not None
    assert (machine.stop.reason, said in names) == (HALT, True), f"{machine.stop}: {said!r}"
    return names[said]


def _require_linux(machine: UnicornCpu, board: Board) -> str:
    registers = machine.registers()
    assert (registers["ebp"], registers["edi"], registers["ebx"]) == (0, 0, 0)
    params = board.memory.read(registers["esi"], 4096)
    assert params[0x202:0x206] == b"HdrS"
    count = params[0x1E8]
    entries = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * at) for at in range(count)]
    assert 1 <= count <= 128
    assert all(before[0] + before[1] <= after[0] for before, after in pairwise(entries))
    return "linux"


def _require_boot(host: Host, plan: BootPlan, machine: UnicornCpu) -> str:
    """What the host has not touched is as planned; all of it is in order in itself."""
    handoff = machine.handoff()._replace(host_acpi=False)
    findings = check(handoff, plan._replace(memmap=None))
    excused = set()
    if host.numbers or host.items or host.kind != "pvh":
        excused |= {"modules.list", "modules.entries", "cmdline", "memory.payload", "memory.disjoint"}
    if host.files or host.names or host.sizes or host.count is not None:
        excused |= {"memmap.ram", "memmap.entries", "memmap.count", "acpi.tables"}  # types that nobody knows, handed on
    if host.numbers.get(NB_CPUS, 1) > 1:
        excused |= {"memmap.ram"}
    wrong = [finding for finding in findings if finding.status == VIOLATED and finding.clause not in excused]
    assert not wrong, wrong
    return "boot"
