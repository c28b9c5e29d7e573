"""The 8259A: its datasheet's rules, alone and as the pair of a PC."""

import pytest
from pvhboot.emu.devices.pic import Pic, PicPair

BASE = 0x20


def initialised(icw4: int = 1, icw1: int = 0x11, cascade: int | None = None) -> Pic:
    pic = Pic(cascade=cascade)
    for offset, value in ((0, icw1), (1, BASE), (1, 4), (1, icw4)):
        pic.write(offset, 1, value)
    return pic


def pulse(pic: Pic, *inputs: int) -> None:
    for number in inputs:
        pic.set_input(number, False)
        pic.set_input(number, True)


def registers(pic: Pic) -> tuple[int, int]:
    """IRR and ISR."""
    pic.write(0, 1, 0x0A)
    requests = pic.read(0, 1)
    pic.write(0, 1, 0x0B)
    return requests, pic.read(0, 1)


def test_a_request_is_served_once():
    pic = initialised()
    assert not pic.requested
    pulse(pic, 3)
    assert pic.requested
    assert registers(pic) == (1 << 3, 0)
    assert pic.acknowledge() == BASE + 3
    assert registers(pic) == (0, 1 << 3)
    assert not pic.requested


@pytest.mark.parametrize(
    ("served", "asking", "interrupts"),
    [(3, 2, True), (3, 3, False), (3, 4, False), (0, 7, False), (7, 0, True)],
)
def test_only_a_higher_priority_interrupts_what_is_served(served, asking, interrupts):
    pic = initialised()
    pulse(pic, served)
    pic.acknowledge()
    pulse(pic, asking)
    assert pic.requested is interrupts
    pic.write(0, 1, 0x20)
    assert pic.requested is (asking != served or not interrupts)


def test_the_mask_holds_a_request_back_and_does_not_forget_it():
    pic = initialised()
    pic.write(1, 1, 0xFF)
    pulse(pic, 5)
    assert not pic.requested
    assert pic.read(1, 1) == 0xFF
    pic.write(1, 1, 0xDF)
    assert pic.acknowledge() == BASE + 5


def test_who_asks_too_late_finds_the_default_input_and_nothing_in_service():
    pic = initialised()
    pulse(pic, 2)
    pic.set_input(2, False)
    assert not pic.requested
    assert pic.acknowledge() == BASE + 7
    assert registers(pic) == (0, 0)


def test_an_edge_asks_once_a_level_as_long_as_it_lasts():
    for icw1, again in ((0x11, False), (0x19, True)):
        pic = initialised(icw1=icw1)
        pulse(pic, 1)
        pic.acknowledge()
        pic.write(0, 1, 0x20)
        assert pic.requested is again


@pytest.mark.parametrize(
    ("command", "left", "order"),
    [
        (0x20, 0b1010_0000, [0, 1, 2, 3, 4, 5, 6, 7]),  # end the highest
        (0x65, 0b1000_0010, [0, 1, 2, 3, 4, 5, 6, 7]),  # end input 5
        (0xA0, 0b1010_0000, [2, 3, 4, 5, 6, 7, 0, 1]),  # end the highest, which becomes the lowest
        (0xE5, 0b1000_0010, [6, 7, 0, 1, 2, 3, 4, 5]),  # end input 5, the same
        (0xC3, 0b1010_0010, [4, 5, 6, 7, 0, 1, 2, 3]),  # set it, and end nothing
        (0x40, 0b1010_0010, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_ends_and_rotations(command, left, order):
    pic = initialised()
    for number in (7, 5, 1):
        pulse(pic, number)
        pic.acknowledge()
    pic.write(0, 1, command)
    assert registers(pic)[1] == left
    for number in range(8):
        pic.write(0, 1, 0x60 | number)
    for number in range(8):
        pulse(pic, number)
    found = []
    while pic.requested:
        found.append(pic.acknowledge() - BASE)
        pic.write(0, 1, 0x60 | found[-1])
    assert found == order


def test_auto_eoi_leaves_nothing_in_service_and_rotates_if_told():
    pic = initialised(icw4=3)
    pulse(pic, 4)
    assert pic.acknowledge() == BASE + 4
    assert registers(pic) == (0, 0)
    pic.write(0, 1, 0x80)
    pulse(pic, 4, 5)
    assert pic.acknowledge() == BASE + 4
    pulse(pic, 3, 4)
    assert [pic.acknowledge() - BASE for _ in range(3)] == [5, 3, 4]
    pic.write(0, 1, 0x00)


def test_a_poll_serves():
    pic = initialised()
    pic.write(0, 1, 0x0C)
    assert pic.read(0, 1) & 0x80 == 0
    pulse(pic, 6)
    pic.write(0, 1, 0x0C)
    assert pic.read(0, 1) == 0x86
    assert registers(pic) == (0, 1 << 6)


def test_the_special_mask_mode_lets_lower_ones_in():
    pic = initialised()
    pulse(pic, 2)
    pic.acknowledge()
    pulse(pic, 5)
    pic.write(1, 1, 1 << 2)
    assert not pic.requested
    pic.write(0, 1, 0x68)
    assert pic.requested
    assert pic.acknowledge() == BASE + 5
    pic.write(0, 1, 0x20)
    assert registers(pic)[1] == 1 << 2  # a masked one is not ended but by its number
    pic.write(0, 1, 0x48)


@pytest.mark.parametrize(("icw1", "words"), [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)])
def test_as_many_words_initialise_as_the_first_one_says(icw1, words):
    pic = Pic()
    pic.write(0, 1, icw1)
    for _ in range(words):
        pic.write(1, 1, BASE)
        assert pic.read(1, 1) == 0
    pic.write(1, 1, 0xA5)
    assert pic.read(1, 1) == 0xA5


def pair() -> PicPair:
    both = PicPair()
    for pic, base, cascade in ((both.master, 0x20, 4), (both.slave, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, base), (1, cascade), (1, 1)):
            pic.write(offset, 1, value)
    return both


def test_the_slave_speaks_through_the_master():
    both, told = pair(), []
    both.told = lambda: told.append(both.requested)
    both.set_line(8, True)
    assert told == [True]
    assert both.acknowledge() == 0x28
    assert (registers(both.master)[1], registers(both.slave)[1]) == (1 << 2, 1)


@pytest.mark.parametrize(("lines", "order"), [([4, 8], [8, 4]), ([1, 15], [1, 15]), ([3, 9, 14, 0], [0, 9, 14, 3])])
def test_the_pair_s_priorities(lines, order):
    both = pair()
    for number in lines:
        both.set_line(number, True)
    found = []
    while both.requested:
        found.append(both.acknowledge() - 0x20)
        if found[-1] > 7:
            both.slave.write(0, 1, 0x20)
        both.master.write(0, 1, 0x20)
    assert found == order


def test_a_slave_that_is_asked_too_late_has_a_default_of_its_own():
    """Between the request and INTA nobody takes one back; but the slave's mask may be set."""
    both = pair()
    both.set_line(10, True)
    both.slave._requests = 0  # the input has just gone
    assert both.acknowledge() == 0x2F
    assert registers(both.slave)[1] == 0


def test_special_fully_nested_the_slave_s_higher_ones_interrupt_its_lower_ones():
    for icw4, nested in ((0x01, False), (0x11, True)):
        both = PicPair()
        for pic, base, cascade, last in ((both.master, 0x20, 4, icw4), (both.slave, 0x28, 2, 1)):
            for offset, value in ((0, 0x11), (1, base), (1, cascade), (1, last)):
                pic.write(offset, 1, value)
        both.set_line(12, True)
        assert both.acknowledge() == 0x2C
        both.set_line(8, True)
        assert both.requested is nested
