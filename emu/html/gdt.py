"""A GDT for a notebook: each descriptor as the row of its fields, as they lie in its 64 bits."""

from collections.abc import Iterator
from typing import Final

from pvhboot.loader.picture import cut
from pvhboot.shim.abi.x86 import DESC_S

from ..bitfields import BitField, descriptor_fields
from ..descriptors import Descriptor, Gdt
from ..report.state import descriptor_text, kind_text
from .markup import Markup, code, element, fragment, joined, row, table

# The columns are those of code and data; of a system descriptor three of them are one field.
_COLUMNS: Final = tuple(joined([field.name, element("br"), field.bits], "") for field in descriptor_fields(DESC_S))


def gdt_html(gdt: Gdt) -> str:
    """The table, or of a long one its first and last descriptors."""
    shown, hidden = cut([*gdt.items()])
    rows = [_more(hidden) if each is None else _row(gdt, *each) for each in shown]
    heading = f"GDT at {gdt.base:#x}, limit {gdt.limit:#x}: {len(gdt)} descriptors, highest bit first"
    columns = ("selector", "held by", *_COLUMNS, "describes")
    return fragment("GDT", table(heading, columns, rows, classes="bits"))


def _row(gdt: Gdt, selector: int, descriptor: Descriptor) -> Markup:
    held = " ".join(gdt.registers_of(selector))
    return row(
        code(f"{selector:#06x}"), held, *_cells(descriptor), element("td", _describes(selector, descriptor), classes="prose")
    )


def _describes(selector: int, descriptor: Descriptor) -> str:
    if not descriptor.value:
        return "empty" if selector else "the null descriptor, which no segment can use"
    segment = descriptor.segment
    return f"{kind_text(segment)}, from {segment.base:#x}, limit {segment.limit:#x}, DPL {descriptor.dpl}"


def _cells(descriptor: Descriptor) -> Iterator[Markup]:
    for field in descriptor_fields(descriptor.value):
        span = field.high - field.low + 1 if field.name == "reserved" else None  # a column for each bit
        yield element("td", code(_digits(field)), title=f"{field.name}, bits {field.bits}: {field.meaning}", colspan=span)


def _digits(field: BitField) -> str:
    """In binary up to four bits, which is how the SDM has them, else in hexadecimal."""
    width = field.high - field.low + 1
    return f"{field.value:0{width}b}" if width <= 4 else f"{field.value:0{width // 4}x}"


def _more(hidden: int) -> Markup:
    return row("…", element("td", f"{hidden} more", colspan=len(_COLUMNS) + 2))


def descriptor_html(descriptor: Descriptor) -> str:
    """One descriptor, a row a field."""
    fields = descriptor_fields(descriptor.value)
    rows = (row(field.bits, field.name, code(_digits(field)), field.meaning) for field in fields)
    caption = f"descriptor {descriptor.value:#018x}: {descriptor_text(descriptor)}"
    return fragment("descriptor", table(caption, ("bits", "field", "value", "means"), rows))
