"""Descriptors of a GDT, decoded: what a segment register would hold."""

import pytest
from pvhboot.emu.descriptors import decode_descriptor, read_descriptor, read_gdt
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError, NoMemoryError


class Memory:
    """Bytes from 0x1000 on."""

    def __init__(self, data):
        self.data = data

    def read(self, paddr, size):
        if paddr < 0x1000 or paddr + size > 0x1000 + len(self.data):
            raise NoMemoryError("none")
        return self.data[paddr - 0x1000 :][:size]


# (descriptor, base, limit, type, s, present, db, long, g, dpl)
DESCRIPTORS = [
    (0x00CF9B000000FFFF, 0, 0xFFFFFFFF, 0xB, True, True, True, False, True, 0),
    (0x00009B0F0000FFFF, 0xF0000, 0xFFFF, 0xB, True, True, False, False, False, 0),
    (0x00AFFB000000FFFF, 0, 0xFFFFFFFF, 0xB, True, True, False, True, True, 3),
    (0x0000890000000067, 0, 0x67, 0x9, False, True, False, False, False, 0),
    (0x120A8B345678BCDE, 0x12345678, 0xABCDE, 0xB, False, True, False, False, False, 0),
    (0x00CF13000000FFFF, 0, 0xFFFFFFFF, 0x3, True, False, True, False, True, 0),
]


@pytest.mark.parametrize("row", DESCRIPTORS, ids=lambda row: f"{row[0]:016x}")
def test_a_descriptor(row):
    value, base, limit, kind, s, present, db, long, g, dpl = row
    found = decode_descriptor(0x18, value)
    assert found == (value, Segment(0x18, base, limit, kind, s, present, db, long, g), dpl)


def test_a_selector_names_its_descriptor_whatever_its_lower_bits_say():
    memory = Memory(b"".join(row[0].to_bytes(8, "little") for row in DESCRIPTORS))
    assert read_descriptor(memory, 0x1000, 0x0B).value == DESCRIPTORS[1][0]
    assert read_descriptor(memory, 0x1000, 0x30) is None


@pytest.mark.parametrize(("limit", "selectors"), [(0x17, [0, 8, 0x10]), (0x16, [0, 8]), (0, []), (0xFFFF, [0, 8, 0x10, 0x18])])
def test_a_table_has_the_descriptors_that_are_whole(limit, selectors):
    assert list(read_gdt(Memory(bytes(32)), 0x1000, limit)) == selectors


def test_a_table_knows_what_gdtr_says_and_which_registers_hold_which_descriptor():
    data = b"".join(value.to_bytes(8, "little") for value in (0, DESCRIPTORS[0][0], DESCRIPTORS[3][0], 0))
    gdt = read_gdt(Memory(data), 0x1000, 0x3F, {"cs": 0x08, "ds": 0x0B, "es": 0x0C, "fs": 0, "tr": 0x10})
    assert (gdt.base, gdt.limit, len(gdt)) == (0x1000, 0x3F, 4)  # there is memory for four, and GDTR says eight
    assert gdt.registers_of(0x08) == ["cs", "ds"]  # with whatever privilege level; es is in the LDT
    assert gdt.registers_of(0x10) == ["tr"]
    assert gdt.registers_of(0) == []
    assert gdt == {0: gdt[0], 8: gdt[8], 0x10: gdt[0x10], 0x18: gdt[0x18]}
    assert repr(gdt) == "<GDT at 0x1000, limit 0x3f: 4 descriptors>"
    assert str(gdt).splitlines() == [
        "gdt at 0x1000, limit 0x3f",
        "  0x0008  base 0x00000000  limit 0xffffffff  DPL 0  32-bit code, readable",
        "  0x0010  base 0x00000000  limit 0x00000067  DPL 0  available TSS",
        "  0x0018  empty",
    ]
    assert str(gdt[0x10]) == "base 0x00000000  limit 0x00000067  DPL 0  available TSS"


@pytest.mark.parametrize(
    ("limit", "selector", "message"),
    [
        (0x17, 0x18, "no descriptor has the selector 0x18: they go from 0x0 to 0x10, in steps of 8"),
        (0x17, "cs", "no descriptor has the selector 'cs': they go from 0x0 to 0x10, in steps of 8"),
        (0, 0, "no descriptor has the selector 0x0: the table is empty"),
    ],
)
def test_a_descriptor_that_is_not_there(limit, selector, message):
    with pytest.raises(BootError, match=f"^{message}$"):
        read_gdt(Memory(bytes(32)), 0x1000, limit)[selector]


def test_a_table_is_read_at_once_where_there_is_memory():
    reads = []

    class Counted(Memory):
        def read(self, paddr, size):
            reads.append((paddr, size))
            return super().read(paddr, size)

    read_gdt(Counted(bytes(64)), 0x1000, 0x3F)
    assert reads == [(0x1000, 64)]
