"""The real-time clock of a board whose time goes on."""

from datetime import UTC, datetime

import pytest
from pvhboot.emu.clock import SECOND, Clock
from pvhboot.emu.devices.cmos import Cmos

A, B, C, D = 0x0A, 0x0B, 0x0C, 0x0D
PERIODIC, ALARM, UPDATE = 0x40, 0x20, 0x10


class Bench:
    """A clock that was started at a time, and what its interrupt line has done."""

    def __init__(self, now: datetime = datetime(2024, 2, 28, 23, 59, 57, tzinfo=UTC)) -> None:
        self.clock = Clock()
        self.levels: list[bool] = []
        self.cmos = Cmos(64 << 20, 3 << 30, now, self.clock, self.levels.append)

    def read(self, register: int) -> int:
        self.cmos.write(0, 1, register)
        return self.cmos.read(1, 1)

    def write(self, register: int, value: int) -> None:
        self.cmos.write(0, 1, register)
        self.cmos.write(1, 1, value)

    def time(self) -> str:
        """Century to seconds, as they are stored, and the weekday."""
        return " ".join(f"{self.read(register):02x}" for register in (0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00, 0x06))

    def pass_ns(self, ns: int) -> None:
        end = self.clock.now + ns
        while (due := self.clock.next) is not None and due <= end:
            self.clock.advance(due - self.clock.now)
            self.clock.run_due()
        self.clock.advance(max(end - self.clock.now, 0))

    @property
    def interrupts(self) -> int:
        return sum(after and not before for before, after in zip([False, *self.levels], self.levels, strict=False))


def test_the_time_goes_on_over_a_leap_day():
    bench = Bench()
    assert bench.time() == "20 24 02 28 23 59 57 04"
    bench.pass_ns(3 * SECOND)
    assert bench.time() == "20 24 02 29 00 00 00 05"
    bench.pass_ns(86_400 * SECOND)
    assert bench.time() == "20 24 03 01 00 00 00 06"


@pytest.mark.parametrize(
    ("mode", "hour", "stored"),
    [
        (0x02, 0, 0x00),
        (0x02, 23, 0x23),
        (0x06, 23, 23),
        (0x00, 0, 0x12),
        (0x00, 11, 0x11),
        (0x00, 12, 0x92),
        (0x00, 23, 0x91),
        (0x04, 23, 0x8B),
    ],
)
def test_hours_in_each_form_and_back(mode, hour, stored):
    bench = Bench(datetime(2024, 1, 1, hour, 30, tzinfo=UTC))
    bench.write(B, mode)
    assert bench.read(4) == stored
    bench.write(4, stored)
    bench.write(B, 0x06)
    assert bench.read(4) == hour


def test_the_update_is_announced():
    bench = Bench()
    bench.pass_ns(SECOND // 2)
    assert not bench.read(A) & 0x80
    bench.pass_ns(SECOND // 2 - 1_000_000)
    assert bench.read(A) & 0x80
    bench.pass_ns(2_000_000)
    assert not bench.read(A) & 0x80


def test_the_time_is_set():
    bench = Bench()
    bench.write(B, 0x82)
    for register, value in ((0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)):
        bench.write(register, value)
    bench.pass_ns(5 * SECOND)
    assert bench.read(0) == 0x58  # it stands still
    bench.write(B, 0x02)
    bench.pass_ns(2 * SECOND)
    assert bench.time() == "20 00 01 01 00 00 00 07"


@pytest.mark.parametrize(("rate", "hz"), [(6, 1024), (15, 2), (1, 256), (3, 8192)])
def test_periodic_interrupts(rate, hz):
    bench, count = Bench(), 0
    bench.write(A, 0x20 | rate)
    bench.write(B, 0x02 | PERIODIC)
    for _ in range(8):
        bench.pass_ns(SECOND // hz + 1)
        count += bench.read(C) & (0x80 | PERIODIC) == 0x80 | PERIODIC
    assert count == 8
    assert bench.interrupts == 8
    assert bench.levels[-1] is False


def test_without_rate_there_are_none():
    bench = Bench()
    bench.write(A, 0x20)
    bench.write(B, 0x02 | PERIODIC)
    bench.pass_ns(SECOND)
    assert bench.interrupts == 0


def test_an_interrupt_waits_until_register_c_is_read():
    bench = Bench()
    bench.write(B, 0x02 | UPDATE)
    bench.pass_ns(3 * SECOND)
    assert bench.interrupts == 1
    assert bench.read(C) & (0x80 | UPDATE) == 0x80 | UPDATE
    assert bench.read(C) == 0
    bench.pass_ns(SECOND)
    assert bench.interrupts == 2


@pytest.mark.parametrize(
    ("alarm", "after"),
    [((0x59, 0x59, 0x23), 2), ((0x05, 0x00, 0x00), 8), ((0xC0, 0xFF, 0xFF), 1), ((0x30, 0xFF, 0xFF), 33)],
)
def test_the_alarm(alarm, after):
    bench = Bench()
    for register, value in zip((1, 3, 5), alarm, strict=True):
        bench.write(register, value)
    bench.write(B, 0x02 | ALARM)
    bench.pass_ns((after - 1) * SECOND)
    assert bench.interrupts == 0
    bench.pass_ns(SECOND)
    assert bench.interrupts == 1
    assert bench.read(C) & ALARM


def test_flags_come_without_interrupts_too():
    bench = Bench()
    bench.read(C)
    bench.pass_ns(SECOND)
    assert bench.read(C) == PERIODIC | UPDATE
    assert bench.levels.count(True) == 0


def test_register_d_says_that_the_time_is_valid_and_keeps_to_it():
    bench = Bench()
    bench.write(D, 0)
    assert bench.read(D) == 0x80


def test_what_is_no_time_leaves_the_time_as_it_is():
    bench = Bench()
    bench.write(8, 0x13)
    bench.pass_ns(3 * SECOND)
    assert bench.time() == "20 24 02 29 00 00 00 05"


def test_behind_the_last_year_that_there_is_time_stands_still():
    bench = Bench()
    for register, value in ((0x32, 0x99), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)):
        bench.write(register, value)
    bench.pass_ns(10 * SECOND)
    assert bench.time() == "99 99 12 31 23 59 59 06"


def test_register_c_says_of_what_it_has_just_found_that_it_interrupts():
    """The clock has been read before its timer has expired: the interrupt is not lost."""
    bench = Bench()
    bench.write(B, 0x02 | UPDATE)
    bench.clock.advance(SECOND)
    assert bench.read(C) & (0x80 | UPDATE) == 0x80 | UPDATE
    assert bench.interrupts == 1
