"""CMOS memory and the real-time clock behind ports 0x70 and 0x71, with a clock that stands still.

Source: Motorola MC146818A datasheet, "Registers" (time in 0x00-0x09, status in 0x0a-0x0d); the memory sizes are at the
places of the IBM PC AT and of QEMU (0x15-0x18, 0x30-0x31, 0x34-0x35, 0x5b-0x5d).
"""

from datetime import datetime
from typing import Final

from pvhboot.shim.machines import KIB, MIB

_INDEX_PORT: Final = 0
_NMI_MASK: Final = 0x80
_STATUS_A_DIVIDER: Final = 0x26
_STATUS_B_24H: Final = 0x02
_STATUS_D_VALID: Final = 0x80
_BASE_MEMORY_KIB: Final = 640  # at most


def _bcd(value: int) -> int:
    return value // 10 << 4 | value % 10


class Cmos:
    """128 bytes: the time `now`, in BCD, and the sizes of `ram` bytes of which `low_max` may lie below 4 GiB."""

    def __init__(self, ram: int, low_max: int, now: datetime) -> None:
        self._index = 0
        self._data = bytearray(128)
        times = {
            0x00: now.second,
            0x02: now.minute,
            0x04: now.hour,
            0x06: now.isoweekday() % 7 + 1,
            0x07: now.day,
            0x08: now.month,
            0x09: now.year % 100,
            0x32: now.year // 100,
        }
        for at, value in times.items():
            self._data[at] = _bcd(value)
        self._data[0x0A:0x0E] = bytes((_STATUS_A_DIVIDER, _STATUS_B_24H, 0, _STATUS_D_VALID))
        low = min(ram, low_max)
        extended = min(max(0, low - MIB) // KIB, 0xFFFF)
        above_16m = min(max(0, low - 16 * MIB) // (64 * KIB), 0xFFFF)
        above_4g = max(0, ram - low) // (64 * KIB)
        self._put(0x15, min(low // KIB, _BASE_MEMORY_KIB), 2)
        self._put(0x17, extended, 2)
        self._put(0x30, extended, 2)
        self._put(0x34, above_16m, 2)
        self._put(0x5B, min(above_4g, 0xFFFFFF), 3)

    def _put(self, at: int, value: int, size: int) -> None:
        self._data[at : at + size] = value.to_bytes(size, "little")

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The data port; the index port cannot be read and gives all ones."""
        return 0xFF if offset == _INDEX_PORT else self._data[self._index]

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """The index (its top bit masks NMIs), or the data there."""
        if offset == _INDEX_PORT:
            self._index = value & ~_NMI_MASK
        else:
            self._data[self._index] = value
