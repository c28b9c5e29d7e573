"""The I/O APIC: pins, registers, levels."""

import pytest
from pvhboot.emu.devices.ioapic import IoApic

INDEX, DATA = 0x00, 0x10
MASKED, LEVEL, REMOTE = 1 << 16, 1 << 15, 1 << 14


class Bench:
    """An I/O APIC, and what it has sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bool]] = []
        self.apic = IoApic(lambda vector, level: self.sent.append((vector, level)))

    def read(self, register: int) -> int:
        self.apic.write(INDEX, 4, register)
        assert self.apic.read(INDEX, 4) == register
        return self.apic.read(DATA, 4)

    def write(self, register: int, value: int) -> None:
        self.apic.write(INDEX, 4, register)
        self.apic.write(DATA, 4, value)


@pytest.mark.parametrize(
    ("register", "written", "read"),
    [
        (0, 0xFFFF_FFFF, 0x0F00_0000),
        (1, 0xFFFF_FFFF, 0x0017_0011),
        (0x10, 0xFFFF_FFFF, 0x0001_AFFF),
        (0x11, 0xFFFF_FFFF, 0xFF00_0000),
        (0x3F, 0xFFFF_FFFF, 0xFF00_0000),
        (0x40, 0xFFFF_FFFF, 0),
    ],
)
def test_registers(register, written, read):
    bench = Bench()
    bench.write(register, written)
    assert bench.read(register) == read


def test_after_a_reset_all_pins_are_masked():
    bench = Bench()
    assert all(bench.read(0x10 + 2 * pin) == MASKED for pin in range(24))
    bench.apic.set_line(4, True)
    assert bench.sent == []


@pytest.mark.parametrize(("line", "pin"), [(0, 2), (1, 1), (4, 4), (15, 15)])
def test_a_line_has_its_pin_and_an_edge_is_sent_once(line, pin):
    bench = Bench()
    bench.write(0x10 + 2 * pin, 0x41)
    for level in (True, True, False, True):
        bench.apic.set_line(line, level)
    assert bench.sent == [(0x41, False)] * 2


def test_a_level_is_sent_again_when_it_is_over_and_still_there():
    bench = Bench()
    bench.write(0x18, LEVEL | 0x51)
    bench.apic.set_line(4, True)
    assert bench.read(0x18) == LEVEL | REMOTE | 0x51
    bench.apic.set_line(4, True)
    assert bench.sent == [(0x51, True)]
    bench.apic.end(0x52)
    assert len(bench.sent) == 1
    bench.apic.end(0x51)
    assert len(bench.sent) == 2
    bench.apic.set_line(4, False)
    bench.apic.end(0x51)
    assert len(bench.sent) == 2
    assert bench.read(0x18) == LEVEL | 0x51


@pytest.mark.parametrize(
    ("entry", "asks"), [(0x41, False), (LEVEL | 0x41, True), (LEVEL | MASKED | 0x41, False), (0x741, False)]
)
def test_a_line_that_is_high_when_its_pin_is_programmed(entry, asks):
    bench = Bench()
    bench.apic.set_line(5, True)
    bench.write(0x1A, entry)
    assert bool(bench.sent) is asks
