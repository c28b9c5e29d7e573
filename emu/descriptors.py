"""The descriptors of a GDT in memory, decoded."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError, NoMemoryError

from .shown import Printer, show_text

_LIMIT_LOW = 0xFFFF
_BASE_LOW = 0xFFFFFF
_GRANULE = x86.PAGE_SIZE


class Descriptor(NamedTuple):
    """A descriptor: its 8 bytes as a number, what a segment register would hold after loading it, and its privilege level.
    `print` says what it describes, a notebook what each of its bits does."""

    value: int
    segment: Segment
    dpl: int

    def __str__(self) -> str:
        from .report.state import descriptor_text

        return descriptor_text(self)

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from .html.gdt import descriptor_html

        return descriptor_html(self)


class Gdt(dict[int, Descriptor]):
    """The whole descriptors of a GDT by their selectors. `base` is its physical address, `limit` the offset of its last byte,
    as GDTR has them, so that there may be fewer descriptors than the limit has room for, where memory ends. `loaded` are
    segment registers by name, with the selectors in them, as far as they are known.

    A line in a terminal, `print` gives each descriptor, a notebook each of their bits.
    """

    def __init__(
        self, descriptors: Mapping[int, Descriptor], base: int, limit: int, loaded: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(descriptors)
        self.base, self.limit, self.loaded = base, limit, dict(loaded or {})

    def registers_of(self, selector: int) -> list[str]:
        """The segment registers that hold a selector of this descriptor, whatever the privilege level in it."""
        if not selector:
            return []  # the null descriptor is in no register
        inside = ~x86.SELECTOR_RPL
        return [name for name, held in self.loaded.items() if held & inside == selector & inside]

    def __missing__(self, selector: object) -> Descriptor:
        shown = f"{selector:#x}" if isinstance(selector, int) else repr(selector)
        last = f"they go from 0x0 to {max(self):#x}, in steps of {x86.DESC_SIZE}" if self else "the table is empty"
        raise BootError(f"no descriptor has the selector {shown}: {last}")

    def __repr__(self) -> str:
        return f"<GDT at {self.base:#x}, limit {self.limit:#x}: {len(self)} descriptors>"

    def __str__(self) -> str:
        from .report.state import gdt_text

        return "\n".join(gdt_text(self))

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from .html.gdt import gdt_html

        return gdt_html(self)


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


def read_gdt(memory: ReadableMemory, base: int, limit: int, loaded: Mapping[str, int] | None = None) -> Gdt:
    """The whole descriptors of a GDT at a physical address, by selector, as far as there is memory. `limit`: its last byte;
    `loaded` as Gdt has it."""
    data = _whole_descriptors(memory, base, limit)
    table = {
        selector: decode_descriptor(selector, int.from_bytes(data[selector : selector + x86.DESC_SIZE], "little"))
        for selector in range(0, len(data), x86.DESC_SIZE)
    }
    return Gdt(table, base, limit, loaded)


def _whole_descriptors(memory: ReadableMemory, base: int, limit: int) -> bytes:
    size = (limit + 1) // x86.DESC_SIZE * x86.DESC_SIZE
    try:
        return memory.read(base, size) if size else b""
    except NoMemoryError:
        return b"".join(_until_no_memory(memory, base, size))


def _until_no_memory(memory: ReadableMemory, base: int, size: int) -> Iterator[bytes]:
    with suppress(NoMemoryError):
        for at in range(base, base + size, x86.DESC_SIZE):
            yield memory.read(at, x86.DESC_SIZE)
