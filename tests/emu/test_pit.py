"""The 8254: modes, latches, outputs, by its datasheet."""

import pytest
from pvhboot.emu.clock import Clock
from pvhboot.emu.devices.pit import Pit

HZ = 1_193_182


def ns(ticks: float) -> int:
    """Long enough for so many ticks."""
    return int(ticks * 1_000_000_000 / HZ) + 1


class Bench:
    """A timer, its clock, and what its output has done."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.levels: list[bool] = []
        self.pit = Pit(self.clock, self.levels.append)

    def program(self, channel: int, word: int, count: int) -> None:
        self.pit.write(3, 1, channel << 6 | word)
        self.pit.write(channel, 1, count & 0xFF)
        if word & 0x30 == 0x30:
            self.pit.write(channel, 1, count >> 8)
        self.levels.clear()

    def pass_ticks(self, ticks: float) -> None:
        """Time passes; timers expire when they are due."""
        end = self.clock.now + ns(ticks)
        while (due := self.clock.next) is not None and due <= end:
            self.clock.advance(due - self.clock.now)
            self.clock.run_due()
        self.clock.advance(end - self.clock.now)

    def count(self, channel: int = 0) -> int:
        """By the channel itself: a port would take its time."""
        chosen = self.pit.channels[channel]
        chosen.latch_count()
        return chosen.read() | chosen.read() << 8


@pytest.mark.parametrize(
    ("word", "count", "ticks", "rises"),
    [
        (0x30, 1000, 999, 0),  # mode 0: once, at the terminal count
        (0x30, 1000, 1001, 1),
        (0x30, 1000, 5000, 1),
        (0x34, 1000, 999, 0),  # mode 2: each time
        (0x34, 1000, 10_001, 10),
        (0x3C, 1000, 10_001, 10),  # its other number
        (0x36, 1000, 10_001, 10),  # mode 3: each time
        (0x3E, 1000, 10_001, 10),
        (0x38, 1000, 1000, 0),  # mode 4: a strobe of one tick
        (0x38, 1000, 9000, 1),
        (0x32, 1000, 9000, 0),  # modes 1 and 5 wait for a gate, which channel 0 does not have
        (0x3A, 1000, 9000, 0),
        (0x34, 0, 65_535, 0),  # 0 is 65536
        (0x34, 0, 65_537, 1),
        (0x35, 0x1000, 10_001, 10),  # in BCD, 1000 again
        (0x14, 0x64, 1001, 10),  # the low byte alone
        (0x24, 0x04, 10_241, 10),  # the high one
    ],
)
def test_channel_0_interrupts(word, count, ticks, rises):
    bench = Bench()
    bench.program(0, word, count)
    bench.pass_ticks(ticks - 1)
    assert bench.levels.count(True) == rises


@pytest.mark.parametrize(
    ("word", "count", "ticks", "value"),
    [
        (0x30, 1000, 100, 900),
        (0x30, 1000, 1001, 0xFFFF),  # it goes on below 0
        (0x34, 1000, 100, 900),
        (0x34, 1000, 1100, 900),
        (0x36, 1000, 100, 800),  # by twos
        (0x36, 1000, 600, 800),
        (0x38, 1000, 100, 900),
        (0x35, 0x1000, 1, 0x0999),
    ],
)
def test_a_count_can_be_read(word, count, ticks, value):
    bench = Bench()
    bench.program(0, word, count)
    bench.clock.advance(ns(ticks))
    assert bench.count() == value


def test_a_latched_count_stays_until_it_is_read():
    bench = Bench()
    bench.program(0, 0x34, 1000)
    bench.clock.advance(ns(10))
    bench.pit.write(3, 1, 0x00)
    bench.clock.advance(ns(100))
    bench.pit.write(3, 1, 0x00)  # of no effect
    low, high = bench.pit.read(0, 1), bench.pit.read(0, 1)
    assert 980 < low | high << 8 <= 990
    assert (bench.pit.read(0, 1) | bench.pit.read(0, 1) << 8) < 900


@pytest.mark.parametrize(
    ("word", "ticks", "status"), [(0x30, 5, 0x30), (0x30, 2000, 0xB0), (0x34, 5, 0xB4), (0x36, 5, 0xB6), (0x36, 600, 0x36)]
)
def test_read_back_latches_status_before_count(word, ticks, status):
    bench = Bench()
    bench.program(0, word, 1000)
    bench.clock.advance(ns(ticks))
    bench.pit.write(3, 1, 0xC2)
    assert bench.pit.read(0, 1) == status
    first = bench.pit.read(0, 1) | bench.pit.read(0, 1) << 8
    bench.clock.advance(ns(3))
    assert bench.count() != first


def test_the_status_says_that_a_count_is_yet_to_come():
    bench = Bench()
    bench.pit.write(3, 1, 0x34)
    bench.pit.write(3, 1, 0xE2)
    assert bench.pit.read(0, 1) & 0x40
    bench.pit.write(0, 1, 1)
    bench.pit.write(0, 1, 1)
    bench.pit.write(3, 1, 0xE2)
    assert not bench.pit.read(0, 1) & 0x40


def test_port_61_gates_channel_2_and_shows_its_output():
    bench, ticks = Bench(), 1000
    port = bench.pit.port_b
    assert port.read(0, 1) & 0x0F == 0
    port.write(0, 1, 0xFD)
    assert port.read(0, 1) & 0x0F == 0x0D
    bench.program(2, 0x30, ticks)
    assert not port.read(0, 1) & 0x20
    bench.clock.advance(ns(ticks))
    assert port.read(0, 1) & 0x20


def test_a_gate_that_is_closed_holds_the_count():
    bench = Bench()
    bench.pit.port_b.write(0, 1, 1)
    bench.program(2, 0x30, 1000)
    bench.clock.advance(ns(100))
    bench.pit.port_b.write(0, 1, 0)
    held = bench.count(2)
    bench.clock.advance(ns(5000))
    assert bench.count(2) == held
    bench.pit.port_b.write(0, 1, 1)
    bench.clock.advance(ns(50))
    assert held - 55 < bench.count(2) < held - 45


def test_the_refresh_bit_toggles():
    bench, seen = Bench(), set()
    for _ in range(40):
        seen.add(bench.pit.port_b.read(0, 1) & 0x10)
    assert seen == {0, 0x10}


def test_after_a_reset_it_counts_and_does_not_interrupt():
    bench = Bench()
    bench.clock.advance(ns(1000))
    bench.pit.write(3, 1, 0xC2)
    assert not bench.pit.read(0, 1) & 0x40
    assert bench.clock.next is None
    assert bench.levels == []


def test_a_look_takes_time():
    bench = Bench()
    before = bench.clock.now
    bench.pit.read(0, 1)
    assert bench.clock.now > before
