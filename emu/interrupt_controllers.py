"""The interrupt controllers and timers of a PC, put on a bus."""

from typing import TYPE_CHECKING

from pvhboot.shim.abi import apic, pic, pit

from .bus import Bus
from .clock import Clock
from .devices.pic import PicPair
from .interrupts import InterruptLines

if TYPE_CHECKING:
    from .devices.lapic import LocalApic


def add_pics(bus: Bus) -> PicPair:
    """The two 8259A, that nobody asks for an interrupt yet."""
    pics = PicPair()
    bus.claim_ports(pic.PIC_MASTER_PORT, pic.PIC_PORTS, "pic", pics.master)
    bus.claim_ports(pic.PIC_SLAVE_PORT, pic.PIC_PORTS, "pic2", pics.slave)
    return pics


def add_local_apic(bus: Bus, lines: InterruptLines, clock: Clock, pics: PicPair) -> "LocalApic":
    """Connects the lines to the controllers, and these to the processor: that asks what is given. The timer is the 8254."""
    from .devices.ioapic import IoApic
    from .devices.lapic import LocalApic
    from .devices.pit import Pit

    local = LocalApic(clock, pics)
    others = IoApic(local.request)
    local.ended = others.end

    def set_line(number: int, level: bool) -> None:
        pics.set_line(number, level)
        others.set_line(number, level)

    lines.connect(set_line)
    timer = Pit(clock, lines.line(pit.PIT_IRQ))
    bus.claim_ports(pit.PIT_PORT, pit.PIT_PORTS, "pit", timer)
    bus.claim_ports(pit.SYSTEM_PORT_B, 1, "port61", timer.port_b)
    bus.claim_memory(apic.LOCAL_APIC, apic.LOCAL_APIC_BYTES, "lapic", local)
    bus.claim_memory(apic.IO_APIC, apic.IO_APIC_BYTES, "ioapic", others)
    return local
