"""The engine that executes a Board on real KVM.

What it cannot see: it counts no instructions, and the stores to RAM go unseen. Where the host's KVM emulates instead of
executing (real mode on old Intel processors, ring 0 under a software KVM), an instruction that its emulator lacks ends the
run as a fault that names the bytes. AMD's hardware clears the processor at a triple fault: then the run says that the
place is unknown. The breakpoint compares linear addresses, so paging that moves the entry would hide it.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.x86 import (
    ADDRESS_4G,
    CPUID_1_EDX_MTRR,
    CPUID_FEATURES_LEAF,
    MSR_MTRR_DEF_TYPE,
    PAGE_SIZE,
    RESET_VECTOR,
    SEGMENT_NAMES,
)
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MachineSpec

from ...board import Board
from ...handoff import Handoff
from ...reasons import CONSOLE, FAULT, HALT, HANDOFF, LIMIT, RESET
from ..base import Limits, Run, Stop, Until, halt_detail
from . import uapi
from .vm import Vcpu, Vm, segment

TICK: Final = 0.1  # seconds; how late a limit of time may take effect
_INSTRUCTION_MAX: Final = 15  # bytes
_SEGMENTS: Final = (*SEGMENT_NAMES, "tr")
_GENERAL: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")
_CONTROL: Final = ("cr0", "cr3", "cr4", "efer")


class KvmEngine:
    """Executes a Board on /dev/kvm. Register names are those of Handoff also in 64-bit mode: `eax` then holds RAX."""

    name = "kvm"

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:  # noqa: ARG002
        """Nothing."""
        return ()

    def run(self, board: Board, until: Until, limits: Limits, on_handoff: Callable[[Handoff], None]) -> Run:
        """See Engine. Only in the main thread, whose SIGALRM and real-time timer it borrows."""
        if limits.instructions is not None:
            raise BootError("the kvm engine cannot count instructions: use --max-exits or --timeout")
        if threading.current_thread() is not threading.main_thread():
            raise BootError("the kvm engine runs in the main thread only: elsewhere no signal can end an endless loop")
        if until.kind == CONSOLE:
            board.stop_at_console_text(until.text)
        with Vm(board.memory) as vm, vm.vcpu() as vcpu, _ticks():
            return _Session(board, until, limits, on_handoff, vcpu).run()


@contextmanager
def _ticks() -> Iterator[None]:
    """A signal every TICK seconds that does nothing but bring KVM_RUN back. Handler and timer are restored at the end."""
    started = time.monotonic()
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        signal.signal(signal.SIGALRM, lambda _number, _frame: None)
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if delay:  # what would have been due meanwhile is due at once
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 0.001), interval)


class _Session:
    """One run: the board, the vCPU that executes it, and what has been counted."""

    def __init__(self, board: Board, until: Until, limits: Limits, on_handoff: Callable[[Handoff], None], vcpu: Vcpu) -> None:
        self._board = board
        self._until = until
        self._limits = limits
        self._on_handoff = on_handoff
        self._vcpu = vcpu
        self._exits = 0
        self._deadline = time.monotonic() + limits.seconds

    def run(self) -> Run:
        self._vcpu.break_at(self._board.entry)
        while (stop := self._turn()) is None:
            pass
        return Run(stop, self._registers(), self._counts())

    def _turn(self) -> Stop | None:
        """One exit of the guest, served; the Stop if it is the last."""
        if time.monotonic() >= self._deadline:
            return self._stop(LIMIT, self._limits.seconds_over)
        try:
            run = self._vcpu.run()
        except InterruptedError:
            return None
        except OSError as error:
            return self._stop(FAULT, f"KVM does not go on: {error.strerror}{self._instruction()}")
        self._exits += 1
        reason = run.exit_reason
        if reason == uapi.KVM_EXIT_IO:
            return self._io(run.exit.io)
        if reason == uapi.KVM_EXIT_MMIO:
            return self._mmio(run.exit.mmio)
        if reason == uapi.KVM_EXIT_DEBUG:
            return self._entry(run.exit.debug.pc)
        if reason == uapi.KVM_EXIT_HLT:
            return self._halt()
        if reason in (uapi.KVM_EXIT_INTR, uapi.KVM_EXIT_IRQ_WINDOW_OPEN, uapi.KVM_EXIT_SET_TPR):
            return None
        return self._failure(reason, run.exit)

    def _io(self, io: uapi.ExitIo) -> Stop | None:
        bus, vcpu, size = self._board.bus, self._vcpu, io.size
        for at in range(io.data_offset, io.data_offset + io.count * size, size):
            if io.direction == uapi.KVM_EXIT_IO_OUT:
                bus.port_write(io.port, size, vcpu.io_data(at, size))
            else:
                vcpu.set_io_data(at, size, bus.port_read(io.port, size))
            if stop := self._after_access():
                return stop
        return None

    def _mmio(self, mmio: uapi.ExitMmio) -> Stop | None:
        bus, size = self._board.bus, mmio.len
        if mmio.is_write:
            bus.memory_write(mmio.phys_addr, size, int.from_bytes(bytes(mmio.data)[:size], "little"))
        else:
            self._vcpu.set_mmio_data(size, bus.memory_read(mmio.phys_addr, size))
        return self._after_access()

    def _after_access(self) -> Stop | None:
        if request := self._board.stop:
            return self._stop(request.reason, request.detail, request.value)
        limit = self._limits.exits
        if limit is not None and self._board.bus.accesses >= limit:
            return self._stop(LIMIT, self._limits.exits_over)
        return None

    def _entry(self, pc: int) -> Stop | None:
        if pc != self._board.entry:
            return self._stop(FAULT, f"a debug exception at {pc:#x}")
        self._on_handoff(self._handoff())
        if self._until.kind == HANDOFF:
            return self._stop(HANDOFF, "")
        self._vcpu.break_at(None)
        return None

    def _halt(self) -> Stop:
        return self._stop(HALT, halt_detail(self._vcpu.regs().rflags))

    def _failure(self, reason: int, exit: uapi.ExitUnion) -> Stop:
        """Every exit after which there is no going on."""
        if reason == uapi.KVM_EXIT_SHUTDOWN:
            if self._linear_ip() == RESET_VECTOR:
                return self._stop(FAULT, "triple fault; where is unknown, as this host has reset the vCPU already")
            return self._stop(FAULT, f"triple fault{self._instruction()}")
        if reason == uapi.KVM_EXIT_INTERNAL_ERROR:
            return self._stop(FAULT, self._internal_error(exit))
        if reason == uapi.KVM_EXIT_FAIL_ENTRY:
            why = exit.fail_entry.hardware_reason
            return self._stop(FAULT, f"the processor refuses to enter the guest, hardware reason {why:#x}")
        if reason == uapi.KVM_EXIT_UNKNOWN:
            return self._stop(FAULT, f"an exit unknown to KVM, hardware reason {exit.hw.hardware_reason:#x}")
        if reason == uapi.KVM_EXIT_SYSTEM_EVENT:
            kind = exit.system_event.type
            if kind == uapi.KVM_SYSTEM_EVENT_RESET:
                return self._stop(RESET, "the guest asked KVM for a reset")
            return self._stop(FAULT, f"KVM system event {kind}")
        return self._stop(FAULT, f"KVM exit reason {reason}, which this engine has not asked for")

    def _internal_error(self, exit: uapi.ExitUnion) -> str:
        suberror, words = exit.internal.suberror, exit.internal.data[: min(exit.internal.ndata, 16)]
        if suberror == uapi.KVM_INTERNAL_ERROR_EMULATION:
            failure, code = exit.emulation_failure, b""
            # The flags are the first word, the length and the bytes of the instruction the next two.
            if len(words) >= 3 and failure.flags & uapi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
                code = bytes(failure.insn_bytes)[: failure.insn_size]
            return f"KVM cannot emulate an instruction (internal error, suberror 1){self._instruction(code)}"
        data = " ".join(f"{word:#x}" for word in words) or "none"
        return f"KVM internal error, suberror {suberror}, data {data}{self._instruction()}"

    def _instruction(self, code: bytes = b"") -> str:
        """The place of the next instruction and the bytes there as the end of a phrase; `code` if KVM has told them."""
        linear = self._linear_ip()
        code = code or self._code_at(linear)
        return f" at {linear:#x}" + (f", bytes {code.hex(' ')}" if code else "")

    def _code_at(self, linear: int) -> bytes:
        """Up to 15 bytes, to the end of the page at most; none where no memory is."""
        size = min(_INSTRUCTION_MAX, PAGE_SIZE - linear % PAGE_SIZE)
        try:
            paddr = self._vcpu.translate(linear)
            return b"" if paddr is None else self._board.memory.read(paddr, size)
        except BootError:
            return b""

    def _linear_ip(self) -> int:
        cs, rip = self._vcpu.sregs().cs, int(self._vcpu.regs().rip)
        return rip if cs.l else (cs.base + rip) % ADDRESS_4G

    def _stop(self, reason: str, detail: str, value: int | None = None) -> Stop:
        self._vcpu.complete()
        return Stop(reason, detail, self._linear_ip(), value)

    def _registers(self) -> dict[str, int]:
        regs, sregs = self._vcpu.regs(), self._vcpu.sregs()
        values: dict[str, int] = {f"e{name}": getattr(regs, f"r{name}") for name in _GENERAL}
        values |= {"eip": regs.rip, "eflags": regs.rflags}
        values |= {name: getattr(sregs, name) for name in _CONTROL}
        return values | {"gdtr_base": sregs.gdt.base, "gdtr_limit": sregs.gdt.limit}

    def _counts(self) -> dict[str, int]:
        return dict(self._board.bus.counts) | {"kvm_exits": self._exits}

    def _handoff(self) -> Handoff:
        sregs = self._vcpu.sregs()
        features = self._vcpu.cpuid_leaf(CPUID_FEATURES_LEAF)
        return Handoff(
            engine=KvmEngine.name,
            registers=self._registers(),
            segments={name: segment(getattr(sregs, name)) for name in _SEGMENTS},
            has_mtrr=None if features is None else bool(features.edx & CPUID_1_EDX_MTRR),
            mtrr_def_type=self._vcpu.msr(MSR_MTRR_DEF_TYPE),
            memory=self._board.memory,
            rom_writes=self._board.rom_writes,
            counts=self._counts(),
            host_acpi=self._board.host_acpi,
        )
