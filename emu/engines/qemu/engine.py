"""The engine that has QEMU run a boot, as anybody's command line would: `-bios`, and on all machines but `bare` `-kernel`.

QEMU brings its own memory and devices, of which this engine sees what a monitor and a debugger see: it counts neither
instructions nor accesses, POST codes are lost, and MTRRs cannot be read. Of what the guest writes to the debug-exit port it
sees one byte, and the guest goes on for the moment until it is stopped. The machine is QEMU's microvm (acpi=off, one CPU) for
`bare` too. A triple fault is told from a reset by TCG only.
"""

import selectors
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.pam import SHADOW_END, SHADOW_START
from pvhboot.shim.abi.pvh import MEMMAP_TYPE_RESERVED
from pvhboot.shim.abi.x86 import INSTRUCTION_MAX
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MachineSpec, Span, low_rom_span, rom_span

from ...board import Board
from ...gdb.packets import SIGABRT, SIGTRAP
from ...handoff import Handoff
from ...kept import keep_printed
from ...reasons import CONSOLE, EXIT, FAULT, HALT, HANDOFF, LIMIT, RESET
from ..base import Cpu, Limits, Run, Stop, Until, Watcher, halt_detail
from ..names import ACCELERATORS, KVM, QEMU, TCG
from .command import command_line
from .gdb import Gdb, GdbGone
from .memory import QemuMemory
from .process import DAEMONIZE, QemuProcess, patience
from .qmp import Qmp, QmpGone
from .recorder import reserved_by_host
from .state import CpuState, parse_bytes, parse_registers
from .tracing import EVENTS, Trace, parse_trace, qtest_listener, trace_arguments

# What QEMU's KVM keeps for itself (identity map and TSS): QEMU target/i386/kvm/kvm.c.
_KVM_RESERVED: Final = E820Entry(0xFEFFC000, 0x4000, MEMMAP_TYPE_RESERVED)
_LOOK: Final = 0.2  # seconds between two looks at whether the CPU sleeps for ever


class QemuEngine:
    """Has QEMU execute a plan, under the accelerator `tcg` or `kvm`. `extra` are further arguments for its command line. With
    `tracing`, `trace` is what it has seen of the accesses to devices, once a run has reached the handoff."""

    name = QEMU

    def __init__(self, accelerator: str = TCG, extra: Sequence[str] = (), *, tracing: bool = False) -> None:
        """Raises BootError for an accelerator that it does not know."""
        if accelerator not in ACCELERATORS:
            raise BootError(f"no accelerator named {accelerator!r}; there is: {', '.join(ACCELERATORS)}")
        self._accelerator = accelerator
        self._extra = tuple(extra)
        self._tracing = tracing
        self.trace: Trace | None = None

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:
        """See Engine. A PC's depends on the processor that QEMU models, so that it is asked."""
        if spec.chipset is not None:
            self._check_arguments()
            return reserved_by_host(spec, memory, self._accelerator, self._extra)
        return (_KVM_RESERVED,) if self._accelerator == KVM else ()

    def cpu(self, board: Board, limits: Limits) -> AbstractContextManager[Cpu]:  # noqa: ARG002
        """See Engine: QEMU's CPU is its own."""
        raise BootError("the qemu engine cannot be driven step by step: use --engine unicorn, or QEMU's own -gdb")

    def run(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        watchers: Sequence[Watcher] = (),
    ) -> Run:
        """See Engine. Raises BootError, with QEMU's own words, if QEMU cannot start."""
        if watchers:
            raise BootError("the qemu engine does not see single instructions: use --engine unicorn")
        if not board.is_stock:
            raise BootError("the qemu engine brings memory and devices of its own: it cannot run a board that was changed")
        if limits.instructions is not None or limits.exits is not None:
            raise BootError("the qemu engine counts neither instructions nor accesses: use --timeout")
        self._check_arguments()
        if until.kind == CONSOLE:
            board.stop_at_console_text(until.text)
        if self._tracing:
            return self._run_traced(board, until, limits, on_handoff)
        with QemuProcess(partial(command_line, board.plan, self._accelerator), self._extra) as process:
            return _Session(board, until, limits, on_handoff, process, False).run()

    def _run_traced(self, board: Board, until: Until, limits: Limits, on_handoff: Callable[[Handoff], None]) -> Run:
        self.trace = None
        tracing = trace_arguments(self._accelerator)
        with (
            qtest_listener() as qtest,
            QemuProcess(
                partial(command_line, board.plan, self._accelerator), (*self._extra, *tracing, *qtest.arguments)
            ) as process,
        ):

            def at_handoff(handoff: Handoff) -> None:
                has_dma = board.plan.spec.source == FW_CFG and board.plan.dma
                accesses = tuple(parse_trace(process.log()))
                self.trace = Trace(accesses, qtest.read_items(process) if has_dma else {})
                on_handoff(handoff)

            return _Session(board, until, limits, at_handoff, process, True).run()

    def _check_arguments(self) -> None:
        if DAEMONIZE in self._extra:
            raise BootError(f"{DAEMONIZE}: the qemu engine would lose sight of a QEMU in the background")


class _Session:
    """One run: QEMU's process, and what it says through its channels."""

    def __init__(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        process: QemuProcess,
        tracing: bool,
    ) -> None:
        self._board = board
        self._until = until
        self._limits = limits
        self._on_handoff = on_handoff
        self._process = process
        self._tracing = tracing
        self._deadline = time.monotonic() + limits.seconds
        self._qmp = Qmp(process.sockets["qmp"])
        self._gdb = Gdb(process.sockets["gdb"])
        plan = board.plan
        rom, low_rom = rom_span(len(plan.rom)), low_rom_span(plan.spec, len(plan.rom))
        if plan.spec.chipset is not None:
            low_rom = Span("ROM or RAM", SHADOW_START, SHADOW_END)
        spans = [*plan.ram, rom, *([low_rom] if low_rom else [])]
        self._memory = QemuMemory(self._qmp, spans, process.directory)
        self._handlers: dict[Any, Callable[[], Stop | None]] = {
            process.pipes["console"]: self._console,
            process.pipes["debug"]: self._debug_console,
            process.pipes["exit"]: self._exit,
            process.sockets["qmp"]: self._qmp.receive,
            process.sockets["gdb"]: self._stopped,
        }
        for connection in process.sockets.values():
            connection.settimeout(patience(limits.seconds))

    def run(self) -> Run:
        try:
            self._qmp.negotiate()
            self._gdb.break_at(self._board.entry, True)
            self._gdb.resume()
        except (QmpGone, GdbGone):
            raise BootError(f"QEMU does not start: {self._process.last_words()}") from None
        except TimeoutError:
            raise BootError(
                f"QEMU does not start: it has not answered for {patience(self._limits.seconds):g} seconds"
            ) from None
        try:
            return self._ended_with(self._until_stop())
        except (QmpGone, GdbGone):
            self._drain()
            return Run(Stop(FAULT, f"QEMU has gone: {self._process.last_words()}", None), {}, {})
        except TimeoutError:
            return Run(Stop(LIMIT, f"{self._limits.seconds_over}, and QEMU does not answer", None), {}, {})

    def _ended_with(self, stop: Stop) -> Run:
        """Takes what is in the pipes still: the text that was waited for may be in what the guest has printed, and one that has
        left goes on, so that it may have been seen halted, or reset, before its word was read."""
        self._qmp.command("stop")
        cpu = self._cpu()
        if self._drain():
            request = self._board.stop
            assert request is not None
            stop = Stop(request.reason, request.detail, stop.rip)
        elif self._board.stop is None:
            stop = self._left(stop.rip) or stop
        code = b"" if stop.rip is None else parse_bytes(self._qmp.monitor(f"x/{INSTRUCTION_MAX}xb {stop.rip:#x}"))
        return Run(stop, dict(cpu.registers), {}, cpu.segments, cpu.bits, code)

    def _until_stop(self) -> Stop:
        with selectors.DefaultSelector() as selector:
            for channel in self._handlers:
                selector.register(channel, selectors.EVENT_READ)
            look_at = time.monotonic() + _LOOK
            while True:
                for key, _ in selector.select(_LOOK):
                    if stop := self._handlers[key.fileobj]():
                        return stop
                if stop := self._events():  # also those that came while an answer was awaited
                    return stop
                now = time.monotonic()
                if now >= look_at:
                    look_at = now + _LOOK
                    if (request := self._board.stop) is not None:
                        return Stop(request.reason, request.detail, self._cpu().linear_ip)
                    if (cpu := self._cpu()).dead:
                        return Stop(HALT, halt_detail(cpu.registers["eflags"]), cpu.linear_ip)
                if now >= self._deadline:
                    return Stop(LIMIT, self._limits.seconds_over, self._cpu().linear_ip)

    def _cpu(self) -> CpuState:
        return parse_registers(self._qmp.monitor("info registers"))

    def _console(self) -> Stop | None:
        if self._print(self._process.receive("console")):
            request = self._board.stop
            assert request is not None
            return Stop(request.reason, request.detail, self._cpu().linear_ip)
        return None

    def _print(self, data: bytes) -> bool:
        """Whether the board asks for a stop at one of these bytes; those behind it are dropped."""
        for byte in data:
            self._board.print_byte(byte)
            if self._board.stop is not None:
                return True
        return False

    def _debug_console(self) -> None:
        self._debug(self._process.receive("debug"))

    def _debug(self, data: bytes) -> None:
        self._board.debug_console += data
        keep_printed(self._board.debug_console)

    def _exit(self) -> Stop | None:
        return self._left(self._cpu().linear_ip)

    def _left(self, rip: int | None) -> Stop | None:
        """How the guest has left, if it has; it is now at `rip`."""
        data = self._process.receive("exit")
        return Stop(EXIT, f"the guest left with {data[0]}", rip, data[0]) if data else None

    def _drain(self) -> bool:
        """What is in the pipes still; whether the board asks for a stop by it."""
        while data := self._process.receive("debug"):
            self._debug(data)
        if self._board.stop is not None:
            return False  # it has been told already
        while data := self._process.receive("console"):
            if self._print(data):
                return True
        return False

    def _events(self) -> Stop | None:
        while self._qmp.events:
            event = self._qmp.events.popleft()
            if event["event"] == "SHUTDOWN":
                return self._shutdown(event["data"])
        return None

    def _shutdown(self, data: dict[str, Any]) -> Stop:
        place = self._cpu().linear_ip
        if self._process.has_logged("Triple fault"):
            return Stop(FAULT, "triple fault", place)
        if data["reason"] == "guest-reset":
            return Stop(RESET, "the guest was reset, by a port or by a triple fault", place)
        return Stop(EXIT, f"the machine was turned off ({data['reason']})", place, 0)

    def _stopped(self) -> Stop | None:
        signal = self._gdb.stop_signal()
        if signal == SIGABRT:
            why = self._process.complaint()
            return Stop(FAULT, f"QEMU cannot go on{': ' + why if why else ''}", self._cpu().linear_ip)
        if signal != SIGTRAP:
            return None  # paused for another reason, of which an event tells
        cpu = self._cpu()
        if cpu.linear_ip != self._board.entry:
            return Stop(FAULT, f"a debug exception at {cpu.linear_ip:#x}", cpu.linear_ip)
        self._on_handoff(self._handoff(cpu))
        if self._until.kind == HANDOFF:
            return Stop(HANDOFF, "", cpu.linear_ip)
        self._memory.forget()
        if self._tracing:
            for event in EVENTS:
                self._qmp.command("trace-event-set-state", name=event, enable=False)
        self._gdb.break_at(self._board.entry, False)
        self._gdb.resume()
        return None

    def _handoff(self, cpu: CpuState) -> Handoff:
        return Handoff(
            engine=QemuEngine.name,
            registers=cpu.registers,
            segments=cpu.segments,
            has_mtrr=None,
            mtrr_def_type=None,
            memory=self._memory,
            rom_writes=(),
            counts={},
            host_appends=self._board.plan.source == FW_CFG,
            host_acpi=self._board.plan.spec.acpi,
        )
