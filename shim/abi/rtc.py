"""The real-time clock of a PC: its registers in CMOS memory.

Source: Motorola MC146818A datasheet, "Registers" and "Update cycle" (with the 32 kHz crystal), table 5 (periodic rates); IBM PC
AT Technical Reference, "Real-time clock information" (the century's byte, IRQ 8).
"""

from typing import Final

RTC_IRQ: Final = 8
RTC_SECONDS: Final = 0x00  # the alarm's byte follows each of the first three
RTC_MINUTES: Final = 0x02
RTC_HOURS: Final = 0x04
RTC_WEEKDAY: Final = 0x06  # Sunday is 1
RTC_DAY: Final = 0x07
RTC_MONTH: Final = 0x08
RTC_YEAR: Final = 0x09
RTC_A: Final = 0x0A
RTC_B: Final = 0x0B
RTC_C: Final = 0x0C
RTC_D: Final = 0x0D
RTC_CENTURY: Final = 0x32

RTC_HOURS_PM: Final = 1 << 7  # with 12 hours
RTC_ALARM_ANY: Final = 0xC0  # both bits: every value of this byte is the alarm's

RTC_A_UPDATING: Final = 1 << 7
RTC_A_DIVIDER: Final = 2 << 4  # the crystal has 32768 Hz
RTC_A_RATE: Final = 0x0F
RTC_A_RATE_1024_HZ: Final = 6

RTC_B_SET: Final = 1 << 7  # the time stands still
RTC_B_PERIODIC: Final = 1 << 6  # these three enable interrupts, and are where register C has their flags
RTC_B_ALARM: Final = 1 << 5
RTC_B_UPDATE: Final = 1 << 4
RTC_B_BINARY: Final = 1 << 2
RTC_B_24H: Final = 1 << 1
RTC_C_IRQ: Final = 1 << 7
RTC_D_VALID: Final = 1 << 7

RTC_CRYSTAL_HZ: Final = 32_768
RTC_UPDATE_NS: Final = 244_000 + 1_984_000  # so long before a second is over RTC_A_UPDATING is set


def rtc_rate(select: int) -> int:
    """Hz of the periodic interrupt by its four bits; 0: none."""
    if not select:
        return 0
    return RTC_CRYSTAL_HZ >> (select + 6 if select < 3 else select - 1)
