"""CMOS memory and the real-time clock behind ports 0x70 and 0x71.

Source: see shim/abi/rtc.py for the clock; the memory sizes are at the places of the IBM PC AT and of QEMU (0x15-0x18,
0x30-0x31, 0x34-0x35, 0x5b-0x5d).
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from pvhboot.shim.abi import rtc
from pvhboot.shim.machines import KIB, MIB

from ..clock import Clock
from .rtc import Rtc, put_time

POWER_ON_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # fixed, so that two runs are the same
_INDEX_PORT: Final = 0
_NMI_MASK: Final = 0x80
_BASE_MEMORY_KIB: Final = 640  # at most


class Cmos:
    """128 bytes: the time, which is `now` at power on, and the sizes of `ram` bytes of which `low_max` may lie below 4 GiB.
    Without a `clock` the time stands still; with one `irq` is told each level of the real-time clock's interrupt."""

    def __init__(
        self, ram: int, low_max: int, now: datetime, clock: Clock | None = None, irq: Callable[[bool], None] | None = None
    ) -> None:
        self._index = 0
        self._data = bytearray(128)
        divider = rtc.RTC_A_DIVIDER | rtc.RTC_A_RATE_1024_HZ
        self._data[rtc.RTC_A : rtc.RTC_D + 1] = bytes((divider, rtc.RTC_B_24H, 0, rtc.RTC_D_VALID))
        put_time(self._data, now)
        low = min(ram, low_max)
        extended = min(max(0, low - MIB) // KIB, 0xFFFF)
        above_16m = min(max(0, low - 16 * MIB) // (64 * KIB), 0xFFFF)
        above_4g = max(0, ram - low) // (64 * KIB)
        self._put(0x15, min(low // KIB, _BASE_MEMORY_KIB), 2)
        self._put(0x17, extended, 2)
        self._put(0x30, extended, 2)
        self._put(0x34, above_16m, 2)
        self._put(0x5B, min(above_4g, 0xFFFFFF), 3)
        self._rtc = None if clock is None or irq is None else Rtc(self._data, clock, irq, now)

    def _put(self, at: int, value: int, size: int) -> None:
        self._data[at : at + size] = value.to_bytes(size, "little")

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The data port; the index port cannot be read and gives all ones."""
        if offset == _INDEX_PORT:
            return 0xFF
        if self._rtc is not None:
            self._rtc.prepare(self._index)
        value = self._data[self._index]
        if self._rtc is not None and self._index == rtc.RTC_C:
            self._rtc.seen()
        return value

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """The index (its top bit masks NMIs), or the data there."""
        if offset == _INDEX_PORT:
            self._index = value & ~_NMI_MASK
        elif self._rtc is not None:
            self._rtc.write(self._index, value)
        else:
            self._data[self._index] = value
