"""A CPU on KVM, with a board around it."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from math import inf
from typing import Final

from pvhboot.shim.abi import paging
from pvhboot.shim.abi.x86 import (
    ADDRESS_4G,
    CPUID_1_EDX_MTRR,
    CPUID_FEATURES_LEAF,
    CR0_PG,
    EFLAGS_IF,
    HLT,
    MSR_MTRR_DEF_TYPE,
    SEGMENT_NAMES,
    Segment,
)
from pvhboot.shim.errors import BootError

from ...board import Board
from ...handoff import Handoff
from ...reasons import FAULT, HALT, LIMIT
from ..base import ENCODED, GENERAL, GENERAL_64, STATE_SEGMENTS, Limits, State, Stop, Watch, code_at, halt_detail
from ..names import KVM
from . import uapi
from .device import Ioctls
from .ticks import ticker, ticking
from .vcpu import BREAKPOINTS, Vcpu, segment

_SEGMENTS: Final = (*SEGMENT_NAMES, "tr")
_WRITABLE: Final = {
    **{name: f"r{name[1:]}" for name in (*GENERAL, "eip", "eflags")},
    **{name: name for name in GENERAL_64},
}
_CONTROL: Final = ("cr0", "cr3", "cr4", "efer")
_STATE_GENERAL: Final = tuple(_WRITABLE[name] for name in (*ENCODED, *GENERAL_64))  # as in STATE_REGISTERS
_EXITS: Final = {
    uapi.KVM_EXIT_IO: "io",
    uapi.KVM_EXIT_MMIO: "mmio",
    uapi.KVM_EXIT_HLT: "hlt",
    uapi.KVM_EXIT_DEBUG: "debug",
}
_STATE_SEGMENTS: Final = tuple("ldt" if name == "ldtr" else name for name in STATE_SEGMENTS)


def _bits(code_segment: uapi.KvmSegment) -> int:
    return 64 if code_segment.l else 32 if code_segment.db else 16


class KvmCpu:
    """One run: see Cpu."""

    sees_memory = False

    def __init__(self, board: Board, limits: Limits, vcpu: Vcpu, ioctls: Ioctls) -> None:
        self._board = board
        self.limits = limits
        self._vcpu = vcpu
        self._ioctls = ioctls
        self.stop: Stop | None = None
        self.instructions = 0
        self._watches: tuple[Watch, ...] = ()
        self._exits: dict[int, int] = {}  # by KVM's reason
        self._interrupted = 0
        self._debugged = self._pausing = False
        self._seconds_left, self._deadline = limits.seconds, 0.0

    def run_to(self, places: Collection[int] | Callable[[int], bool], *, counting: bool = True) -> bool:  # noqa: ARG002
        """See Cpu. At up to four places the processor's own breakpoints wait for it; else it is made step by step."""
        if self.stop is not None:
            return False
        with self._running():
            if callable(places):
                return self._step_to(places)
            wanted = frozenset(places)
            if self._watches or len(wanted) > BREAKPOINTS:
                return self._step_to(wanted.__contains__)
            if self.linear_ip() in wanted and not self._step():
                return False
            return self.linear_ip() in wanted or self._run_to(wanted)

    def step(self) -> bool:
        """See Cpu."""
        if self.stop is not None:
            return False
        with self._running():
            return self._step()

    def pause(self) -> None:
        """See Cpu."""
        self._pausing = True

    def end(self, stop: Stop) -> None:
        """See Cpu."""
        if self.stop is None:
            self.stop = stop

    @contextmanager
    def watch(self, watch: Watch) -> Iterator[None]:
        """See Cpu."""
        if watch.load is not None or watch.store is not None:
            raise BootError("the kvm engine does not see what a guest reads and writes: use --engine unicorn")
        listeners = self._board.memory.listeners
        if watch.instruction is not None:
            self._watches = (*self._watches, watch)
        if watch.device_store is not None:
            listeners.append(watch.device_store)
        try:
            yield
            if watch.over is not None:
                watch.over()
        finally:
            self._watches = tuple(other for other in self._watches if other is not watch)
            if watch.device_store is not None:
                listeners.remove(watch.device_store)

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._pausing = False
        self._deadline = self._board.deadline = time.monotonic() + self._seconds_left
        try:
            with ticking(), nullcontext() if self._board.input is None else self._board.input.waking(self._waker()):
                yield
        finally:
            self._seconds_left = self._deadline - time.monotonic()
            self._board.deadline = inf

    def _waker(self) -> Callable[[], None]:
        """What has KVM_RUN return, or not begin, called in another thread."""
        tick = ticker()

        def wake() -> None:
            self._vcpu.interrupt()
            tick()

        return wake

    def _run_to(self, places: frozenset[int]) -> bool:
        self._vcpu.debug(places)
        self._debugged = False
        while self.stop is None and not self._pausing:
            self._turn()
            if self._debugged:
                if (at := self.linear_ip()) in places:
                    return True
                self.end(self._stopped(FAULT, f"a debug exception at {at:#x}"))
        while self.stop is None and self._vcpu.incomplete:  # paused at an access, whose instruction is to be over
            self._turn(completing=True)
        return False

    def _step_to(self, is_place: Callable[[int], bool]) -> bool:
        while self._step():
            if is_place(self.linear_ip()):
                return True
            if self._pausing:
                break
        return False

    def _step(self) -> bool:
        """One instruction; False if that has ended the run."""
        at = self.linear_ip()
        for watch in self._watches:
            if watch.instruction is not None and watch.tells(at):
                watch.instruction(at, 0)
        self.instructions += 1
        # Stepped over, a hlt would be no exit (of this KVM of software), and what is behind it would be executed: right only
        # where an interrupt can end it.
        can_wake = self._board.interrupts is not None and bool(self._vcpu.regs().rflags & EFLAGS_IF)
        stepping = can_wake or code_at(self, self._board.memory, at)[:1] != HLT
        self._vcpu.debug((), stepping=stepping)
        self._debugged = False
        while self.stop is None and not self._debugged:
            self._turn()
            if self.stop is None and self._vcpu.incomplete:
                # Left to KVM_RUN, the next instruction would be executed before the step is told. A second access of the
                # same instruction comes as an exit, all else as an interrupted call.
                self._turn(completing=True)
        return self.stop is None

    def _turn(self, *, completing: bool = False) -> None:
        """Executes to the next exit of the guest, and serves it. `completing`: no more than what is left of an instruction
        whose access has been served, and then that is a step."""
        if (stop := self._served(completing)) is not None:
            self.end(stop)

    def _served(self, completing: bool) -> Stop | None:
        if time.monotonic() >= self._deadline:
            return self._stopped(LIMIT, self.limits.seconds_over)
        try:
            run = self._vcpu.run(completing)
        except InterruptedError:
            if not completing:
                return self._after_interruption()
            self._debugged = True
            return None
        except OSError as error:
            return self._stopped(FAULT, f"KVM does not go on: {error.strerror}{self._instruction()}")
        reason = run.exit_reason
        self._exits[reason] = self._exits.get(reason, 0) + 1
        if reason == uapi.KVM_EXIT_IO:
            return self._io(run.exit.io)
        if reason == uapi.KVM_EXIT_MMIO:
            return self._mmio(run.exit.mmio)
        if reason == uapi.KVM_EXIT_DEBUG:
            self._debugged = True
            return None
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

    def _after_interruption(self) -> Stop | None:
        """A tick, or somebody has pressed a key."""
        self._interrupted += 1
        board = self._board
        if board.input is not None:
            board.input.poll(0)
        if board.interrupts is not None:
            board.clock.run_due()  # the real-time clock's: the others are KVM's own
        if request := board.stop:
            return self._stopped(request.reason, request.detail, request.value)
        if board.interrupts is not None and not self._vcpu.regs().rflags & EFLAGS_IF and self._vcpu.halted:
            return self._halt()
        return None

    def _after_access(self) -> Stop | None:
        if request := self._board.stop:
            return self._stopped(request.reason, request.detail, request.value)
        limit = self.limits.exits
        if limit is not None and self._board.bus.accesses >= limit:
            return self._stopped(LIMIT, self.limits.exits_over)
        return None

    def _halt(self) -> Stop:
        return self._stopped(HALT, halt_detail(self._vcpu.regs().rflags))

    def _failure(self, reason: int, exit: uapi.ExitUnion) -> Stop:
        from .failures import failure  # most boots have none

        return self._stopped(*failure(reason, exit, self.linear_ip(), self._instruction))

    def _instruction(self, code: bytes = b"") -> str:
        """The place of the next instruction and the bytes there as the end of a phrase; `code` if KVM has told them."""
        linear = self.linear_ip()
        code = code or code_at(self, self._board.memory, linear)
        return f" at {linear:#x}" + (f", bytes {code.hex(' ')}" if code else "")

    @property
    def bits(self) -> int:
        """See Cpu."""
        return _bits(self._vcpu.sregs().cs)

    def linear_ip(self) -> int:
        """See Cpu."""
        cs, rip = self._vcpu.sregs().cs, int(self._vcpu.regs().rip)
        return rip if cs.l else (cs.base + rip) % ADDRESS_4G

    def translate(self, linear: int) -> int | None:
        """See Cpu."""
        return self._vcpu.translate(linear) if self._vcpu.sregs().cr0 & CR0_PG else linear

    def _stopped(self, reason: str, detail: str, value: int | None = None) -> Stop:
        self._vcpu.complete()
        return Stop(reason, detail, self.linear_ip(), value)

    def registers(self) -> dict[str, int]:
        """See Cpu."""
        regs, sregs = self._vcpu.regs(), self._vcpu.sregs()
        values: dict[str, int] = {name: getattr(regs, _WRITABLE[name]) for name in GENERAL}
        if sregs.efer & paging.EFER_LMA:
            values |= {name: getattr(regs, name) for name in GENERAL_64}
        values |= {"eip": regs.rip, "eflags": regs.rflags}
        values |= {name: getattr(sregs, name) for name in _CONTROL}
        return values | {"gdtr_base": sregs.gdt.base, "gdtr_limit": sregs.gdt.limit}

    def segments(self) -> dict[str, Segment]:
        """See Cpu."""
        sregs = self._vcpu.sregs()
        return {name: segment(getattr(sregs, name)) for name in _SEGMENTS}

    def state(self) -> State:
        """See Cpu."""
        regs, sregs = self._vcpu.regs(), self._vcpu.sregs()
        values = [getattr(regs, name) for name in _STATE_GENERAL]
        for name in _STATE_SEGMENTS:
            register = getattr(sregs, name)
            values += register.selector, register.base, register.limit
        tables = sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit
        return State(_bits(sregs.cs), (*values, *tables, *(getattr(sregs, name) for name in _CONTROL), regs.rflags))

    def set_register(self, name: str, value: int) -> None:
        """See Cpu."""
        if name not in _WRITABLE:
            raise BootError(f"{name} cannot be written: there is {', '.join(_WRITABLE)}")
        regs = self._vcpu.regs()
        setattr(regs, _WRITABLE[name], value)
        self._vcpu.set_regs(regs)

    def save(self) -> Callable[[], None]:
        """See Cpu: what a guest stores goes unseen."""
        raise BootError("the kvm engine keeps no checkpoints, as it does not see what a guest stores: use --engine unicorn")

    def counts(self) -> dict[str, int]:
        """See Cpu."""
        exits: dict[str, int] = {}
        for reason, count in self._exits.items():
            name = f"kvm_exits_{_EXITS.get(reason, 'other')}"
            exits[name] = exits.get(name, 0) + count
        if self._interrupted:
            exits["kvm_exits_interrupted"] = self._interrupted
        total = {"kvm_exits": sum(self._exits.values())}
        return dict(self._board.bus.counts) | total | exits | {"kvm_ioctls": self._ioctls.made}

    def handoff(self) -> Handoff:
        """See Cpu."""
        features = self._vcpu.cpuid_leaf(CPUID_FEATURES_LEAF)
        return Handoff(
            engine=KVM,
            registers=self.registers(),
            segments=self.segments(),
            has_mtrr=None if features is None else bool(features.edx & CPUID_1_EDX_MTRR),
            mtrr_def_type=self._vcpu.msr(MSR_MTRR_DEF_TYPE),
            memory=self._board.memory,
            rom_writes=self._board.rom_writes,
            counts=self.counts(),
            host_appends=self._board.host_appends,
            host_acpi=self._board.host_acpi,
        )
