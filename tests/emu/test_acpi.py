"""The walk from the RSDP to every ACPI table: each thing that can be wrong is told, and nothing else."""

import struct
from types import SimpleNamespace

import pytest
from pvhboot.emu.acpi import acpi_problems
from pvhboot.shim.abi.pvh import MemmapEntry

BASE, SIZE = 0x10000, 0x1000
RSDP, ROOT, FADT, DSDT, APIC = (BASE + at for at in (0, 0x100, 0x200, 0x400, 0x500))
KEPT = (MemmapEntry(0, BASE, 1), MemmapEntry(BASE, SIZE, 3))


def summed(table, at):
    """With the byte at an offset such that all add up to 0."""
    table = bytearray(table)
    table[at] = -sum(table) & 0xFF
    return bytes(table)


def table(signature, body=b""):
    head = struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body), 1, 0, b"OEM", b"TABLE", 1, b"PVHB", 1)
    return summed(head + body, 9)


def tables(revision):
    """Addresses and bytes of a good set: RSDP, RSDT or XSDT, FADT, DSDT, MADT."""
    wide = revision >= 2
    rsdp = summed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"OEM", revision, 0 if wide else ROOT), 8)
    if wide:
        rsdp = summed(rsdp + struct.pack("<IQB3s", 36, ROOT, 0, b""), 32)
    root = table(b"XSDT" if wide else b"RSDT", struct.pack("<QQ" if wide else "<II", FADT, APIC))
    return {
        RSDP: rsdp,
        ROOT: root,
        FADT: table(b"FACP", struct.pack("<II", 0, DSDT) + bytes(100)),
        DSDT: table(b"DSDT", b"aml"),
        APIC: table(b"APIC", bytes(8)),
    }


def problems(pieces, memmap=KEPT, paddr=RSDP):
    memory = bytearray(SIZE)
    for at, data in pieces.items():
        memory[at - BASE : at - BASE + len(data)] = data

    def try_read(at, size):
        return bytes(memory[at - BASE : at - BASE + size]) if at >= BASE and at + size <= BASE + SIZE else None

    return list(acpi_problems(SimpleNamespace(try_read=try_read), memmap, paddr))


@pytest.mark.parametrize("revision", [0, 2])
def test_a_good_set_has_no_problem(revision):
    assert problems(tables(revision)) == []


def flipped(at, offset):
    """One bit of a table is another."""

    def change(pieces):
        data = bytearray(pieces[at])
        data[offset] ^= 1
        return pieces | {at: bytes(data)}

    return change


def replaced(at, data):
    return lambda pieces: pieces | {at: data}


WRONG = {
    "no-signature": (flipped(RSDP, 0), ["there is no RSDP at 0x10000"]),
    "rsdp-sum": (flipped(RSDP, 9), ["the RSDP does not add up to 0"]),
    "root-signature": (replaced(ROOT, table(b"NONE")), ["the table at 0x10100 is 'NONE', not {root}"]),
    "root-sum": (flipped(ROOT, 10), ["the {root} at 0x10100 does not add up to 0"]),
    "table-sum": (flipped(APIC, 40), ["the APIC at 0x10500 does not add up to 0"]),
    "dsdt-sum": (flipped(DSDT, 36), ["the DSDT at 0x10400 does not add up to 0"]),
    "dsdt-signature": (replaced(DSDT, table(b"SSDT")), ["the table at 0x10400 is 'SSDT', not DSDT"]),
    "too-short": (replaced(APIC, struct.pack("<4sI", b"APIC", 35) + bytes(28)), ["the APIC at 0x10500 has the length 0x23"]),
    "too-long": (
        replaced(APIC, struct.pack("<4sI", b"APIC", 1 << 31) + bytes(28)),
        ["the APIC at 0x10500 has the length 0x80000000"],
    ),
    "dsdt-nowhere": (
        replaced(FADT, table(b"FACP", struct.pack("<II", 0, 0x500) + bytes(100))),
        ["there is no memory for a table at 0x500"],
    ),
}


@pytest.mark.parametrize("revision", [0, 2])
@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told(revision, change, said):
    root = "XSDT" if revision else "RSDT"
    assert problems(change(tables(revision))) == [text.replace("{root}", root) for text in said]


def test_the_second_checksum_of_a_revision_2():
    assert problems(flipped(RSDP, 33)(tables(2))) == ["the RSDP does not add up to 0"]
    assert problems(tables(0) | {RSDP: tables(0)[RSDP] + b"beyond the end"}) == []


def test_tables_that_the_map_gives_away():
    said = problems(tables(2), (MemmapEntry(0, BASE + SIZE, 1),))
    assert said == [
        f"the {name} lies where the memory map does not keep it"
        for name in ("RSDP at 0x10000", "XSDT at 0x10100", "FACP at 0x10200", "DSDT at 0x10400", "APIC at 0x10500")
    ]
    assert problems(tables(2), (MemmapEntry(BASE, 0x450, 4), MemmapEntry(BASE + 0x450, SIZE, 2))) == []


def test_no_memory_where_the_rsdp_should_be():
    assert problems(tables(2), paddr=0xE0000) == ["there is no RSDP at 0xe0000"]
