"""Who answers, in which widths, and what is recorded."""

import pytest
from pvhboot.emu.bus import Access, Bus, Deferred
from pvhboot.shim.errors import BootError


class Memory:
    """A device that remembers."""

    def __init__(self):
        self.data = {}

    def read(self, offset, size):
        return self.data.get((offset, size), offset)

    def write(self, offset, size, value):
        self.data[offset, size] = value


def test_unclaimed_ports_read_as_ones_and_are_recorded():
    bus = Bus("ones")
    assert bus.port_read(0x1234, 4) == 0xFFFFFFFF
    bus.port_write(0x1234, 2, 5)
    assert bus.log == [Access("in", 0x1234, 4, 0xFFFFFFFF, ""), Access("out", 0x1234, 2, 5, "")]
    assert bus.unclaimed_stop is None
    assert bus.accesses == 2


def test_the_stop_policy_keeps_the_first_unclaimed_access():
    bus = Bus("stop")
    bus.memory_read(0xFEC00000, 4)
    bus.port_read(0x60, 1)
    assert bus.unclaimed_stop == Access("read", 0xFEC00000, 4, 0xFFFFFFFF, "")


def test_a_wide_access_to_a_narrow_device_is_split():
    bus, device = Bus("ones"), Memory()
    bus.claim_ports(0x70, 2, "narrow", device)
    assert bus.port_read(0x70, 2) == 0x0100
    bus.port_write(0x70, 4, 0x44332211)
    assert device.data == {(0, 1): 0x11, (1, 1): 0x22}
    assert [access.device for access in bus.log] == ["narrow", "narrow"]


def test_a_wide_device_gets_its_access_whole():
    bus, device = Bus("ones"), Memory()
    bus.claim_ports(0x510, 8, "wide", device, width=4)
    bus.port_write(0x514, 4, 0x12345678)
    assert device.data == {(4, 4): 0x12345678}


def test_memory_devices():
    bus, device = Bus("ones"), Memory()
    bus.claim_memory(0xFED00000, 0x1000, "hpet", device)
    bus.memory_write(0xFED00010, 8, 9)
    assert (bus.memory_read(0xFED00010, 8), bus.memory_read(0xFED01000, 2)) == (9, 0xFFFF)
    assert [access.device for access in bus.log] == ["hpet", "hpet", ""]


def test_nobody_claims_twice():
    bus = Bus("ones")
    bus.claim_ports(0x70, 2, "first", Memory())
    bus.claim_memory(0x1000, 0x1000, "first", Memory())
    with pytest.raises(BootError, match="port 0x71 belongs to first"):
        bus.claim_ports(0x71, 1, "second", Memory())
    with pytest.raises(BootError, match="overlaps first"):
        bus.claim_memory(0x1FFF, 1, "second", Memory())


def test_a_window_moves_and_what_is_claimed_goes_before():
    bus, fixed, moved = Bus("ones"), Memory(), Memory()
    bus.claim_ports(0x602, 1, "fixed", fixed)
    bus.move_ports("moved", moved, 4, (0x600, 16))
    bus.port_write(0x604, 4, 1)
    bus.port_write(0x602, 1, 2)
    assert (moved.data, fixed.data) == ({(4, 4): 1}, {(0, 1): 2})
    bus.move_ports("moved", moved, 4, (0x700, 16))
    assert (bus.port_read(0x604, 4), bus.port_read(0x704, 4)) == (0xFFFFFFFF, 1)
    bus.move_ports("moved", moved, 4, None)
    assert bus.port_read(0x704, 4) == 0xFFFFFFFF


def test_a_memory_window_moves():
    bus, device = Bus("ones"), Memory()
    bus.move_memory("ecam", device, (0xB0000000, 0x1000))
    bus.memory_write(0xB0000010, 8, 9)
    bus.move_memory("ecam", device, (0xE0000000, 0x1000))
    assert (bus.memory_read(0xB0000010, 4), bus.memory_read(0xE0000010, 8)) == (0xFFFFFFFF, 9)
    bus.move_memory("ecam", device, None)
    assert bus.memory_read(0xE0000010, 1) == 0xFF


@pytest.mark.parametrize("first", ["read", "write"])
def test_a_deferred_device_is_made_once_and_when_it_is_asked(first):
    made = []

    def make():
        made.append(Memory())
        return made[-1]

    bus = Bus("ones")
    bus.claim_ports(0x70, 2, "late", Deferred(make))
    assert bus.devices == ["late"]
    assert made == []
    if first == "read":
        assert bus.port_read(0x71, 1) == 1
    bus.port_write(0x71, 1, 7)
    assert bus.port_read(0x71, 1) == 7
    assert [device.data for device in made] == [{(1, 1): 7}]
    assert {access.device for access in bus.log} == {"late"}
