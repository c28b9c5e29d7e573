"""How a CPU under Unicorn keeps time with a board that has interrupts, and when it takes one.

The board's clock goes on with the instructions that are executed, so that two runs are the same: the CPU executes slices of so
many instructions as the next timer is away. Unicorn stops each slice exactly, between two instructions, with the flags and the
instruction pointer as they are then: only there an interrupt is taken, if the guest lets it through and no sti or load of SS is
just behind it.
"""

import ctypes
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from pvhboot.shim.abi import x86
from pvhboot.shim.errors import BootError

from ..board import Board
from ..clock import SECOND
from ..devices.lapic import LocalApic
from .base import Stop
from .unicorn_context import KNOWN_RELEASES, LiveContext
from .unicorn_exceptions import Exceptions

NS_PER_INSTRUCTION: Final = 20  # 50 million a second: about what Unicorn comes to
_SLICE: Final = 200_000  # instructions at most between two looks at the time, at Ctrl-C and at the board's input
# Unicorn does not tell when the guest takes interrupts again: about so many instructions later it is asked, twice as many each
# time, and then from the first again. How many more or less is by chance (of a generator that begins alike in each run: Knuth,
# MMIX), lest it be asked in step with a loop that takes them but for a moment.
_FIRST_WAIT: Final = 64
_LAST_WAIT: Final = 4096
_CHANCE_FACTOR: Final = 6364136223846793005
_CHANCE_STEP: Final = 1442695040888963407
_CHANCE_BITS: Final = 64
_LONG_SECONDS: Final = 0.05  # of a slice: the next one is shorter
_SHORTEST: Final = 8000  # instructions: what a slice may have at least
_POLL_SECONDS: Final = 0.01

_NOPS: Final = b"\x90" * 16

# In Unicorn's engine: of how many instructions this slice has seen the begin (emu_counter), and how many it is of (emu_count).
_COUNTED: Final = 0x558
_COUNT: Final = 0x560


class Pace:
    """The board's clock and interrupts for one CPU. `executed` counts its instructions, `interrupts` those that were taken."""

    def __init__(self, uc: Any, board: Board, exceptions: Exceptions) -> None:
        require_counter()
        assert board.apic is not None
        self._uc, self._board, self._exceptions = uc, board, exceptions
        self._apic: LocalApic = board.apic
        self._counter, self._count = _field(uc, _COUNTED), _field(uc, _COUNT)
        self._slice = 0  # instructions that are to be executed; 0: none is
        self._extra = 0  # that was counted, but is not executed
        self._most = _SHORTEST
        self._ask_at = 0  # by `executed`: before, an interrupt that waits is not looked at again
        self._wait, self._chance = _FIRST_WAIT, 0
        self._shadow: int | None = None  # where an sti or a load of SS keeps interrupts off until one instruction is over
        self._halted = False
        self._polled = 0.0
        self.executed = self.interrupts = 0

    def since(self) -> int:
        """ns since the slice began: for the clock."""
        return min(self._counter.value, self._slice) * NS_PER_INSTRUCTION if self._slice else 0

    def call(self) -> None:
        """A device wants an interrupt: the slice ends with this instruction. (Unicorn would execute one that stores to a device
        once more, if it was stopped by emu_stop.)"""
        self._ask_at = 0
        self._shorten(0)

    def retime(self) -> None:
        """The next timer may be nearer than it was when the slice began: it ends there. Else where an interrupt comes would be
        up to where slices begin, which differs from run to run."""
        if self._slice and (left := self._left()) is not None:
            self._shorten(left)

    def _shorten(self, instructions: int) -> None:
        """The slice, if there is one, ends so many instructions behind this one at the latest."""
        if self._slice:
            self._slice = self._count.value = min(self._slice, self._counter.value + instructions)

    def _left(self) -> int | None:
        """Instructions to the next timer; None: there is none."""
        due = self._board.clock.next
        return None if due is None else max(-(-(due - self._board.clock.now) // NS_PER_INSTRUCTION), 0)

    def uncount(self) -> None:
        """Within a hook, that stops the engine in front of an instruction."""
        self._extra = 1

    def run(self, start: Callable[[int], None]) -> None:
        """Has `start` execute a slice."""
        self._slice, self._extra = self._length(), 0
        began = time.monotonic()
        try:
            start(self._slice)
        finally:
            seen, length, self._slice = self._counter.value, self._slice, 0
            counted = min(seen, length) - self._extra
            self.executed += counted
            self._board.clock.advance(counted * NS_PER_INSTRUCTION)
        is_long = time.monotonic() - began > _LONG_SECONDS
        self._most = max(self._most // 2, _SHORTEST) if is_long else min(self._most * 2, _SLICE)
        self._halted = seen <= length  # where the slice was over Unicorn has seen the begin of the next instruction

    def _length(self) -> int:
        if self._shadow is not None:
            return 1
        length = self._most
        if (left := self._left()) is not None:
            length = min(length, left)
        if self._apic.requested:
            length = min(length, self._ask_at - self.executed)
        return max(length, 1)

    def _ask_later(self) -> None:
        self._chance = (self._chance * _CHANCE_FACTOR + _CHANCE_STEP) % (1 << _CHANCE_BITS)
        self._ask_at = self.executed + self._wait // 2 + (self._wait * self._chance >> _CHANCE_BITS)
        self._wait = 2 * self._wait if self._wait < _LAST_WAIT else _FIRST_WAIT

    def take(self) -> Stop | None:
        """Has the timers expire that are due, and the guest enter the handler of the interrupt that it lets through; or says
        why the run ends."""
        self._board.clock.run_due()
        shadow, self._shadow = self._shadow, None
        if not self._apic.requested:
            self._ask_at, self._wait = 0, _FIRST_WAIT
            return None
        if self.executed < self._ask_at and not self._halted:
            return None
        cpu = LiveContext(self._uc)
        if not cpu.eflags & x86.EFLAGS_IF:
            self._ask_later()
            return None
        if cpu.is_shadowed and cpu.rip != shadow:
            self._shadow = cpu.rip
            return None
        cpu.end_shadow()  # that of a rep lasts until its last round
        self._halted, self._ask_at, self._wait = False, 0, _FIRST_WAIT
        stop = self._exceptions.interrupt(self._apic.acknowledge(), cpu)
        self.interrupts += stop is None
        return stop

    @property
    def halted(self) -> bool:
        """The CPU executes nothing until an interrupt wakes it."""
        return self._halted

    def wake(self) -> None:
        """Something else than hlt has ended the slice."""
        self._halted = False

    def sleep(self) -> bool:
        """What a halted CPU does: the time goes on to the next timer. False: no interrupt will ever wake it."""
        board, clock = self._board, self._board.clock
        if not LiveContext(self._uc).eflags & x86.EFLAGS_IF:
            return False
        due = clock.next
        if board.input is not None:  # whoever sits there lives in real time
            began = time.monotonic_ns()
            board.input.poll(_POLL_SECONDS if due is None else min(max(due - clock.now, 0) / SECOND, _POLL_SECONDS))
            clock.advance(time.monotonic_ns() - began)
            return True
        if due is None:
            return False
        clock.advance(max(due - clock.now, 0))
        return True

    def poll(self) -> None:
        """Lets the board's input in, every now and then."""
        if self._board.input is not None and (now := time.monotonic()) > self._polled + _POLL_SECONDS:
            self._polled = now
            self._board.input.poll(0)

    def save(self) -> Callable[[], None]:
        """What brings all this back to what it is now; the clock is the board's."""
        held = self.executed, self.interrupts, self._ask_at, self._wait, self._chance, self._shadow, self._halted

        def back() -> None:
            self.executed, self.interrupts, self._ask_at, self._wait, self._chance, self._shadow, self._halted = held

        return back


def _field(uc: Any, offset: int) -> ctypes.c_size_t:
    """A number of Unicorn's own, live."""
    engine: int = uc._uch.value  # there is no other way to the handle
    return ctypes.c_size_t.from_address(engine + offset)


@cache
def require_counter() -> None:
    """Has Unicorn execute a few instructions and finds their number; BootError if it is not there. Once in a process."""
    import unicorn

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0, x86.PAGE_SIZE)
    uc.mem_write(0, _NOPS + x86.HLT)
    found = []
    for count in (3, len(_NOPS), len(_NOPS) + 5):  # the slice ends before hlt, in front of it, or does not end
        uc.emu_start(0, x86.PAGE_SIZE, count=count)
        found.append((_field(uc, _COUNTED).value, _field(uc, _COUNT).value))
    if found != [(4, 3), (len(_NOPS) + 1, len(_NOPS)), (len(_NOPS) + 1, len(_NOPS) + 5)]:
        raise BootError(f"unicorn {unicorn.__version__} counts in an unknown place: install unicorn=={KNOWN_RELEASES[-1]}")
