"""The local APIC of a board's one processor, and how the 8259A's requests go through it.

Source: see shim/abi/apic.py; from QEMU (hw/intc/apic.c) that LINT0 lets the 8259A through after a reset, as firmware of a PC
leaves it, and that the timer counts at 1 GHz. As on KVM, that has a bound of its own, a period may not be shorter than a guest
gets on in: as a look at a clock takes. Not modelled: the deadline mode of the timer, x2APIC, messages to other
processors and to nobody, remote reads, NMI, INIT and SMI. IA32_APIC_BASE does not move it or switch it off.
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import apic as abi

from ..clock import LOOK_NS, Clock
from .pic import PicPair

_WORD_BITS: Final = 32
_WORDS: Final = (abi.APIC_TMR - abi.APIC_ISR) // abi.LOCAL_APIC_STEP  # registers of a set of vectors
_SETS: Final = (abi.APIC_ISR, abi.APIC_TMR, abi.APIC_IRR)
_LOCAL_INPUT: Final = abi.APIC_VECTOR | abi.APIC_DELIVERY | abi.APIC_ACTIVE_LOW | abi.APIC_LEVEL | abi.APIC_LVT_MASKED
_LVT: Final = {  # the entries, and the bits of each that can be written
    abi.APIC_LVT_TIMER: abi.APIC_VECTOR | abi.APIC_LVT_MASKED | abi.APIC_TIMER_PERIODIC,
    abi.APIC_LVT_THERMAL: abi.APIC_VECTOR | abi.APIC_DELIVERY | abi.APIC_LVT_MASKED,
    abi.APIC_LVT_COUNTERS: abi.APIC_VECTOR | abi.APIC_DELIVERY | abi.APIC_LVT_MASKED,
    abi.APIC_LVT_LINT0: _LOCAL_INPUT,
    abi.APIC_LVT_LINT1: _LOCAL_INPUT,
    abi.APIC_LVT_ERROR: abi.APIC_VECTOR | abi.APIC_LVT_MASKED,
}
_COMMAND: Final = (
    abi.APIC_VECTOR | abi.APIC_DELIVERY | abi.APIC_ICR_LOGICAL | abi.APIC_ICR_ASSERT | abi.APIC_LEVEL | abi.APIC_ICR_SHORTHAND
)
_KEPT: Final = {  # other registers that keep what is written, the bits of it, and what they hold after a reset
    abi.APIC_ID: (0xFF << abi.APIC_DESTINATION_SHIFT, 0),
    abi.APIC_TPR: (0xFF, 0),
    abi.APIC_LDR: (0xFF << abi.APIC_DESTINATION_SHIFT, 0),
    abi.APIC_DFR: (abi.APIC_DFR_FLAT, abi.APIC_DFR_FLAT),
    abi.APIC_SVR: (abi.APIC_VECTOR | abi.APIC_SVR_ENABLE | abi.APIC_SVR_NO_FOCUS, abi.APIC_VECTOR),
    abi.APIC_ICR: (_COMMAND, 0),
    abi.APIC_ICR_HIGH: (0xFF << abi.APIC_DESTINATION_SHIFT, 0),
    abi.APIC_TIMER_INITIAL: (0xFFFF_FFFF, 0),
    abi.APIC_TIMER_DIVIDE: (abi.APIC_TIMER_DIVIDE_1, 0),
}
_DFR_ONES: Final = (1 << abi.APIC_DFR_MODEL_SHIFT) - 1  # bits that are always 1
_PRIORITY_CLASS: Final = 0xF0


def _highest(vectors: int) -> int:
    """The highest of a set of vectors; -1 of none."""
    return vectors.bit_length() - 1


class LocalApic:
    """Its registers, an offset from the page's begin; `told`, if there is one, is called when the processor may have to be
    interrupted."""

    def __init__(self, clock: Clock, pics: PicPair) -> None:
        self.told: Callable[[], None] | None = None
        self.ended: Callable[[int], None] | None = None  # is given each vector of a level that is over
        self._clock, self._pics = clock, pics
        pics.told = self._extint
        self._timer = clock.timer(self._expire)
        self._registers = {register: after_reset for register, (_, after_reset) in _KEPT.items()}
        self._registers |= dict.fromkeys(_LVT, abi.APIC_LVT_MASKED)
        self._registers[abi.APIC_LVT_LINT0] = abi.APIC_DELIVERY_EXTINT
        self._sets = dict.fromkeys(_SETS, 0)  # a bit a vector
        self._errors = self._errors_seen = 0
        self._start: int | None = None  # ns; when the timer began to count down

    @property
    def requested(self) -> bool:
        """The processor has something to acknowledge."""
        return self._deliverable() >= 0 or (self._lets_pics_through() and self._pics.requested)

    def acknowledge(self) -> int:
        """The vector of what the processor is interrupted by now."""
        vector = self._deliverable()
        if vector >= 0:
            self._sets[abi.APIC_IRR] &= ~(1 << vector)
            self._sets[abi.APIC_ISR] |= 1 << vector
            return vector
        if self._lets_pics_through() and self._pics.requested:
            return self._pics.acknowledge()
        return self._registers[abi.APIC_SVR] & abi.APIC_VECTOR

    def read(self, offset: int, size: int) -> int:
        """A register; those that are narrower or wider, or begin elsewhere, give 0."""
        register = abi.LOCAL_APIC + offset
        if size != 4 or offset % abi.LOCAL_APIC_STEP:
            return 0
        if register in self._registers:
            return self._registers[register]
        match register:
            case abi.APIC_VERSION:
                return abi.LOCAL_APIC_VERSION | abi.LOCAL_APIC_LVT_LAST << 16
            case abi.APIC_PPR:
                return self._priority()
            case abi.APIC_ESR:
                return self._errors_seen
            case abi.APIC_TIMER_CURRENT:
                return self._current(self._clock.look())
        for first, vectors in self._sets.items():
            word = (register - first) // abi.LOCAL_APIC_STEP
            if 0 <= word < _WORDS:
                return vectors >> word * _WORD_BITS & (1 << _WORD_BITS) - 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A register; what cannot be written stays as it is."""
        register = abi.LOCAL_APIC + offset
        if size != 4 or offset % abi.LOCAL_APIC_STEP:
            return
        if register in _LVT:
            masked = 0 if self._enabled else abi.APIC_LVT_MASKED
            self._registers[register] = value & _LVT[register] | masked
            self._tell()
        elif register in _KEPT:
            self._registers[register] = value & _KEPT[register][0]
            self._act(register, value)
        elif register == abi.APIC_EOI:
            self._end()
        elif register == abi.APIC_ESR:
            self._errors_seen, self._errors = self._errors, 0

    @property
    def _enabled(self) -> bool:
        return bool(self._registers[abi.APIC_SVR] & abi.APIC_SVR_ENABLE)

    def _act(self, register: int, value: int) -> None:
        match register:
            case abi.APIC_SVR if not self._enabled:
                for entry in _LVT:
                    self._registers[entry] |= abi.APIC_LVT_MASKED
            case abi.APIC_DFR:
                self._registers[register] |= _DFR_ONES
            case abi.APIC_ICR:
                self._send(value)
            case abi.APIC_TIMER_INITIAL:
                self._start = self._clock.look() if value else None
                self._arm()
            case abi.APIC_TIMER_DIVIDE:
                self._arm()
            case abi.APIC_TPR:
                self._tell()

    def request(self, vector: int, level: bool = False) -> None:
        """Somebody else has sent an interrupt."""
        bit = 1 << vector
        self._sets[abi.APIC_TMR] = self._sets[abi.APIC_TMR] | bit if level else self._sets[abi.APIC_TMR] & ~bit
        self._request(vector)

    def _end(self) -> None:
        vector = _highest(self._sets[abi.APIC_ISR])
        if vector < 0:
            return
        self._sets[abi.APIC_ISR] &= ~(1 << vector)
        if self._sets[abi.APIC_TMR] >> vector & 1 and self.ended is not None:
            self.ended(vector)
        self._tell()

    def _priority(self) -> int:
        task, served = self._registers[abi.APIC_TPR], _highest(self._sets[abi.APIC_ISR])
        return task if task & _PRIORITY_CLASS >= served & _PRIORITY_CLASS or served < 0 else served & _PRIORITY_CLASS

    def _deliverable(self) -> int:
        """The vector that may interrupt the processor; -1: none."""
        vector = _highest(self._sets[abi.APIC_IRR]) if self._enabled else -1
        return vector if vector >= 0 and vector & _PRIORITY_CLASS > self._priority() & _PRIORITY_CLASS else -1

    def _lets_pics_through(self) -> bool:
        entry = self._registers[abi.APIC_LVT_LINT0]
        return entry & (abi.APIC_LVT_MASKED | abi.APIC_DELIVERY) == abi.APIC_DELIVERY_EXTINT

    def _extint(self) -> None:
        """The 8259A's output has risen."""
        entry = self._registers[abi.APIC_LVT_LINT0]
        if entry & abi.APIC_DELIVERY == abi.APIC_DELIVERY_FIXED and not entry & abi.APIC_LVT_MASKED:
            self._request(entry & abi.APIC_VECTOR)
        self._tell()

    def _request(self, vector: int) -> None:
        if vector < abi.APIC_FIRST_VECTOR:
            self._fail(abi.APIC_ESR_RECEIVE_VECTOR)
        elif self._enabled:
            self._sets[abi.APIC_IRR] |= 1 << vector
            self._tell()

    def _fail(self, error: int) -> None:
        known, self._errors = self._errors, self._errors | error
        entry = self._registers[abi.APIC_LVT_ERROR]
        if not known & error and not entry & abi.APIC_LVT_MASKED and entry & abi.APIC_VECTOR >= abi.APIC_FIRST_VECTOR:
            self._request(entry & abi.APIC_VECTOR)

    def _send(self, command: int) -> None:
        """ICR: what is for this processor; there is no other."""
        if command & abi.APIC_DELIVERY not in (abi.APIC_DELIVERY_FIXED, abi.APIC_DELIVERY_LOWEST) or not self._is_for_me(
            command
        ):
            return
        vector = command & abi.APIC_VECTOR
        if vector < abi.APIC_FIRST_VECTOR:
            self._fail(abi.APIC_ESR_SEND_VECTOR)
        else:
            self._request(vector)

    def _is_for_me(self, command: int) -> bool:
        shorthand = command & abi.APIC_ICR_SHORTHAND
        if shorthand:
            return shorthand in (abi.APIC_ICR_SELF, abi.APIC_ICR_ALL)
        destination = self._registers[abi.APIC_ICR_HIGH] >> abi.APIC_DESTINATION_SHIFT
        if not command & abi.APIC_ICR_LOGICAL:
            return destination in (self._registers[abi.APIC_ID] >> abi.APIC_DESTINATION_SHIFT, abi.APIC_IDS - 1)
        mine = self._registers[abi.APIC_LDR] >> abi.APIC_DESTINATION_SHIFT
        if self._registers[abi.APIC_DFR] == abi.APIC_DFR_FLAT:
            return bool(destination & mine)
        return destination >> 4 in (mine >> 4, 0xF) and bool(destination & mine & 0xF)

    def _tell(self) -> None:
        if self.told is not None and self.requested:
            self.told()

    def _tick(self) -> int:
        """ns that the timer takes to count one down."""
        divide = self._registers[abi.APIC_TIMER_DIVIDE]
        return 1 if divide == abi.APIC_TIMER_DIVIDE_1 else 2 << (divide & 3 | divide >> 1 & 4)

    def _is_periodic(self) -> bool:
        return bool(self._registers[abi.APIC_LVT_TIMER] & abi.APIC_TIMER_MODE)

    def _current(self, now: int) -> int:
        initial = self._registers[abi.APIC_TIMER_INITIAL]
        if self._start is None:
            return 0
        counted = (now - self._start) // self._tick()
        return initial - counted % initial if self._is_periodic() else max(initial - counted, 0)

    def _length(self) -> int:
        """ns that the timer takes to count down to 0."""
        length = self._registers[abi.APIC_TIMER_INITIAL] * self._tick()
        return max(length, LOOK_NS) if self._is_periodic() else length

    def _arm(self) -> None:
        self._timer.set(None if self._start is None else self._start + self._length())

    def _expire(self) -> None:
        assert self._start is not None
        if self._is_periodic():  # what has gone by several times is one request all the same
            length = self._length()
            self._start += max((self._clock.now - self._start) // length, 1) * length
            self._arm()
        else:
            self._start = None
        entry = self._registers[abi.APIC_LVT_TIMER]
        if not entry & abi.APIC_LVT_MASKED:
            self._request(entry & abi.APIC_VECTOR)
