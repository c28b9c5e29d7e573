"""The MP table, by which an operating system without ACPI finds its processors and their interrupts.

Source: Intel MultiProcessor Specification 1.4 (document 242016), chapter 4 and, for where it is looked for, 4.1 and appendix A.
"""

from typing import Final, NamedTuple

from .layout import Layout

MP_FLOATING_SIGNATURE: Final = b"_MP_"
MP_TABLE_SIGNATURE: Final = b"PCMP"
MP_SPEC_1_4: Final = 4
MP_PARAGRAPH: Final = 16  # bytes: the floating pointer's length counts them, and it lies on one
MP_BASE_MEMORY: Final = 0x9FC00  # the last KiB of base memory, of 640 KiB: one of the places where the pointer may be

MP_PROCESSOR: Final = 0  # types of entries
MP_BUS: Final = 1
MP_IO_APIC: Final = 2
MP_IO_INTERRUPT: Final = 3
MP_LOCAL_INTERRUPT: Final = 4

MP_PROCESSOR_ENABLED: Final = 1 << 0
MP_PROCESSOR_BOOTSTRAP: Final = 1 << 1
MP_IO_APIC_ENABLED: Final = 1 << 0
MP_INT: Final = 0  # kinds of interrupt
MP_NMI: Final = 1
MP_EXTINT: Final = 3
MP_CONFORMING: Final = 0  # polarity and trigger are as the bus has them
MP_ACTIVE_HIGH: Final = 1
MP_LEVEL: Final = 3 << 2
MP_ALL_APICS: Final = 0xFF


class MpFloating(NamedTuple):
    """The pointer, 16 bytes; `table` is a physical address, `length` in paragraphs. All five features are 0: a table is there,
    and the interrupts come through the PIC until somebody enables the APICs (virtual wire mode)."""

    signature: bytes
    table: int
    length: int
    revision: int
    checksum: int
    features: bytes


class MpTable(NamedTuple):
    """The table's head, 44 bytes; `length` is that of head and entries, in bytes."""

    signature: bytes
    length: int
    revision: int
    checksum: int
    oem: bytes
    product: bytes
    oem_table: int
    oem_size: int
    entries: int
    local_apic: int
    extended_length: int
    extended_checksum: int
    reserved: int


class MpProcessor(NamedTuple):
    """20 bytes; `signature` and `features` are CPUID.1's EAX and EDX."""

    type: int
    apic_id: int
    apic_version: int
    flags: int
    signature: int
    features: int
    reserved: int


class MpBus(NamedTuple):
    """8 bytes; `name` is padded with spaces."""

    type: int
    bus: int
    name: bytes


class MpIoApic(NamedTuple):
    """8 bytes; `paddr` is physical."""

    type: int
    apic_id: int
    version: int
    flags: int
    paddr: int


class MpInterrupt(NamedTuple):
    """8 bytes, of an I/O interrupt or a local one: from `source_irq` of a bus to `pin` of an APIC. A PCI bus's is
    slot << 2 | pin - INTA#."""

    type: int
    kind: int
    flags: int
    source_bus: int
    source_irq: int
    apic_id: int
    pin: int


MP_FLOATING: Final = Layout(MpFloating, ("4s", "I", "B", "B", "B", "5s"), "MP_FLOATING")
MP_TABLE: Final = Layout(MpTable, ("4s", "H", "B", "B", "8s", "12s", "I", "H", "H", "I", "H", "B", "B"), "MP_TABLE")
MP_PROCESSOR_ENTRY: Final = Layout(MpProcessor, ("B", "B", "B", "B", "I", "I", "Q"), "MP_PROCESSOR")
MP_BUS_ENTRY: Final = Layout(MpBus, ("B", "B", "6s"), "MP_BUS")
MP_IO_APIC_ENTRY: Final = Layout(MpIoApic, ("B", "B", "B", "B", "I"), "MP_IO_APIC")
MP_INTERRUPT_ENTRY: Final = Layout(MpInterrupt, ("B", "B", "H", "B", "B", "B", "B"), "MP_INTERRUPT")
