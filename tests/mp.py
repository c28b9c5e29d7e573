"""The MP table as an operating system reads it, checked on the way: nothing here is the firmware's own.

Source: Intel MultiProcessor Specification 1.4 (document 242016), chapter 4.
"""

import struct
from typing import NamedTuple

MIB = 1 << 20
# Where the pointer is looked for, in this order: the last KiB of base memory, the BIOS's ROM. (Before them in the EBDA; no
# firmware that is tested has one.)
PLACES = ((639 << 10, 640 << 10), (0xF0000, MIB))
SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}  # of an entry, by its type
INT, NMI, EXTINT = 0, 1, 3  # kinds of interrupt


class Processor(NamedTuple):
    apic_id: int
    enabled: bool
    bootstrap: bool
    signature: int
    features: int


class Interrupt(NamedTuple):
    """`bus` by its name, `irq` as that bus numbers them, `apic` and `pin` where it arrives. `low`, `level`: None is as the bus
    has it."""

    kind: int
    low: bool | None
    level: bool | None
    bus: str
    irq: int
    apic: int
    pin: int


class MpTable(NamedTuple):
    """`pointer` and `paddr`: where the two parts lie; `end` is behind the last byte. `types` are those of the entries, in their
    order."""

    pointer: int
    paddr: int
    end: int
    local_apic: int
    processors: list[Processor]
    buses: dict[int, str]
    io_apics: dict[int, int]
    interrupts: list[Interrupt]
    local: list[Interrupt]
    types: list[int]


def find_mp_table(low: bytes, *, count_is_true: bool = True) -> MpTable | None:
    """The table in the first MiB of memory; None if there is no pointer to one. Fails on what the specification does not
    allow."""
    found = [at for start, end in PLACES for at in range(start, end, 16) if low[at : at + 4] == b"_MP_"]
    if not found:
        return None
    pointer = found[0]
    paddr, length, revision, _, *features = struct.unpack_from("<IBBB5B", low, pointer + 4)
    assert length == 1
    assert sum(low[pointer : pointer + 16]) % 256 == 0, "the pointer's checksum"
    assert revision in (1, 4)
    assert features == [0] * 5, "a default configuration, or an IMCR"
    assert low[paddr : paddr + 4] == b"PCMP"
    head = struct.unpack_from("<HBB8s12sIHHIHBx", low, paddr + 4)
    length, table_revision, _, _, _, oem_table, oem_size, count, local_apic, extended, _ = head
    assert table_revision == revision
    assert (oem_table, oem_size, extended) == (0, 0, 0)
    assert sum(low[paddr : paddr + length]) % 256 == 0, "the table's checksum"
    assert paddr + length <= len(low)
    table = _entries(low, pointer, paddr, paddr + length, local_apic)
    assert len(table.types) == count or not count_is_true
    return table


def _entries(low: bytes, pointer: int, paddr: int, end: int, local_apic: int) -> MpTable:
    table = MpTable(pointer, paddr, end, local_apic, [], {}, {}, [], [], [])
    at = paddr + 44
    while at < end:
        kind = low[at]
        table.types.append(kind)
        if kind == 0:
            apic_id, _, flags, signature, feature_flags = struct.unpack_from("<BBBII", low, at + 1)
            table.processors.append(Processor(apic_id, bool(flags & 1), bool(flags & 2), signature, feature_flags))
        elif kind == 1:
            assert low[at + 1] not in table.buses
            table.buses[low[at + 1]] = low[at + 2 : at + 8].decode("ascii").rstrip()
        elif kind == 2:
            assert low[at + 3] & 1, "an I/O APIC that is not enabled"
            table.io_apics[low[at + 1]] = struct.unpack_from("<I", low, at + 4)[0]
        else:
            int_kind, flags, bus, irq, apic, pin = struct.unpack_from("<BHBBBB", low, at + 1)
            low_active, level = ({0: None, 1: False, 3: True}[flags >> shift & 3] for shift in (0, 2))
            where = table.interrupts if kind == 3 else table.local
            where.append(Interrupt(int_kind, low_active, level, table.buses[bus], irq, apic, pin))
        at += SIZES[kind]
    assert at == end, "the length is not that of whole entries"
    return table


def intx(machine: str, slot: int, pin: int) -> int:
    """Where INTA# (0) to INTD# (3) of a slot on bus 0 arrives in QEMU: on pc the IRQ that the firmware gives to that PIRQ, on
    q35 the pin of the I/O APIC.

    Sources: QEMU hw/isa/piix3.c (pci_slot_get_pirq: slots count from 1), hw/isa/lpc_ich9.c (ich9_cc_update,
    ich9_lpc_map_irq: PIRQE-H by the slot for 0 to 24 and 30, PIRQA-D by the pin for the others; PIRQA is pin 16).
    """
    if machine == "pc":
        return (10, 10, 11, 11)[(slot + pin - 1) % 4]
    if slot < 25:
        return 20 + (slot + pin) % 4
    return (20 if slot == 30 else 16) + pin


def intx_irq(machine: str, slot: int, pin: int) -> int:
    """The IRQ of the PIC that the same is: PIRQA and B, E and F are 10, the others 11."""
    return (10, 10, 11, 11)[intx(machine, slot, pin) % 4] if machine == "q35" else intx(machine, slot, pin)
