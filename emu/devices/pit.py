"""The 8254 interval timer with the interrupt of its channel 0, and port 0x61 with the gate of its channel 2.

Source: see shim/abi/pit.py. A count is exact to the tick of the clock at which it is written. As in QEMU (hw/timer/i8254.c) a
new count in the modes 2 and 3 takes the place of the old one at once, and after a reset the channels count, as firmware of a PC
leaves them; but until it is programmed channel 0 raises no interrupt.
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import pit as abi

from ..clock import SECOND, Clock

_FULL: Final = 1 << 16
_FULL_BCD: Final = 10_000
_RATES: Final = (abi.PIT_RATE, abi.PIT_SQUARE)
_TRIGGERED: Final = (abi.PIT_ONE_SHOT, abi.PIT_HARD_STROBE)
_STROBES: Final = (abi.PIT_SOFT_STROBE, abi.PIT_HARD_STROBE)


def _ticks(ns: int) -> int:
    return ns * abi.PIT_HZ // SECOND


def _ns(ticks: int) -> int:
    """When a tick is over."""
    return -(-ticks * SECOND // abi.PIT_HZ)


class Channel:
    """One counter. `out` is told each level of its output, if somebody wants to know."""

    def __init__(self, clock: Clock, out: Callable[[bool], None] | None = None) -> None:
        self._clock, self._out = clock, out
        self._timer = clock.timer(self._expire)
        self._level = True  # the output, as it was told last; after a reset nobody was told that it is high
        self._access, self._mode, self._bcd = abi.PIT_ACCESS_BOTH, abi.PIT_SQUARE, False
        self._count = _FULL
        self._start: int | None = 0  # ns; None: nothing counts yet
        self._held = 0  # ticks that had gone by when the gate was closed
        self._gate = True
        self._low_byte: int | None = None  # of a count, whose other one is yet to come
        self._next_is_high = False  # of a count that is read
        self._latched: list[int] = []  # bytes that are read before the counter itself
        self._latched_status: int | None = None

    def control(self, word: int) -> None:
        """The control word: a mode, or the count is latched."""
        access = word >> abi.PIT_ACCESS_SHIFT & abi.PIT_ACCESS_MASK
        if access == abi.PIT_ACCESS_LATCH:
            self.latch_count()
            return
        mode = word >> abi.PIT_MODE_SHIFT & abi.PIT_MODE_MASK
        self._access, self._mode, self._bcd = access, mode % 4 if mode > abi.PIT_HARD_STROBE else mode, bool(word & abi.PIT_BCD)
        self._start, self._low_byte, self._next_is_high, self._latched = None, None, False, []
        self._held = 0
        self._timer.set(None)
        self._tell(self._mode != abi.PIT_ON_TERMINAL_COUNT)

    def latch_count(self) -> None:
        """What is read next is the count of now, unless one is latched already."""
        if not self._latched:
            self._latched = self._bytes(self._current())

    def latch_status(self) -> None:
        """The same of the status."""
        if self._latched_status is None:
            null = self._start is None or self._low_byte is not None
            self._latched_status = (
                (abi.PIT_STATUS_OUT if self.output else 0)
                | (abi.PIT_STATUS_NULL if null else 0)
                | self._access << abi.PIT_ACCESS_SHIFT
                | self._mode << abi.PIT_MODE_SHIFT
                | self._bcd
            )

    def read(self) -> int:
        """A byte: the latched status, a latched count, the count."""
        if self._latched_status is not None:
            status, self._latched_status = self._latched_status, None
            return status
        if self._latched:
            return self._latched.pop(0)
        data = self._bytes(self._current())
        if self._access != abi.PIT_ACCESS_BOTH:
            return data[0]
        self._next_is_high = not self._next_is_high
        return data[0 if self._next_is_high else 1]

    def write(self, value: int) -> None:
        """A byte of a new count."""
        if self._access == abi.PIT_ACCESS_BOTH and self._low_byte is None:
            self._low_byte = value
            if self._mode == abi.PIT_ON_TERMINAL_COUNT:  # the first byte stops it
                self._timer.set(None)
            return
        if self._access == abi.PIT_ACCESS_BOTH:
            value = value << 8 | (self._low_byte or 0)
        elif self._access == abi.PIT_ACCESS_HIGH:
            value <<= 8
        self._low_byte = None
        self._count = self._from_digits(value) or (_FULL_BCD if self._bcd else _FULL)
        if self._mode not in _TRIGGERED:
            self._begin()

    @property
    def gate(self) -> bool:
        """The input that lets it count."""
        return self._gate

    @gate.setter
    def gate(self, level: bool) -> None:
        rises, falls = level and not self._gate, self._gate and not level
        if falls and self._mode not in _TRIGGERED:
            self._held = self._elapsed()
        self._gate = level
        if falls and self._mode not in _TRIGGERED:
            self._timer.set(None)
        elif rises and (self._mode in _RATES or self._mode in _TRIGGERED):
            self._begin()
        elif rises and self._start is not None:
            self._start = self._clock.now - _ns(self._held)
            self._arm()

    @property
    def output(self) -> bool:
        """OUT."""
        if self._start is None:
            return self._mode != abi.PIT_ON_TERMINAL_COUNT
        elapsed = self._elapsed()
        match self._mode:
            case abi.PIT_ON_TERMINAL_COUNT | abi.PIT_ONE_SHOT:
                return elapsed >= self._count
            case abi.PIT_RATE:
                return not self._gate or elapsed % self._count != self._count - 1
            case abi.PIT_SQUARE:
                return not self._gate or elapsed % self._count < (self._count + 1) // 2
        return elapsed != self._count

    def _begin(self) -> None:
        self._start, self._held = self._clock.now, 0
        self._tell(self.output)
        self._arm()

    def _elapsed(self) -> int:
        """Ticks that it has counted."""
        if self._start is None:
            return 0
        if not self._gate and self._mode not in _TRIGGERED:
            return self._held
        return _ticks(self._clock.now - self._start)

    def _current(self) -> int:
        """The counter, in its digits."""
        elapsed, full = self._elapsed(), _FULL_BCD if self._bcd else _FULL
        if self._mode == abi.PIT_RATE:
            value = self._count - elapsed % self._count
        elif self._mode == abi.PIT_SQUARE:
            value = self._count - 2 * elapsed % self._count
        else:
            value = self._count - elapsed
        return self._to_digits(value % full)

    def _arm(self) -> None:
        """Sets the timer for the next time that OUT rises."""
        if self._out is None or self._start is None or not self._gate:
            return
        elapsed = self._elapsed()
        if self._mode in _RATES:
            rise: int | None = (elapsed // self._count + 1) * self._count
        else:
            rise = self._count + (self._mode in _STROBES)
        self._timer.set(self._start + _ns(rise) if rise is not None and rise > elapsed else None)

    def _expire(self) -> None:
        if self._mode in _RATES or self._mode in _STROBES:
            self._tell(False)
        self._tell(True)
        self._arm()

    def _tell(self, level: bool) -> None:
        if self._out is not None and level != self._level:
            self._out(level)
        self._level = level

    def _bytes(self, value: int) -> list[int]:
        low, high = value & 0xFF, value >> 8
        return [low, high] if self._access == abi.PIT_ACCESS_BOTH else [high if self._access == abi.PIT_ACCESS_HIGH else low]

    def _from_digits(self, value: int) -> int:
        return sum((value >> 4 * at & 0xF) * 10**at for at in range(4)) if self._bcd else value

    def _to_digits(self, value: int) -> int:
        return sum(value // 10**at % 10 << 4 * at for at in range(4)) if self._bcd else value


class Pit:
    """The three channels behind their ports; `irq` is told each level of channel 0's output."""

    def __init__(self, clock: Clock, irq: Callable[[bool], None]) -> None:
        self._clock = clock
        self.channels = [Channel(clock, irq), *(Channel(clock) for _ in range(abi.PIT_CHANNELS - 1))]
        self.port_b = PortB(clock, self.channels[2])

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """A byte of a channel; the control word cannot be read."""
        self._clock.look()
        return 0xFF if offset == abi.PIT_CONTROL else self.channels[offset].read()

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A byte for a channel, or the control word."""
        self._clock.look()
        if offset != abi.PIT_CONTROL:
            self.channels[offset].write(value)
            return
        chosen = value >> abi.PIT_CHANNEL_SHIFT
        if chosen != abi.PIT_READ_BACK:
            self.channels[chosen].control(value)
            return
        for number, channel in enumerate(self.channels):
            if value >> number + 1 & 1:
                if not value & abi.PIT_READ_BACK_NO_COUNT:
                    channel.latch_count()
                if not value & abi.PIT_READ_BACK_NO_STATUS:
                    channel.latch_status()


class PortB:
    """Port 0x61: the gate and the output of channel 2, the speaker that nobody hears, the refresh of the memory."""

    def __init__(self, clock: Clock, channel: Channel) -> None:
        self._clock, self._channel = clock, channel
        self._written = 0
        channel.gate = False

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """What was written, and what the two outputs are."""
        refresh = self._clock.look() // abi.PORT_B_REFRESH_NS & 1
        outputs = (abi.PORT_B_REFRESH if refresh else 0) | (abi.PORT_B_OUT2 if self._channel.output else 0)
        return self._written | outputs

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Gate and speaker."""
        self._clock.look()
        self._written = value & abi.PORT_B_WRITABLE
        self._channel.gate = bool(value & abi.PORT_B_GATE2)
