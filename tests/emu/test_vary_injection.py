"""Faults where there is nothing to spoil: a host and a firmware that are both wrong, and memory that is no RAM."""

import pytest
from pvhboot.emu.bus import Bus
from pvhboot.emu.vary.candidates import host_faults
from pvhboot.emu.vary.faults import DMA, ERROR, FLIP_HIGH, FLIP_LOW, NEVER, NOTHING, RAM, Fault
from pvhboot.emu.vary.injection import FaultyBus
from pvhboot.emu.vary.setup import Setup
from pvhboot.emu.vary.trial import reference
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.machines import MIB, Span
from pvhboot.shim.stock import default_guest


class Silent:
    """A device that does nothing."""

    def read(self, _offset, _size):
        return 0

    def write(self, offset, size, value):
        pass


@pytest.mark.parametrize("how", [ERROR, NOTHING, NEVER, FLIP_LOW, FLIP_HIGH])
@pytest.mark.parametrize("descriptor", [0xFFFFF000, 0x20000], ids=["in-the-rom", "nowhere"])
def test_a_descriptor_that_is_in_no_ram_stops_nobody(how, descriptor):
    memory, bus = GuestMemory([Span("RAM", 0, 0x10000)], bytes(4096)), Bus("ones")
    bus.claim_ports(0x514, 8, "dma", Silent(), width=8)
    FaultyBus(bus, memory, Fault(DMA, how, 0, "", None)).port_write(
        0x518, 4, int.from_bytes(descriptor.to_bytes(4, "big"), "little")
    )
    assert memory.read(0xFFFFF000, 4096) == bytes(4096)


def test_bits_flip_in_ram_only(qboot):
    """On a PC qboot reads its ROM below 1 MiB first, and then RAM in its place."""
    with reference(Setup("pc", qboot.read_bytes(), default_guest(64), 64 * MIB)) as boot:
        found = host_faults(boot.watched, boot.items, [RAM])
        memory = boot.setup.place(boot.plan)
    first = min(fault.number for fault in found if fault.target >= 0xF0000)
    assert first > 100  # the shadow RAM is opened
    assert all(not memory.is_rom(fault.target) for fault in found if fault.number < first)
