"""Registers and segment registers for a notebook: the bits that have a name, with what they mean."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pvhboot.shim.abi.x86 import Segment

from ..bitfields import REGISTERS_OF_BITS, BitField, mtrr_def_type_fields, register_fields, selector_fields
from ..engines.base import ENCODED, GENERAL_64
from ..report.state import kind_text, task_text
from .markup import Markup, code, element, fragment, joined, row, table

_MTRR: Final = "IA32_MTRR_DEF_TYPE"


def registers_html(registers: Mapping[str, int]) -> str:
    """Registers by their names."""
    return fragment("registers", *registers_tables(registers))


def segments_html(segments: Mapping[str, Segment]) -> str:
    """Segment registers by their names."""
    return fragment("segment registers", segments_table(segments))


def registers_tables(registers: Mapping[str, int], mtrr_def_type: int | None = None) -> Iterator[Markup]:
    """The general registers, and all others with their bits. `mtrr_def_type` is told with them if it is known."""
    general = [name for name in (*ENCODED, *GENERAL_64) if name in registers]
    if general:
        values = (element("td", code(f"{registers[name]:#010x}")) for name in general)
        yield table("general registers", general, [element("tr", *values)])
    rows = [_register(name, value) for name, value in registers.items() if name not in general]
    if mtrr_def_type is not None:
        rows.append(row(_MTRR, code(f"{mtrr_def_type:#x}"), chips(mtrr_def_type_fields(mtrr_def_type))))
    if rows:
        yield table("other registers, bit by bit", ("register", "value", "bits"), rows)


def _register(name: str, value: int) -> Markup:
    bits = chips(register_fields(name, value)) if name in REGISTERS_OF_BITS else ""
    return row(name, code(f"{value:#x}"), element("td", bits, classes="prose"))


def chips(fields: Iterable[BitField]) -> Markup:
    """Fields with their names and values, what they mean as a title; those that are not 0 stand out."""
    return joined(
        element(
            "span",
            f"{field.name} {field.value:#x}" if field.high != field.low else f"{field.name} {field.value}",
            classes="bit set" if field.value else "bit",
            title=f"bit{'' if field.high == field.low else 's'} {field.bits}: {field.meaning}",
        )
        for field in fields
    )


def segments_table(segments: Mapping[str, Segment]) -> Markup:
    """A row for each."""
    columns = ("register", "selector", "base", "limit", "holds", "hidden attributes")
    return table("segment registers with their hidden parts", columns, (_segment(*each) for each in segments.items()))


def _segment(name: str, segment: Segment) -> Markup:
    fields = selector_fields(segment.selector)
    meant = ", ".join(f"{field.name} {field.value:#x}: {field.meaning}" for field in fields)
    flags = (("P", segment.present), ("S", segment.s), ("D/B", segment.db), ("L", segment.long), ("G", segment.g))
    attributes = [code(f"type {segment.type:#x}"), *(_flag(*flag) for flag in flags)]
    return row(
        name,
        code(f"{segment.selector:#06x}", title=meant),
        code(f"{segment.base:#010x}"),
        code(f"{segment.limit:#010x}"),
        task_text(segment) if name == "tr" else kind_text(segment),
        joined(attributes),
    )


_FLAGS: Final = {
    "P": "present",
    "S": "code or data, not a system segment",
    "D/B": "32-bit code, or a 32-bit stack",
    "L": "64-bit code",
    "G": "its descriptor's limit counts 4 KiB pages",
}


def _flag(name: str, value: bool) -> Markup:
    title = _FLAGS[name] if value else f"not: {_FLAGS[name]}"
    return element("span", f"{name} {value:d}", classes="bit set" if value else "bit", title=title)
