"""The MC146818A real-time clock: its time, its three interrupts, in the first bytes of CMOS memory.

Source: see shim/abi/rtc.py. Not modelled: daylight saving, the square wave, the bits of the divider that stop the clock.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from pvhboot.shim.abi import rtc as abi

from ..clock import SECOND, Clock

_TIME: Final = (
    abi.RTC_SECONDS,
    abi.RTC_MINUTES,
    abi.RTC_HOURS,
    abi.RTC_WEEKDAY,
    abi.RTC_DAY,
    abi.RTC_MONTH,
    abi.RTC_YEAR,
    abi.RTC_CENTURY,
)
_ALARMED: Final = (abi.RTC_SECONDS, abi.RTC_MINUTES, abi.RTC_HOURS)  # the alarm's byte follows
_ENABLES: Final = abi.RTC_B_PERIODIC | abi.RTC_B_ALARM | abi.RTC_B_UPDATE


def put_time(data: bytearray, now: datetime) -> None:
    """Writes a time into CMOS memory, in the form that register B there says."""
    mode = data[abi.RTC_B]
    afternoon, hour = now.hour >= 12, now.hour
    if not mode & abi.RTC_B_24H:
        hour = (hour + 11) % 12 + 1
    values = now.second, now.minute, hour, now.isoweekday() % 7 + 1, now.day, now.month, now.year % 100, now.year // 100
    for register, value in zip(_TIME, values, strict=True):
        data[register] = value if mode & abi.RTC_B_BINARY else value // 10 << 4 | value % 10
    if afternoon and not mode & abi.RTC_B_24H:
        data[abi.RTC_HOURS] |= abi.RTC_HOURS_PM


def _time(data: bytearray, before: datetime) -> datetime:
    """The time that CMOS memory holds; `before`, if it is none."""
    mode, hours = data[abi.RTC_B], data[abi.RTC_HOURS]
    afternoon = not mode & abi.RTC_B_24H and hours & abi.RTC_HOURS_PM
    raw = {register: data[register] for register in _TIME}
    if not mode & abi.RTC_B_24H:
        raw[abi.RTC_HOURS] &= ~abi.RTC_HOURS_PM
    value = {at: byte if mode & abi.RTC_B_BINARY else (byte >> 4) * 10 + (byte & 0xF) for at, byte in raw.items()}
    hour = value[abi.RTC_HOURS]
    if not mode & abi.RTC_B_24H:
        hour = hour % 12 + (12 if afternoon else 0)
    try:
        return datetime(
            value[abi.RTC_CENTURY] * 100 + value[abi.RTC_YEAR],
            value[abi.RTC_MONTH],
            value[abi.RTC_DAY],
            hour,
            value[abi.RTC_MINUTES],
            value[abi.RTC_SECONDS],
            tzinfo=before.tzinfo,
        )
    except ValueError:
        return before


class Rtc:
    """The clock in CMOS memory `data`: it is `now` at the clock's 0. `irq` is told each level of its interrupt."""

    def __init__(self, data: bytearray, clock: Clock, irq: Callable[[bool], None], now: datetime) -> None:
        self._data, self._clock, self._irq = data, clock, irq
        self._epoch = now  # the time at `_origin`
        self._origin = 0  # ns
        self._told = 0  # ns; up to when register C knows what has happened
        self._second = clock.timer(self._update)
        self._period = clock.timer(self._update)

    def prepare(self, register: int) -> None:
        """A register is about to be read."""
        now = self._clock.look()
        if register in _TIME and not self._is_set:
            put_time(self._data, self._time(now))
        elif register == abi.RTC_A:
            updating = not self._is_set and (now - self._origin) % SECOND >= SECOND - abi.RTC_UPDATE_NS
            self._data[register] = self._data[register] & ~abi.RTC_A_UPDATING | (abi.RTC_A_UPDATING if updating else 0)
        elif register == abi.RTC_C:
            self._catch_up(now)
            self._raise()

    def seen(self) -> None:
        """Register C has been read: that clears it, and takes the interrupt back."""
        self._data[abi.RTC_C] = 0
        self._irq(False)

    def write(self, register: int, value: int) -> None:
        """One of the clock's registers, or another byte."""
        now, was_set = self._clock.look(), self._is_set
        if register in (abi.RTC_C, abi.RTC_D):
            return
        self._catch_up(now)
        if register in _TIME and not was_set:
            put_time(self._data, self._time(now))
        self._data[register] = value
        if register == abi.RTC_B and value & abi.RTC_B_SET and not was_set:
            self._data[register] = value & ~abi.RTC_B_UPDATE  # as the datasheet has it
            put_time(self._data, self._time(now))
        elif (register in _TIME and not was_set) or (register == abi.RTC_B and was_set and not self._is_set):
            self._epoch, self._origin = _time(self._data, self._epoch), now
        if register in (abi.RTC_A, abi.RTC_B):
            self._raise()
        self._arm(now)

    @property
    def _is_set(self) -> bool:
        return bool(self._data[abi.RTC_B] & abi.RTC_B_SET)

    def _time(self, now: int) -> datetime:
        try:
            return self._epoch + timedelta(seconds=(now - self._origin) // SECOND)
        except OverflowError:  # behind the year 9999 there is none
            return datetime.max.replace(tzinfo=self._epoch.tzinfo)

    def _rate(self) -> int:
        return abi.rtc_rate(self._data[abi.RTC_A] & abi.RTC_A_RATE)

    def _catch_up(self, now: int) -> None:
        """Sets the flags of what has happened meanwhile."""
        rate, flags = self._rate(), 0
        if rate and now * rate // SECOND > self._told * rate // SECOND:
            flags |= abi.RTC_B_PERIODIC
        seconds = (now - self._origin) // SECOND - max(self._told - self._origin, 0) // SECOND
        if seconds > 0 and not self._is_set:
            flags |= abi.RTC_B_UPDATE
            if self._is_alarm(self._time(now)):
                flags |= abi.RTC_B_ALARM
        self._told = now
        self._data[abi.RTC_C] |= flags

    def _is_alarm(self, time: datetime) -> bool:
        at = bytearray(self._data)
        put_time(at, time)
        return all(
            at[register + 1] & abi.RTC_ALARM_ANY == abi.RTC_ALARM_ANY or at[register + 1] == at[register]
            for register in _ALARMED
        )

    def _update(self) -> None:
        now = self._clock.now
        self._catch_up(now)
        self._raise()
        self._arm(now)

    def _raise(self) -> None:
        wanted = self._data[abi.RTC_B] & self._data[abi.RTC_C] & _ENABLES
        self._data[abi.RTC_C] = self._data[abi.RTC_C] & ~abi.RTC_C_IRQ | (abi.RTC_C_IRQ if wanted else 0)
        self._irq(bool(wanted))

    def _arm(self, now: int) -> None:
        """Sets the timers for what is enabled."""
        enabled, rate = self._data[abi.RTC_B], self._rate()
        seconds = enabled & (abi.RTC_B_UPDATE | abi.RTC_B_ALARM) and not self._is_set
        self._second.set(self._origin + ((now - self._origin) // SECOND + 1) * SECOND if seconds else None)
        self._period.set(-(-(now * rate // SECOND + 1) * SECOND // rate) if rate and enabled & abi.RTC_B_PERIODIC else None)
