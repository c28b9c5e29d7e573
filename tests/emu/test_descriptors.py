"""Descriptors of a GDT, decoded: what a segment register would hold."""

import pytest
from pvhboot.emu.descriptors import decode_descriptor, read_descriptor, read_gdt
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import NoMemoryError


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
