"""The MP table's parts against the bytes that the MultiProcessor Specification asks for."""

import pytest
from pvhboot.shim.abi.chipset import I440FX, ICH9
from pvhboot.shim.image import build
from pvhboot.shim.machine_records import told_apart
from pvhboot.shim.machines import FIRMWARES, MICROVM, PC, Q35, UNIVERSAL
from pvhboot.shim.mp_tables import mp_head, mp_tail, static_mp_table

IO_APIC = bytes.fromhex("02 00 11 01 0000c0fe")
ISA_IRQS = (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)  # but the cascade
SIZES = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}  # of entries, by type


def interrupts(bus, irqs):
    """From IRQs of the ISA bus, conforming, to pins of I/O APIC 0: the timer's is pin 2. Then ExtINT and NMI of the CPUs."""
    entries = [bytes((3, 0, 0, 0, bus, irq, 0, irq or 2)) for irq in irqs]
    return [*entries, bytes((4, 3, 0, 0, bus, 0, 0, 0)), bytes((4, 1, 0, 0, bus, 0, 0xFF, 1))]


TAILS = {
    "none": (None, [b"\x01\x00ISA   ", IO_APIC, *interrupts(0, ISA_IRQS)]),
    "q35": (ICH9, [b"\x01\x00PCI   ", b"\x01\x01ISA   ", IO_APIC, *interrupts(1, ISA_IRQS)]),
    # IRQs 10 and 11 are PCI's.
    "i440fx": (
        I440FX,
        [b"\x01\x00PCI   ", b"\x01\x01ISA   ", IO_APIC, *interrupts(1, (0, 1, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15))],
    ),
}


@pytest.mark.parametrize(("chipset", "entries"), TAILS.values(), ids=TAILS)
def test_tail(chipset, entries):
    assert mp_tail(chipset) == entries


@pytest.mark.parametrize(("length", "entries"), [(0, 0), (0x1234, 0x0156)])
def test_head(length, entries):
    sizes = length.to_bytes(2, "little"), entries.to_bytes(2, "little")
    head = b"PCMP" + sizes[0] + b"\x04\x00" + b"PVHBOOT QEMU        " + bytes(6) + sizes[1] + bytes.fromhex("0000e0fe 00000000")
    assert mp_head(length, entries) == head
    assert len(head) == 44


POINTER = b"_MP_" + bytes.fromhex("10ff0f00 01 04 82 0000000000")
PROCESSOR = bytes.fromhex("00 00 14 03 00060000 01020000") + bytes(8)


def test_static_table():
    table = static_mp_table(0xFFFFFF00)
    assert len(table) == 16 + 44 + 20 + 152
    assert table[:16] == POINTER
    assert sum(table[:16]) % 256 == 0
    assert sum(table[16:]) % 256 == 0
    head = bytearray(mp_head(216, 20))
    head[7] = table[16 + 7]
    assert table[16:60] == head
    assert table[60:] == PROCESSOR + b"".join(TAILS["none"][1])
    assert 0xFFFFFF00 + len(table) <= 0xFFFFFFF0, "it ends before the reset vector"


def test_the_pointer_leads_to_the_table_below_1_mib():
    """Wherever in the last 64 KiB it lies."""
    table = static_mp_table(0xFFFF8010)
    assert table[4:8] == (0xF8020).to_bytes(4, "little")
    assert sum(table[:16]) % 256 == 0


def entries_of(table):
    """The types of the entries, walked as an operating system does."""
    at, types = 44, []
    while at < len(table):
        types.append(table[at])
        at += SIZES[table[at]]
    assert at == len(table)
    return types


def test_the_static_table_can_be_walked():
    table = static_mp_table(0xFFFFFF00)[16:]
    assert int.from_bytes(table[4:6], "little") == len(table)
    assert int.from_bytes(table[34:36], "little") == len(entries_of(table)) == 20
    assert entries_of(table) == [0, 1, 2, *[3] * 15, 4, 4]


@pytest.mark.parametrize("spec", FIRMWARES.values(), ids=FIRMWARES)
def test_which_firmware_has_a_static_table(spec):
    """One for a machine without PCI."""
    rom = build(spec)
    there = spec in (MICROVM, UNIVERSAL)
    assert ("mp_static" in rom.symbols) is there
    assert (rom.data[-0x100:-0x10].rstrip(b"\0") == static_mp_table(0xFFFFFF00)) is there


@pytest.mark.parametrize("spec", [MICROVM, PC, Q35, UNIVERSAL], ids=lambda spec: spec.name)
def test_the_parts_in_the_rom(spec):
    rom = build(spec)

    def at(label, size):
        return rom.data[rom.symbols[label] - rom.paddr :][:size]

    assert at("mp_head", 44) == mp_head(0, 0)
    assert at("pirq_irqs", 4) == bytes((10, 10, 11, 11))
    names = {"microvm": "none", "microvm-acpi": "none", "pc": "i440fx", "q35": "q35"}
    for number, machine in enumerate(told_apart(spec)):
        tail = b"".join(TAILS[names[machine.name]][1])
        record = at("machine", 228 * (number + 1))[228 * number :]
        paddr = int.from_bytes(record[156:160], "little")
        assert rom.data[paddr - rom.paddr :][: len(tail)] == tail
        assert int.from_bytes(record[160:164], "little") == len(tail)
