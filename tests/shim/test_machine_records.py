"""The machines' records in the ROM, field by field, as the built firmwares have them."""

import struct

import pytest
from pvhboot.shim.image import build
from pvhboot.shim.machine_records import MACHINE_RECORD, told_apart
from pvhboot.shim.machines import BARE, FIRMWARES, MICROVM, MICROVM_ACPI, PC, Q35, UNIVERSAL

OFFSETS = {
    "host_id": 0,
    "low": 4,
    "high_words": 52,
    "high": 56,
    "upper_end": 104,
    "f_segment_end": 108,
    "write_count": 112,
    "writes": 116,
    "mp_tail": 156,
    "mp_tail_bytes": 160,
    "mp_tail_entries": 164,
    "route_count": 168,
    "routes": 172,
    "pirqs": 188,
    "pins": 220,
}
RECORD_BYTES = 228


def map_entry(start, size, kind):
    return struct.pack("<QQII", start, size, kind, 0)


def stores(*pairs):
    return b"".join(struct.pack("<II", *pair) for pair in pairs)


RAM, RESERVED = 1, 2
IRQS = 0x0B0B0A0A  # PIRQA first
RECORDS = {
    "pc": {
        "host_id": 0x12378086,
        "low_ram_end": 0xA0000,
        "f_segment_end": 0x100000,
        # PMBASE and PMREGMISC of 1.3, PAM0 to PAM6 of 0.0.
        "writes": [(0x80000B40, 0x601), (0x80000B80, 1), (0x80000058, 0x33333000), (0x8000005C, 0x33333333)],
        "mp_tail": (144, 18),
        "routes": [(0x80000860, IRQS)],
        "pirqs": bytes((3, 0, 1, 2)) * 8,
        "pins": bytes((10, 10, 11, 11)) * 2,
    },
    "q35": {
        "host_id": 0x29C08086,
        "low_ram_end": 0xA0000,
        "ecam": (0xB0000000, 0x10000000, RESERVED),
        "f_segment_end": 0x100000,
        # PMBASE and ACPI_CNTL of 31.0, PAM0 to PAM6 and PCIEXBAR of 0.0.
        "writes": [
            (0x8000F840, 0x601),
            (0x8000F844, 0x80),
            (0x80000090, 0x33333330),
            (0x80000094, 0x00333333),
            (0x80000060, 0xB0000001),
        ],
        "mp_tail": (160, 20),
        "routes": [(0x8000F860, IRQS), (0x8000F868, IRQS)],
        "pirqs": bytes((4, 5, 6, 7)) * 6 + bytes((4, 0, 0, 0, 0, 0, 4, 0)),
        "pins": bytes(range(16, 24)),
    },
    "microvm": {
        "host_id": 0xFFFFFFFF,
        "f_segment_end": 0,
        "writes": [],
        "mp_tail": (152, 19),
        "routes": [],
        "pirqs": bytes(32),
        "pins": bytes(8),
    },
}
RECORDS["microvm-acpi"] = RECORDS["microvm"]
SIZES = {0x10000: (0xF0000, 0xFFFF0000), 0x20000: (0xE0000, 0xFFFE0000), 0x1000000: (0xE0000, 0xFF000000)}


def expected(name, rom_size, tail):
    """The record's bytes; `tail` is the address of its MP table's entries."""
    fields = RECORDS[name]
    low_rom, rom = SIZES[rom_size]
    low = map_entry(0, fields.get("low_ram_end", low_rom), RAM) + map_entry(low_rom, 0x100000 - low_rom, RESERVED)
    high = [map_entry(rom, 0x100000000 - rom, RESERVED)]
    if "ecam" in fields:
        high.insert(0, map_entry(*fields["ecam"]))
    writes, routes = fields["writes"], fields["routes"]
    upper_end = low_rom if fields["f_segment_end"] else 0
    return (
        struct.pack("<I", fields["host_id"])
        + low
        + struct.pack("<I", len(high) * 6)
        + b"".join(high).ljust(48, b"\0")
        + struct.pack("<III", upper_end, fields["f_segment_end"], len(writes))
        + stores(*writes).ljust(40, b"\0")
        + struct.pack("<III", tail, *fields["mp_tail"])
        + struct.pack("<I", len(routes))
        + stores(*routes).ljust(16, b"\0")
        + fields["pirqs"]
        + fields["pins"]
    )


def test_the_layout_of_a_record():
    assert MACHINE_RECORD.size == RECORD_BYTES
    assert {name: field.offset for name, field in MACHINE_RECORD.fields.items()} == OFFSETS
    assert MACHINE_RECORD.symbols()["MACHINE_MP_TAIL_ENTRIES"] == 164
    assert MACHINE_RECORD.symbols()["SIZEOF_MACHINE"] == RECORD_BYTES


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (MICROVM, ["microvm"]),
        (MICROVM_ACPI, ["microvm-acpi"]),
        (PC, ["pc"]),
        (Q35, ["q35"]),
        (UNIVERSAL, ["pc", "q35", "microvm-acpi"]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_which_machines_a_firmware_tells_apart(spec, names):
    assert [machine.name for machine in told_apart(spec)] == names
    assert [machine.chipset is None for machine in told_apart(spec)][:-1] == [False] * (len(names) - 1)


@pytest.mark.parametrize("size", SIZES, ids=hex)
@pytest.mark.parametrize("spec", [spec for spec in FIRMWARES.values() if spec is not BARE], ids=lambda spec: spec.name)
def test_records(spec, size):
    rom = build(spec, size=size)
    at = rom.symbols["machine"] - rom.paddr
    assert rom.symbols["machine"] % 4 == 0
    names = [machine.name for machine in told_apart(spec)]
    tails = [value for label, value in rom.symbols.items() if label.startswith("mp_tail_")]
    assert len(tails) == (len(names) if spec.mp_table else 0)
    for number, name in enumerate(names):
        record = rom.data[at + number * RECORD_BYTES :][:RECORD_BYTES]
        tail = sorted(tails)[number] if spec.mp_table else 0
        wanted = expected(name, size, tail)
        assert len(wanted) == RECORD_BYTES
        assert {field: record[offset:][:48] for field, offset in OFFSETS.items()} == {
            field: wanted[offset:][:48] for field, offset in OFFSETS.items()
        }
        assert record == wanted


def test_what_config_stores_reads_lies_behind_its_count():
    """chipset.s goes on from UPPER_END to the writes, pci_irqs.s from the count to the routes, e820.s back to the words."""
    offsets = MACHINE_RECORD.symbols()
    assert offsets["MACHINE_F_SEGMENT_END"] == offsets["MACHINE_UPPER_END"] + 4
    assert offsets["MACHINE_WRITE_COUNT"] == offsets["MACHINE_F_SEGMENT_END"] + 4
    assert offsets["MACHINE_WRITES"] == offsets["MACHINE_WRITE_COUNT"] + 4
    assert offsets["MACHINE_ROUTES"] == offsets["MACHINE_ROUTE_COUNT"] + 4
    assert offsets["MACHINE_HIGH"] == offsets["MACHINE_HIGH_WORDS"] + 4
