"""The parts of the MP table that do not depend on the processors, and, for one processor, the whole of it."""

from typing import Final

from .abi import apic, pic
from .abi import mptable as mp
from .abi.chipset import Chipset
from .abi.x86 import ADDRESS_4G
from .machines import MIB

# A processor of the family that has CPUID, an FPU and a local APIC: what is said where nobody looks at CPUID (MP 1.4, 4.3.1).
_GENERIC_SIGNATURE: Final = 0x600
_GENERIC_FEATURES: Final = 1 << 9 | 1 << 0

MP_PCI_FLAGS: Final = mp.MP_ACTIVE_HIGH | mp.MP_LEVEL  # QEMU's PCI interrupts, at its I/O APIC
MP_LOCAL_INTERRUPTS: Final = 2  # the last entries of a tail


def mp_head(length: int, entries: int) -> bytes:
    """The table's head, its checksum 0; `length` in bytes, head and entries."""
    head = mp.MpTable(
        mp.MP_TABLE_SIGNATURE,
        length,
        mp.MP_SPEC_1_4,
        0,
        b"PVHBOOT ",
        b"QEMU".ljust(12),
        0,
        0,
        entries,
        apic.LOCAL_APIC,
        0,
        0,
        0,
    )
    return mp.MP_TABLE.pack(head)


def mp_tail(chipset: Chipset | None) -> list[bytes]:
    """The entries behind the processors', but for PCI's interrupts: buses, I/O APIC, interrupts."""
    names = [b"ISA   "] if chipset is None else [b"PCI   ", b"ISA   "]
    isa = len(names) - 1
    entries = [mp.MP_BUS_ENTRY.pack(mp.MpBus(mp.MP_BUS, bus, name)) for bus, name in enumerate(names)]
    io_apic = mp.MpIoApic(mp.MP_IO_APIC, 0, apic.IO_APIC_VERSION, mp.MP_IO_APIC_ENABLED, apic.IO_APIC)
    entries.append(mp.MP_IO_APIC_ENTRY.pack(io_apic))
    # Where PCI's interrupts come in at pins of the ISA IRQs, those are no ISA device's.
    taken = () if chipset is None else chipset.pins
    for irq in range(apic.ISA_IRQS):
        if irq == pic.PIC_CASCADE or irq in taken:
            continue
        pin = apic.TIMER_PIN if irq == 0 else irq
        entry = mp.MpInterrupt(mp.MP_IO_INTERRUPT, mp.MP_INT, mp.MP_CONFORMING, isa, irq, 0, pin)
        entries.append(mp.MP_INTERRUPT_ENTRY.pack(entry))
    for kind, target, pin in ((mp.MP_EXTINT, 0, 0), (mp.MP_NMI, mp.MP_ALL_APICS, 1)):
        entry = mp.MpInterrupt(mp.MP_LOCAL_INTERRUPT, kind, mp.MP_CONFORMING, isa, 0, target, pin)
        entries.append(mp.MP_INTERRUPT_ENTRY.pack(entry))
    return entries


def mp_most_bytes() -> int:
    """Of the table of a machine without PCI: head, a processor for each id, and the rest."""
    return mp.MP_TABLE.size + apic.APIC_IDS * mp.MP_PROCESSOR_ENTRY.size + sum(map(len, mp_tail(None)))


def static_mp_table(paddr: int) -> bytes:
    """Pointer and table of a machine without PCI and with one processor, as they lie in the ROM at `paddr`, a multiple of 16
    in the last 64 KiB before 4 GiB: an operating system sees them below 1 MiB."""
    flags = mp.MP_PROCESSOR_ENABLED | mp.MP_PROCESSOR_BOOTSTRAP
    processor = mp.MpProcessor(mp.MP_PROCESSOR, 0, apic.LOCAL_APIC_VERSION, flags, _GENERIC_SIGNATURE, _GENERIC_FEATURES, 0)
    entries = [mp.MP_PROCESSOR_ENTRY.pack(processor), *mp_tail(None)]
    body = b"".join(entries)
    table = _summed(mp_head(mp.MP_TABLE.size + len(body), len(entries)) + body, mp.MP_TABLE.fields["checksum"].offset)
    at = paddr - ADDRESS_4G + MIB + mp.MP_FLOATING.size
    pointer = mp.MP_FLOATING.pack(mp.MpFloating(mp.MP_FLOATING_SIGNATURE, at, 1, mp.MP_SPEC_1_4, 0, bytes(5)))
    return _summed(pointer, mp.MP_FLOATING.fields["checksum"].offset) + table


def _summed(data: bytes, checksum: int) -> bytes:
    """The bytes with the one at `checksum` such that they add up to 0."""
    return data[:checksum] + bytes([-sum(data) & 0xFF]) + data[checksum + 1 :]
