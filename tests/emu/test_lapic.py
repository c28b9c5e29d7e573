"""The local APIC, by the SDM: priorities, vectors, the timer, what it sends itself, the 8259A behind it."""

import pytest
from pvhboot.emu.clock import Clock
from pvhboot.emu.devices.lapic import LocalApic
from pvhboot.emu.devices.pic import PicPair

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, IRR, ESR, ICR, ICR_HIGH = 0x100, 0x200, 0x280, 0x300, 0x310
TIMER, LINT0, ERROR, INITIAL, CURRENT, DIVIDE = 0x320, 0x350, 0x370, 0x380, 0x390, 0x3E0
MASKED, PERIODIC, SELF = 1 << 16, 1 << 17, 1 << 18


class Bench:
    """A local APIC that is on, with its clock and the 8259A behind it."""

    def __init__(self, *, on: bool = True) -> None:
        self.clock, self.pics = Clock(), PicPair()
        self.apic = LocalApic(self.clock, self.pics)
        if on:
            self.write(SVR, 0x1FF)

    def write(self, register: int, value: int) -> None:
        self.apic.write(register, 4, value)

    def read(self, register: int) -> int:
        return self.apic.read(register, 4)

    def send(self, *vectors: int) -> None:
        for vector in vectors:
            self.write(ICR, SELF | vector)

    def vectors(self, first: int) -> set[int]:
        return {32 * word + bit for word in range(8) for bit in range(32) if self.read(first + 16 * word) >> bit & 1}

    def pass_ns(self, ns: int) -> None:
        end = self.clock.now + ns
        while (due := self.clock.next) is not None and due <= end:
            self.clock.advance(due - self.clock.now)
            self.clock.run_due()
        self.clock.advance(end - self.clock.now)


@pytest.mark.parametrize(
    ("register", "value"),
    [(ID, 0), (VERSION, 0x0005_0014), (SVR, 0xFF), (DFR, 0xFFFF_FFFF), (TIMER, MASKED), (LINT0, 0x700), (TPR, 0), (0x40, 0)],
)
def test_after_a_reset(register, value):
    assert Bench(on=False).read(register) == value


@pytest.mark.parametrize(
    ("register", "written", "read"),
    [
        (ID, 0xFFFF_FFFF, 0xFF00_0000),
        (TPR, 0x1234, 0x34),
        (DFR, 0, 0x0FFF_FFFF),
        (LDR, 0xFFFF_FFFF, 0xFF00_0000),
        (VERSION, 0, 0x0005_0014),
        (TIMER, 0xFFFF_FFFF, 0x0003_00FF),
        (LINT0, 0xFFFF_FFFF, 0x0001_A7FF),
        (DIVIDE, 0xFF, 0x0B),
        (IRR, 0xFFFF_FFFF, 0),
    ],
)
def test_the_bits_that_can_be_written(register, written, read):
    bench = Bench()
    bench.write(register, written)
    assert bench.read(register) == read


def test_accesses_other_than_of_32_bits_do_nothing():
    bench = Bench()
    bench.apic.write(TPR, 1, 0x50)
    bench.apic.write(TPR + 4, 4, 0x50)
    assert bench.read(TPR) == 0
    assert bench.apic.read(VERSION, 1) == bench.apic.read(VERSION + 4, 4) == 0


def test_what_is_sent_is_served_by_priority():
    bench = Bench()
    bench.send(0x31, 0x45, 0x40)
    assert bench.vectors(IRR) == {0x31, 0x40, 0x45}
    assert bench.apic.acknowledge() == 0x45
    assert bench.vectors(ISR) == {0x45}
    assert bench.read(PPR) == 0x40
    assert not bench.apic.requested  # 0x40 is of the same class
    bench.send(0x50)
    assert bench.apic.acknowledge() == 0x50
    bench.write(EOI, 0)
    assert bench.vectors(ISR) == {0x45}
    bench.write(EOI, 0)
    assert [bench.apic.acknowledge(), bench.read(PPR)] == [0x40, 0x40]


@pytest.mark.parametrize(("tpr", "asks"), [(0x2F, True), (0x30, False), (0x40, False)])
def test_the_task_s_priority_holds_back(tpr, asks):
    bench = Bench()
    bench.write(TPR, tpr)
    bench.send(0x35)
    assert bench.apic.requested is asks
    bench.write(TPR, 0)
    assert bench.apic.requested


def test_who_finds_nothing_gets_the_spurious_vector():
    bench = Bench()
    assert bench.apic.acknowledge() == 0xFF
    assert bench.vectors(ISR) == set()


@pytest.mark.parametrize(
    ("high", "low", "mine"),
    [
        (0, SELF | 0x30, True),
        (0, 2 << 18 | 0x30, True),  # all
        (0, 3 << 18 | 0x30, False),  # all but itself
        (3 << 24, 0x30, True),  # its ID
        (4 << 24, 0x30, False),
        (0xFF << 24, 0x30, True),
        (2 << 24, 1 << 11 | 0x30, True),  # logical, flat
        (4 << 24, 1 << 11 | 0x30, False),
        (0, SELF | 5 << 8 | 0x30, False),  # INIT
    ],
)
def test_destinations(high, low, mine):
    bench = Bench()
    bench.write(ID, 3 << 24)
    bench.write(LDR, 2 << 24)
    bench.write(ICR_HIGH, high)
    bench.write(ICR, low)
    assert bench.vectors(IRR) == ({0x30} if mine else set())


def test_the_cluster_model():
    for destination, mine in ((0x12, True), (0x13, True), (0x14, False), (0x22, False), (0xF2, True)):
        bench = Bench()
        bench.write(DFR, 0x0FFF_FFFF)
        bench.write(LDR, 0x12 << 24)
        bench.write(ICR_HIGH, destination << 24)
        bench.write(ICR, 1 << 11 | 0x30)
        assert bool(bench.vectors(IRR)) is mine, hex(destination)


def test_a_vector_that_cannot_be_is_an_error():
    bench = Bench()
    bench.write(ERROR, 0x60)
    bench.send(0x0F)
    assert bench.read(ESR) == 0
    bench.write(ESR, 0)
    assert bench.read(ESR) == 1 << 5
    bench.write(ESR, 0)
    assert bench.read(ESR) == 0
    assert bench.vectors(IRR) == {0x60}


def test_switched_off_it_takes_nothing_and_masks_all():
    bench = Bench()
    bench.write(TIMER, 0x40)
    bench.write(SVR, 0xFF)
    bench.send(0x30)
    assert not bench.apic.requested
    assert bench.read(TIMER) == MASKED | 0x40
    bench.write(TIMER, 0x40)
    assert bench.read(TIMER) == MASKED | 0x40


@pytest.mark.parametrize(
    ("divide", "by"), [(0b1011, 1), (0, 2), (1, 4), (2, 8), (3, 16), (0b1000, 32), (0b1001, 64), (0b1010, 128)]
)
def test_the_timer_divides(divide, by):
    bench = Bench()
    bench.write(TIMER, 0x40)
    bench.write(DIVIDE, divide)
    bench.write(INITIAL, 10_000)
    bench.pass_ns(10_000 * by - 1)
    assert not bench.apic.requested
    bench.pass_ns(1)
    assert bench.apic.acknowledge() == 0x40
    assert bench.read(CURRENT) == 0
    bench.pass_ns(1_000_000)
    assert not bench.apic.requested


def test_a_periodic_timer_goes_on_until_it_is_set_to_0():
    bench, ticks = Bench(), 0
    bench.write(DIVIDE, 0b1011)
    bench.write(TIMER, PERIODIC | 0x40)
    bench.write(INITIAL, 10_000)
    for _ in range(10):
        bench.pass_ns(10_000)
        ticks += bench.apic.acknowledge() == 0x40
        bench.write(EOI, 0)
    assert ticks == 10
    assert 0 < bench.read(CURRENT) <= 10_000
    bench.write(INITIAL, 0)
    bench.pass_ns(100_000)
    assert not bench.apic.requested


def test_periods_that_have_gone_by_together_are_one_request():
    bench = Bench()
    bench.write(DIVIDE, 0b1011)
    bench.write(TIMER, PERIODIC | 0x40)
    bench.write(INITIAL, 10_000)
    begun = bench.clock.now
    bench.clock.advance(1_000_000_000)
    bench.clock.run_due()
    assert bench.clock.next == begun + 1_000_010_000
    assert bench.apic.acknowledge() == 0x40
    bench.write(EOI, 0)
    assert not bench.apic.requested


@pytest.mark.parametrize(("periodic", "ns"), [(0, 2), (PERIODIC, 1000)])
def test_a_period_is_no_shorter_than_a_guest_gets_on_in(periodic, ns):
    bench = Bench()
    bench.write(TIMER, periodic | 0x40)
    bench.write(INITIAL, 1)
    assert bench.clock.next == bench.clock.now + ns


def test_a_masked_timer_counts_and_is_silent():
    bench = Bench()
    bench.write(DIVIDE, 0b1011)
    bench.write(TIMER, MASKED | 0x40)
    bench.write(INITIAL, 100_000)
    bench.pass_ns(50_000)
    assert 40_000 < bench.read(CURRENT) <= 50_000
    bench.pass_ns(60_000)
    assert not bench.vectors(IRR)


def request_from_pic(bench: Bench) -> None:
    for offset, value in ((0, 0x11), (1, 0x20), (1, 4), (1, 1)):
        bench.pics.master.write(offset, 1, value)
    bench.pics.set_line(4, True)


@pytest.mark.parametrize(
    ("entry", "vector"), [(None, 0x24), (0x700, 0x24), (MASKED | 0x700, None), (0x55, 0x55), (MASKED | 0x55, None)]
)
def test_lint0_lets_the_8259a_through(entry, vector):
    bench, told = Bench(on=entry is not None), []
    bench.apic.told = lambda: told.append(bench.apic.requested)
    if entry is not None:
        bench.write(LINT0, entry)
    request_from_pic(bench)
    assert bench.apic.requested is (vector is not None)
    if vector is not None:
        assert told
        assert bench.apic.acknowledge() == vector


def test_its_own_go_before_the_8259a_s():
    bench = Bench()
    bench.write(LINT0, 0x700)
    request_from_pic(bench)
    bench.send(0x90)
    assert [bench.apic.acknowledge() for _ in range(2)] == [0x90, 0x24]
