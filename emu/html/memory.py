"""A memory map for a notebook: a table, and a bar with its ranges and the holes between them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from pvhboot.loader.picture import about
from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.x86 import PAGE_SIZE

from ..kit.values import MemoryRange
from ..memmap_words import type_name
from .markup import Markup, code, element, fragment, joined, row, table

_LEAST: Final = 6  # of a piece's width, which has room for its text
_CLASSES: Final = {
    pvh.MEMMAP_TYPE_RAM: "ram",
    pvh.MEMMAP_TYPE_RESERVED: "reserved",
    pvh.MEMMAP_TYPE_ACPI: "tables",
    pvh.MEMMAP_TYPE_NVS: "tables",
    pvh.MEMMAP_TYPE_UNUSABLE: "bad",
    pvh.MEMMAP_TYPE_DISABLED: "bad",
    pvh.MEMMAP_TYPE_PMEM: "persistent",
}


def memory_map_html(ranges: Sequence[MemoryRange]) -> str:
    """Ranges as a firmware tells them, in whatever order."""
    return fragment("memory map", *memory_map_parts(ranges))


def memory_map_parts(ranges: Sequence[MemoryRange]) -> list[Markup]:
    """The bar and the table."""
    sizes: Counter[int] = Counter()
    for entry in ranges:
        sizes[entry.type] += entry.size
    sums = ", ".join(f"{type_name(kind)} {about(size)}" for kind, size in sorted(sizes.items()))
    caption = f"memory map: {len(ranges)} {'entry' if len(ranges) == 1 else 'entries'}" + (f" ({sums})" if sums else "")
    columns = ("entry", "first byte", "last byte", "size", "type", "remark")
    rows = (_row(number, entry, remark) for number, (entry, remark) in enumerate(zip(ranges, _remarks(ranges), strict=True)))
    return [_bar(ranges), table(caption, columns, rows)]


def _class(kind: int) -> str:
    return _CLASSES.get(kind, "unknown")


def _row(number: int, entry: MemoryRange, remark: str) -> Markup:
    kind = joined([element("span", classes=f"swatch {_class(entry.type)}"), type_name(entry.type)], "")
    last = code(f"{entry.end - 1:#014x}") if entry.size else "empty"
    return row(
        number, code(f"{entry.start:#014x}"), last, element("td", show_size(entry.size), title=about(entry.size)), kind, remark
    )


def _remarks(ranges: Sequence[MemoryRange]) -> Iterator[str]:
    """What is odd about each beside the one before it."""
    if ranges:
        yield ""
    for before, entry in pairwise(ranges):
        if entry.start < before.start:
            yield "lies before the entry above"
        else:
            yield "overlaps the entry above" if entry.start < before.end else ""


def _bar(ranges: Sequence[MemoryRange]) -> Markup:
    """By address. Its pieces grow with the number of digits of their sizes: else there would be nothing but the largest.
    Whoever does not see it has the table."""
    pieces, at = [], 0
    for entry in sorted(ranges):
        if entry.start > at:
            pieces.append(_piece("hole", "", entry.start - at, f"nothing from {at:#x} to {entry.start - 1:#x}"))
        if entry.size:
            title = f"{type_name(entry.type)} from {entry.start:#x} to {entry.end - 1:#x}"
            pieces.append(_piece(_class(entry.type), type_name(entry.type), entry.size, title))
        at = max(at, entry.end)
    return element("div", *pieces, classes="bar", **{"aria-hidden": "true"})


def _piece(classes: str, name: str, size: int, title: str) -> Markup:
    width = _LEAST + (size // PAGE_SIZE).bit_length()
    shown = joined([name, element("br"), about(size)], "") if name else about(size)
    return element("div", shown, classes=f"piece {classes}", title=f"{title}, {about(size)}", style=f"flex-grow:{width}")
