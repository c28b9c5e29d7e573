"""A CPU under Unicorn, with a board around it."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Final

from pvhboot.shim.abi import interrupts, x86
from pvhboot.shim.errors import UnavailableError

from ..board import Board
from ..handoff import Handoff
from ..reasons import FAULT, HALT, LIMIT
from ..weakly import weakly
from .base import Limits, Stop, Watch, halt_detail
from .interrupt import stopping_at_interrupt
from .names import UNICORN
from .unicorn_context import LiveContext, has_mtrr, require_layout, write_reset_state
from .unicorn_exceptions import Exceptions
from .unicorn_memory import MemoryMap
from .unicorn_pace import Pace
from .unicorn_registers import UnicornRegisters
from .unicorn_system import TIME_ASKED, add_system_calls, choose_processor, intercept_time, tell_time

_SLICE_MICROSECONDS: Final = 100_000  # between two looks at the clock, and at Ctrl-C, where no hook looks at them
_CLOCK_EVERY: Final = 4096  # accesses, and where they are counted instructions, between two looks at the clock


def _nowhere(_address: int) -> bool:
    return False


class UnicornCpu(UnicornRegisters):
    """One run: see Cpu. Its `uc` is Unicorn's own engine."""

    sees_memory = True

    def __init__(self, board: Board, limits: Limits) -> None:
        try:
            import unicorn
        except ImportError:
            raise UnavailableError("the unicorn engine needs the package unicorn: pip install unicorn") from None
        require_layout()
        super().__init__(unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64))
        self._unicorn = unicorn
        self._board, self.limits = board, limits
        self._seconds_left, self._deadline = limits.seconds, 0.0
        self.stop: Stop | None = None
        self.instructions = self._served = 0
        self._watches: tuple[Watch, ...] = ()
        self._places: Callable[[int], bool] = _nowhere
        self._from: int | None = None
        self._steps: int | None = None  # to make yet; None: as many as there are
        self._reached = self._pausing = self._stale = False
        self._raised: BaseException | None = None  # by a device
        self._code_hooks: list[int] = []
        # The addresses and the spans that code hooks are at; None: all.
        self._hooked: tuple[frozenset[int], frozenset[tuple[int, int]]] | None = frozenset(), frozenset()
        if board.interrupts is not None:
            choose_processor(self.uc)
        # No address ends a run: one that the guest has not mapped would disturb its exceptions.
        self.uc.ctl_exits_enabled(True)
        self.uc.ctl_set_exits([])
        self._map = MemoryMap(self.uc, board.memory, self._on_load, self._on_store)
        self._exceptions = Exceptions(self.uc, board.memory, board.bus)
        self._hook()
        self._pace: Pace | None = None
        if board.interrupts is not None:
            board.bus  # noqa: B018 - the controllers come with it
            self._pace = Pace(self.uc, board, self._exceptions)
            board.clock.drive(self._pace.since, self._pace.retime)
            assert board.apic is not None
            board.apic.told = self._pace.call
            add_system_calls(self.uc, self._exceptions, weakly(self.end))
        board.memory.listeners.append(self._on_host_write)
        board.memory.map_listeners.append(self._map.update)
        write_reset_state(self.uc)
        if self._pace is not None:
            intercept_time(self.uc)

    def let_go(self) -> None:
        """The board's memory may be used again: it does not tell this CPU any more of what is written to it."""
        self._board.memory.listeners.remove(self._on_host_write)
        self._board.memory.map_listeners.remove(self._map.update)
        self._map.let_go()
        if self._board.apic is not None:
            self._board.clock.let_go()
            self._board.apic.told = None

    def run_to(self, places: Collection[int] | Callable[[int], bool], *, counting: bool = True) -> bool:
        """See Cpu."""
        if callable(places):
            return self._run(places, None, None)
        wanted = frozenset(places)
        watches_all = any(not watch.spans for watch in self._watches)
        return self._run(wanted.__contains__, None if counting or watches_all else wanted, None)

    def step(self) -> bool:
        """See Cpu."""
        self._run(_nowhere, None, 1)
        return self.stop is None

    def _run(self, places: Callable[[int], bool], hooked: frozenset[int] | None, steps: int | None) -> bool:
        if self.stop is not None:
            return False
        self._places, self._steps, self._reached, self._pausing = places, steps, False, False
        self._from = self.linear_ip()
        self._hook_code(hooked)
        if self._stale:
            self._stale = False
            self.uc.ctl_flush_tb()
        self._deadline = self._board.deadline = time.monotonic() + self._seconds_left
        while self.stop is None and not self._reached and not self._pausing:
            if self._pace is not None:
                self._go_on(self._pace)
                continue
            self._start(0 if self._hooked is None else _SLICE_MICROSECONDS)
            if not self._reached and not self._pausing and self.stop is None:
                if self._hooked is None or not self.uc.query(self._unicorn.UC_QUERY_TIMEOUT):
                    self.stop = self._halted()
                self._check_clock()
        self._seconds_left = self._deadline - time.monotonic()
        self._board.deadline = inf
        return self._reached

    def _go_on(self, pace: Pace) -> None:
        """On a board with interrupts: for a slice of time."""
        self.stop = pace.take()
        if self.stop is None and not pace.halted:
            pace.run(lambda count: self._start(0, count))
            if pace.halted and (self._reached or self._pausing or self.stop is not None):
                pace.wake()
        elif self.stop is None and not pace.sleep():
            self.stop = self._halted()
        pace.poll()
        self._after_access()
        self._check_clock()

    def pause(self) -> None:
        """See Cpu."""
        self._pausing = True
        if self._hooked is not None:  # else it is seen at the next instruction; this one is executed
            self.uc.emu_stop()

    @contextmanager
    def watch(self, watch: Watch) -> Iterator[None]:
        """See Cpu."""
        unicorn = self._unicorn
        hooks = []
        if (load := watch.load) is not None:
            hooks.append(
                self.uc.hook_add(unicorn.UC_HOOK_MEM_READ, lambda _uc, _kind, paddr, size, _value, _data: load(paddr, size))
            )
        if (store := watch.store) is not None:

            def on_store(_uc: Any, _kind: int, paddr: int, size: int, value: int, _data: Any) -> None:
                store(paddr, size, value & (1 << 8 * size) - 1)

            hooks.append(self.uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, on_store))
        if watch.instruction is not None:
            self._watches = (*self._watches, watch)
        if watch.device_store is not None:
            self._board.memory.listeners.append(watch.device_store)
        self.uc.ctl_flush_tb()
        try:
            yield
            if watch.over is not None:
                watch.over()
        finally:
            for hook in hooks:
                self.uc.hook_del(hook)
            self._watches = tuple(other for other in self._watches if other is not watch)
            if watch.device_store is not None:
                self._board.memory.listeners.remove(watch.device_store)

    def _hook_code(self, places: frozenset[int] | None) -> None:
        """Has the instructions at some addresses told, and what is watched of others; None: all."""
        spans = frozenset(span for watch in self._watches for span in watch.spans)
        hooked = None if places is None else (places, spans)
        if hooked == self._hooked:
            return
        for hook in self._code_hooks:
            self.uc.hook_del(hook)
        hooks: list[tuple[Callable[..., None], int, int]]
        if places is None:
            hooks = [(self._on_instruction, 1, 0)]
        else:
            hooks = [(self._on_place, place, place) for place in places]
            hooks += [(self._on_watched, start, end - 1) for start, end in spans]
        kind = self._unicorn.UC_HOOK_CODE
        self._code_hooks = [self.uc.hook_add(kind, weakly(told), None, begin, end) for told, begin, end in hooks]
        self._hooked = hooked
        self.uc.ctl_flush_tb()

    def _start(self, microseconds: int, count: int = 0) -> None:
        """Executes until a hook stops it, the slice is over (of time or instructions; 0: there is none), or the CPU halts or
        faults."""
        rip = self.uc.reg_read(self._const.UC_X86_REG_RIP)
        with stopping_at_interrupt(self.uc.emu_stop):
            try:
                self.uc.emu_start(rip, 0, timeout=microseconds, count=count)
            except self._unicorn.UcError as error:
                if self.stop is None and self._raised is None:
                    self.stop = self._fault(error)
        if (raised := self._raised) is not None:
            self._raised = None
            raise raised

    def _hook(self) -> None:
        unicorn, const, add = self._unicorn, self._const, self.uc.hook_add
        # Unicorn's own callbacks are cycles: what they held would stay, and with it the guest's memory.
        add(unicorn.UC_HOOK_INSN, weakly(self._on_in), None, 1, 0, const.UC_X86_INS_IN)
        add(unicorn.UC_HOOK_INSN, weakly(self._on_out), None, 1, 0, const.UC_X86_INS_OUT)
        add(unicorn.UC_HOOK_INTR, weakly(self._on_exception))
        add(unicorn.UC_HOOK_INSN_INVALID, weakly(self._on_invalid))
        add(unicorn.UC_HOOK_MEM_WRITE_PROT, weakly(self._on_rom_write))

    def _on_instruction(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        # What ends the run within an instruction has the next one told all the same.
        if self.stop is not None or self._pausing or self._is_place(address) or self._steps == 0:
            self._pausing = True
            self._stop_before()
            return
        limit = self.limits.instructions
        if limit is not None and self.instructions >= limit:
            self.end(Stop(LIMIT, self.limits.instructions_over, address))
            self._stop_before()
            return
        self.instructions += 1
        if self._steps is not None:
            self._steps -= 1
        self._tell(address, size)
        if not self.instructions % _CLOCK_EVERY:
            self._check_clock()

    def _on_place(self, _uc: Any, address: int, _size: int, _data: Any) -> None:
        if self._is_place(address):
            self._stop_before()

    def _stop_before(self) -> None:
        """Within the hook of an instruction: it is not executed."""
        if self._pace is not None:
            self._pace.uncount()
        self.uc.emu_stop()

    def _on_watched(self, _uc: Any, address: int, size: int, _data: Any) -> None:
        if not self._reached:
            self._tell(address, size)

    def _tell(self, address: int, size: int) -> None:
        for watch in self._watches:
            if watch.instruction is not None and (not watch.spans or watch.tells(address)):
                watch.instruction(address, size)

    def _is_place(self, address: int) -> bool:
        """Whether the run is to pause here: at a place, but not before the first instruction."""
        first, self._from = self._from, None
        if address != first and self._places(address):
            self._reached = True
        return self._reached

    def _on_in(self, _uc: Any, port: int, size: int, _data: Any) -> int:
        return self._answer(self._board.bus.port_read, port, size)

    def _answer(self, read: Callable[[int, int], int], address: int, size: int) -> int:
        """What the bus reads. What a device raises instead is raised behind the engine, whose callbacks give numbers."""
        try:
            value = read(address, size)
        except BaseException as error:
            self._raised = error
            self.uc.emu_stop()
            return 0
        self._after_access()
        return value

    def _on_out(self, _uc: Any, port: int, size: int, value: int, _data: Any) -> None:
        self._board.bus.port_write(port, size, value & (1 << 8 * size) - 1)
        self._after_access()

    def _on_rom_write(self, _uc: Any, _kind: int, address: int, size: int, value: int, _data: Any) -> bool:
        self._on_store(address, size, value & (1 << 8 * size) - 1)
        return True

    def _on_load(self, paddr: int, size: int) -> int:
        return self._answer(self._board.bus.memory_read, paddr, size)

    def _on_store(self, paddr: int, size: int, value: int) -> None:
        self._board.bus.memory_write(paddr, size, value)
        self._after_access()

    def _on_host_write(self, paddr: int, size: int) -> None:
        """A device has written to memory: what was translated from there is no longer what lies there. Under paging Unicorn
        would take the address for a linear one, and where that is not mapped make a double fault of the next page fault: there
        all is translated anew, when the CPU is driven again."""
        if LiveContext(self.uc).cr0 & x86.CR0_PG:
            self._stale = True
        else:
            self.uc.ctl_remove_cache(paddr, paddr + size)

    def _on_exception(self, _uc: Any, vector: int, _data: Any) -> None:
        if vector == TIME_ASKED:
            tell_time(self.uc, self._exceptions, self._board.clock.look())
            return
        if (stop := self._exceptions.take(vector)) is not None:
            self.end(stop)
        self._after_access()  # a frame may go to where no memory is
        self._check_clock()  # a handler that faults at once executes no instruction at which the clock would be looked at

    def _on_invalid(self, uc: Any, _data: Any) -> bool:
        """An instruction that Unicorn does not have; False: the run does not go on."""
        self._on_exception(uc, interrupts.UD, None)
        return self.stop is None

    def _after_access(self) -> None:
        board, limit = self._board, self.limits.exits
        self._served += 1
        if not self._served % _CLOCK_EVERY:  # each takes as long as very many instructions
            self._check_clock()
        if board.stop is not None:
            self.end(Stop(board.stop.reason, board.stop.detail, self.linear_ip(), board.stop.value))
        elif limit is not None and board.bus.accesses >= limit:
            self.end(Stop(LIMIT, self.limits.exits_over, self.linear_ip()))

    def end(self, stop: Stop) -> None:
        """See Cpu."""
        if self.stop is None:
            self.stop = stop
        if self._pace is not None:
            self._pace.call()
        self.uc.emu_stop()

    def _check_clock(self) -> None:
        if self.stop is None and time.monotonic() > self._deadline:
            self.end(Stop(LIMIT, self.limits.seconds_over, self.linear_ip()))

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

    def translate(self, linear: int) -> int | None:
        """See Cpu."""
        return self._exceptions.find(linear)

    def save(self) -> Callable[[], None]:
        """See Cpu."""
        registers_back = self.save_registers()
        pace_back = None if self._pace is None else self._pace.save()
        held = self.stop, self.instructions, self._seconds_left, self._exceptions.delivered

        def back() -> None:
            registers_back()
            if pace_back is not None:
                pace_back()
            self.stop, self.instructions, self._seconds_left, self._exceptions.delivered = held

        return back

    def handoff(self) -> Handoff:
        """What the check looks at."""
        return Handoff(
            engine=UNICORN,
            registers=self.registers(),
            segments=self.segments(),
            has_mtrr=has_mtrr(),
            mtrr_def_type=self.uc.reg_read(self._const.UC_X86_REG_MSR, x86.MSR_MTRR_DEF_TYPE),
            memory=self._board.memory,
            rom_writes=self._board.rom_writes,
            counts=self.counts(),
            host_appends=self._board.host_appends,
            host_acpi=self._board.host_acpi,
        )

    def counts(self) -> dict[str, int]:
        """See Cpu."""
        delivered = {"exceptions": self._exceptions.delivered} if self._exceptions.delivered else {}
        if self._pace is not None:
            delivered |= {"executed": self._pace.executed, "interrupts": self._pace.interrupts}
        return {"instructions": self.instructions, **delivered, **self._board.bus.counts}
