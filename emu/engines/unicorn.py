"""The engine that needs no /dev/kvm: Unicorn, from the true reset vector.

Exceptions go through the guest's IDT (unicorn_delivery.py); what cannot be delivered ends the run with a report of the first
one. What it does not do as hardware does: segment limits are not enforced on data accesses, unknown MSRs read as 0, and a write
to the ROM is dropped and recorded.
When a store to the chipset changes what lies below 1 MiB, the code that is translated there already (to the next jump, at most)
is executed as it was; under paging so is code over which a device has written.
Instructions are counted up to the handoff, each iteration of a rep as one.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NamedTuple

from pvhboot.loader.memory import Region
from pvhboot.shim.abi import interrupts, x86
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.errors import UnavailableError
from pvhboot.shim.machines import MachineSpec

from ..board import Board
from ..handoff import Handoff
from ..reasons import CONSOLE, FAULT, HALT, HANDOFF, LIMIT
from .base import Limits, Run, Stop, Until, halt_detail
from .unicorn_context import LiveContext, probe, read_context, write_reset_state
from .unicorn_exceptions import ADDRESS_BITS, Exceptions

_SLICE_MICROSECONDS: Final = 100_000  # between two looks at the clock, and at Ctrl-C, where no hook looks at them
_CLOCK_EVERY: Final = 4096  # instructions between two looks at the clock, where they are counted
_PHYSICAL_END: Final = 1 << ADDRESS_BITS

_GENERAL: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")


class _Piece(NamedTuple):
    """What is mapped in [start, end), physical addresses: memory, or the bus (None)."""

    start: int
    end: int
    memory: Region | None


class UnicornEngine:
    """Executes a Board under Unicorn."""

    name = "unicorn"

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:  # noqa: ARG002
        """Nothing."""
        return ()

    def run(self, board: Board, until: Until, limits: Limits, on_handoff: Callable[[Handoff], None]) -> Run:
        """See engines.base.Engine."""
        machine = UnicornMachine(board, limits)
        try:
            return machine.run(until, on_handoff)
        finally:
            machine.let_go()


class UnicornMachine:
    """One run: a CPU with the board's memory and bus around it. The stage check drives it step by step."""

    def __init__(self, board: Board, limits: Limits) -> None:
        try:
            import unicorn
        except ImportError:
            raise UnavailableError("the unicorn engine needs the package unicorn: pip install unicorn") from None
        import unicorn.x86_const as const

        self._unicorn, self._const = unicorn, const
        self._board, self._limits = board, limits
        self._deadline = time.monotonic() + limits.seconds
        self.stop: Stop | None = None
        self._instructions = 0
        self._counted: dict[str, int] = {}
        self._target: int | None = None
        self._reached = False
        self._resumed_at: int | None = None
        self.uc: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        probe(self.uc, unicorn.__version__)
        # No address ends a run: one that the guest has not mapped would disturb its exceptions.
        self.uc.ctl_exits_enabled(True)
        self.uc.ctl_set_exits([])
        self._mapped: set[_Piece] = set()
        self._map()
        self._exceptions = Exceptions(self.uc, board.memory, board.bus)
        self._hook()
        board.memory.listeners.append(self._on_host_write)
        board.memory.map_listeners.append(self._map)
        write_reset_state(self.uc)

    def run(self, until: Until, on_handoff: Callable[[Handoff], None]) -> Run:
        """From the reset vector to `until`, or to whatever ends it before."""
        if until.kind == CONSOLE:
            self._board.stop_at_console_text(until.text)
        if self.run_to(self._board.entry):
            self._counted["instructions"] = self._instructions
            on_handoff(self.handoff())
            if until.kind == HANDOFF:
                self.stop = Stop(HANDOFF, "", self._board.entry)
            elif self._limits.instructions is None:
                self._run_uncounted()
            else:
                self.run_to(None)
        assert self.stop is not None
        return Run(self.stop, self.registers(), self._counts())

    def let_go(self) -> None:
        """The board's memory may be used again: it does not tell this CPU any more of what is written to it."""
        self._board.memory.listeners.remove(self._on_host_write)
        self._board.memory.map_listeners.remove(self._map)

    def run_to(self, address: int | None) -> bool:
        """Runs, counting instructions, to the one at a linear address; False if something else ended the run."""
        self._target, self._reached = address, False
        # The hook sees the instruction that it starts at again when a run goes on: it has been counted then.
        self._resumed_at = self.linear_ip() if self._instructions else None
        hook = self.uc.hook_add(self._unicorn.UC_HOOK_CODE, self._on_instruction)
        self._start(0)
        self.uc.hook_del(hook)
        self.uc.ctl_flush_tb()
        if not self._reached and self.stop is None:
            self.stop = self._halted()
        return self._reached

    @contextmanager
    def watching_writes(self, seen: Callable[[int, int], None]) -> Iterator[None]:
        """While it lasts, `seen` gets the linear address and the size in bytes of each store."""

        def on_write(_uc: Any, _kind: int, address: int, size: int, _value: int, _data: Any) -> None:
            seen(address, size)

        hook = self.uc.hook_add(self._unicorn.UC_HOOK_MEM_WRITE, on_write)
        self.uc.ctl_flush_tb()
        try:
            yield
        finally:
            self.uc.hook_del(hook)

    def _run_uncounted(self) -> None:
        while self.stop is None:
            self._start(_SLICE_MICROSECONDS)
            if self.stop is None and not self.uc.query(self._unicorn.UC_QUERY_TIMEOUT):
                self.stop = self._halted()
            self._check_clock()

    def _start(self, microseconds: int) -> None:
        """Executes until a hook stops it, the slice is over (0: there is none), or the CPU halts or faults."""
        rip = self.uc.reg_read(self._const.UC_X86_REG_RIP)
        with _stopping_at_interrupt(self.uc):
            try:
                self.uc.emu_start(rip, 0, timeout=microseconds)
            except self._unicorn.UcError as error:
                if self.stop is None:
                    self.stop = self._fault(error)

    def _map(self) -> None:
        """RAM and ROM share the board's memory; every other physical address is the bus's. What is mapped as it has to be stays
        so: within a hook, where this may be called, the memory that the hook serves must not go away."""
        wanted, at = set(), 0
        for region in self._board.memory.regions:
            wanted |= {_Piece(at, region.span.start, None), _Piece(region.span.start, region.span.end, region)}
            at = region.span.end
        wanted = {piece for piece in (*wanted, _Piece(at, _PHYSICAL_END, None)) if piece.start < piece.end}
        for piece in self._mapped - wanted:
            self.uc.ctl_remove_cache(piece.start, piece.end)
            self.uc.mem_unmap(piece.start, piece.end - piece.start)
        for start, end, memory in wanted - self._mapped:
            if memory is None:
                self._map_bus(start, end)
            else:
                self.uc.mem_map_ptr(start, end - start, self._unicorn.UC_PROT_ALL, memory.host)
                if memory.readonly:  # told at once, it would report the stores and do them all the same
                    self.uc.mem_protect(start, end - start, self._unicorn.UC_PROT_READ | self._unicorn.UC_PROT_EXEC)
        self._mapped = wanted

    def _map_bus(self, start: int, end: int) -> None:
        bus = self._board.bus

        def read(_uc: Any, offset: int, size: int, _data: Any) -> int:
            value = bus.memory_read(start + offset, size)
            self._after_access()
            return value

        def write(_uc: Any, offset: int, size: int, value: int, _data: Any) -> None:
            bus.memory_write(start + offset, size, value)
            self._after_access()

        self.uc.mmio_map(start, end - start, read, None, write, None)

    def _hook(self) -> None:
        unicorn, const = self._unicorn, self._const
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._on_in, None, 1, 0, const.UC_X86_INS_IN)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._on_out, None, 1, 0, const.UC_X86_INS_OUT)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(unicorn.UC_HOOK_INSN_INVALID, self._on_invalid)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_WRITE_PROT, self._on_rom_write)

    def _on_instruction(self, uc: Any, address: int, _size: int, _data: Any) -> None:
        if address == self._target:
            self._reached = True
            uc.emu_stop()
            return
        if self._resumed_at is not None:
            again, self._resumed_at = address == self._resumed_at, None
            if again:
                return
        self._instructions += 1
        limit = self._limits.instructions
        if limit is not None and self._instructions > limit:
            self._end(Stop(LIMIT, self._limits.instructions_over, address))
        elif not self._instructions % _CLOCK_EVERY:
            self._check_clock()

    def _on_in(self, _uc: Any, port: int, size: int, _data: Any) -> int:
        value = self._board.bus.port_read(port, size)
        self._after_access()
        return value

    def _on_out(self, _uc: Any, port: int, size: int, value: int, _data: Any) -> None:
        self._board.bus.port_write(port, size, value & (1 << 8 * size) - 1)
        self._after_access()

    def _on_rom_write(self, _uc: Any, _kind: int, address: int, size: int, value: int, _data: Any) -> bool:
        self._board.bus.memory_write(address, size, value & (1 << 8 * size) - 1)
        self._after_access()
        return True

    def _on_host_write(self, paddr: int, size: int) -> None:
        """A device has written to memory: what was translated from there is no longer what lies there. Under paging Unicorn
        would take the address for a linear one, and where that is not mapped make a double fault of the next page fault."""
        if not LiveContext(self.uc).cr0 & x86.CR0_PG:
            self.uc.ctl_remove_cache(paddr, paddr + size)

    def _on_exception(self, _uc: Any, vector: int, _data: Any) -> None:
        if (stop := self._exceptions.take(vector)) is not None:
            self._end(stop)
        self._after_access()  # a frame may go to where no memory is
        self._check_clock()  # a handler that faults at once executes no instruction at which the clock would be looked at

    def _on_invalid(self, uc: Any, _data: Any) -> bool:
        """An instruction that Unicorn does not have; False: the run does not go on."""
        self._on_exception(uc, interrupts.UD, None)
        return self.stop is None

    def _after_access(self) -> None:
        board, limit = self._board, self._limits.exits
        if board.stop is not None:
            self._end(Stop(board.stop.reason, board.stop.detail, self.linear_ip(), board.stop.value))
        elif limit is not None and board.bus.accesses >= limit:
            self._end(Stop(LIMIT, self._limits.exits_over, self.linear_ip()))

    def _end(self, stop: Stop) -> None:
        if self.stop is None:
            self.stop = stop
        self.uc.emu_stop()

    def _check_clock(self) -> None:
        if self.stop is None and time.monotonic() > self._deadline:
            self._end(Stop(LIMIT, self._limits.seconds_over, self.linear_ip()))

    def _halted(self) -> Stop:
        return Stop(HALT, halt_detail(self.uc.reg_read(self._const.UC_X86_REG_EFLAGS)), self.linear_ip())

    def _fault(self, error: Any) -> Stop:
        unicorn = self._unicorn
        words = {
            unicorn.UC_ERR_FETCH_UNMAPPED: "execution where there is no memory",
            unicorn.UC_ERR_FETCH_PROT: "execution where there is no memory",
            unicorn.UC_ERR_EXCEPTION: "an exception",
        }
        return Stop(FAULT, words.get(error.errno, str(error)), self.linear_ip())

    def linear_ip(self) -> int:
        """The linear address of the next instruction."""
        return LiveContext(self.uc).linear_ip

    def registers(self) -> dict[str, int]:
        """As Handoff.registers has them; in 64-bit mode the values are those of the full registers."""
        const, read = self._const, self.uc.reg_read
        context = read_context(self.uc)
        general = {"e" + name: read(getattr(const, f"UC_X86_REG_R{name.upper()}")) for name in _GENERAL}
        return {
            **general,
            "eip": read(const.UC_X86_REG_RIP),
            "eflags": read(const.UC_X86_REG_EFLAGS),
            "cr0": context.cr[0],
            "cr3": context.cr[3],
            "cr4": context.cr[4],
            "efer": read(const.UC_X86_REG_MSR, x86.MSR_EFER),
            "gdtr_base": context.gdtr_base,
            "gdtr_limit": context.gdtr_limit,
        }

    def mark_registers(self, values: Mapping[str, int]) -> None:
        """Sets general registers (eax …), and every arithmetic flag."""
        const = self._const
        for name, value in values.items():
            self.uc.reg_write(getattr(const, f"UC_X86_REG_{name.upper()}"), value)
        self.uc.reg_write(const.UC_X86_REG_EFLAGS, self.uc.reg_read(const.UC_X86_REG_EFLAGS) | x86.EFLAGS_ARITHMETIC)

    def hidden_state(self) -> dict[str, object]:
        """What a well-behaved piece of firmware leaves alone: segments, IDTR, debug registers, memory types, FPU."""
        const, read = self._const, self.uc.reg_read
        context = read_context(self.uc)
        return {
            **{
                f"segment register {name}": segment
                for name, segment in context.segments.items()
                if name not in ("gdtr", "idtr")
            },
            "IDTR": (context.idtr_base, context.idtr_limit),
            **{f"debug register {n}": read(getattr(const, f"UC_X86_REG_DR{n}")) for n in (0, 1, 2, 3, 6, 7)},
            **{f"MSR {name}": read(const.UC_X86_REG_MSR, number) for name, number in x86.KEPT_MSRS.items()},
            "the FPU": tuple(read(getattr(const, f"UC_X86_REG_FP{name}")) for name in ("CW", "SW", "TAG")),
            "CR2": read(const.UC_X86_REG_CR2),
            "an SSE register": tuple(read(getattr(const, f"UC_X86_REG_XMM{n}")) for n in range(8)),
        }

    def handoff(self) -> Handoff:
        """What the check looks at."""
        segments = read_context(self.uc).segments
        return Handoff(
            engine=UnicornEngine.name,
            registers=self.registers(),
            segments={name: segments[name] for name in (*x86.SEGMENT_NAMES, "tr")},
            has_mtrr=_has_mtrr(),
            mtrr_def_type=self.uc.reg_read(self._const.UC_X86_REG_MSR, x86.MSR_MTRR_DEF_TYPE),
            memory=self._board.memory,
            rom_writes=self._board.rom_writes,
            counts=self._counts(),
            host_acpi=self._board.host_acpi,
        )

    def _counts(self) -> dict[str, int]:
        delivered = {"exceptions": self._exceptions.delivered} if self._exceptions.delivered else {}
        return {**self._counted, **delivered, **self._board.bus.counts}


@contextmanager
def _stopping_at_interrupt(uc: Any) -> Iterator[None]:
    """Ctrl-C stops the engine, and is raised behind it: raised in a hook, ctypes would print it and go on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    interrupted: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        interrupted.append(number)
        uc.emu_stop()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


@cache
def _has_mtrr() -> bool:
    """What CPUID says under Unicorn, asked on a CPU of its own."""
    import unicorn
    import unicorn.x86_const as const

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0, x86.PAGE_SIZE)
    cpuid = b"\x0f\xa2"
    uc.mem_write(0, cpuid)
    uc.reg_write(const.UC_X86_REG_RAX, x86.CPUID_FEATURES_LEAF)
    uc.emu_start(0, len(cpuid))
    return bool(uc.reg_read(const.UC_X86_REG_RDX) & x86.CPUID_1_EDX_MTRR)
