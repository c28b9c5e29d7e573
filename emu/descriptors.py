"""The descriptors of a GDT in memory, decoded."""

from collections.abc import Mapping
from typing import NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import NoMemoryError

_LIMIT_LOW = 0xFFFF
_BASE_LOW = 0xFFFFFF
_GRANULE = x86.PAGE_SIZE


class Descriptor(NamedTuple):
    """A descriptor: its 8 bytes as a number, what a segment register would hold after loading it, and its privilege level."""

    value: int
    segment: Segment
    dpl: int


def decode_descriptor(selector: int, value: int) -> Descriptor:
    """What a selector would load. Source: Intel SDM volume 3A, figure 3-8; `limit` is the segment's last byte."""
    limit = value & _LIMIT_LOW | value >> 32 & 0xF0000
    if value & x86.DESC_G:
        limit = limit * _GRANULE + _GRANULE - 1
    base = value >> 16 & _BASE_LOW | value >> 56 << 24
    segment = x86.segment_from_attributes(selector, base, limit, value >> x86.ATTRIBUTE_SHIFT)
    return Descriptor(value, segment, value >> x86.DESC_DPL_SHIFT & 3)


def read_descriptor(memory: ReadableMemory, base: int, selector: int) -> Descriptor | None:
    """The descriptor that a selector names in a GDT at a physical address, whatever the table's limit; None where no memory
    is."""
    try:
        data = memory.read(base + (selector & ~(x86.SELECTOR_RPL | x86.SELECTOR_LDT)), x86.DESC_SIZE)
    except NoMemoryError:
        return None
    return decode_descriptor(selector, int.from_bytes(data, "little"))


def read_gdt(memory: ReadableMemory, base: int, limit: int) -> Mapping[int, Descriptor]:
    """The whole descriptors of a GDT at a physical address, by selector, as far as there is memory. `limit`: its last byte."""
    table: dict[int, Descriptor] = {}
    for selector in range(0, limit + 1 - (x86.DESC_SIZE - 1), x86.DESC_SIZE):
        descriptor = read_descriptor(memory, base, selector)
        if descriptor is None:
            break
        table[selector] = descriptor
    return table
