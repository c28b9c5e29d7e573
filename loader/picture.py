"""A kernel's place in physical memory, drawn in a few lines of text: what lies where, what is free, what is zeroed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.machines import GIB, KIB, MIB

from .elf import ProgramHeader

_CELLS: Final = 8  # of a bar
_WIDTH: Final = 98  # columns of a line, where it has a choice
FILE: Final = "█"
ZEROS: Final = "░"
LINE: Final = "─"
_LINES: Final = ((MIB, "1 MiB"), (GIB, "1 GiB"), (ADDRESS_4G, "4 GiB"))
_FIRST, _LAST = 16, 4  # of more than the sum, these are shown
_FLAGS: Final = ((PF_R, "R"), (PF_W, "W"), (PF_X, "X"))

_UNITS: Final = (
    (1 << 60, "EiB"),
    (1 << 50, "PiB"),
    (1 << 40, "TiB"),
    (GIB, "GiB"),
    (MIB, "MiB"),
    (KIB, "KiB"),
)


ItemT = TypeVar("ItemT")


def cut(items: Sequence[ItemT], first: int = _FIRST, last: int = _LAST) -> tuple[list[ItemT | None], int]:
    """So many of the first and the last of many, None for those between, and how many these are; of a few, all."""
    hidden = len(items) - first - last
    if hidden <= 1:
        return [*items], 0
    return [*items[:first], None, *items[-last:]], hidden


def show_flags(flags: int) -> str:
    """As in "R-X"."""
    return "".join(letter if flags & bit else "-" for bit, letter in _FLAGS)


def about(size: int) -> str:
    """`size` bytes in the largest unit of which there is one, with a digit behind the point if it is not whole."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size % unit else f"{size // unit} {name}"
    return f"{size} bytes"


class _Row(NamedTuple):
    """A line: an address ("" for none), a bar, what is there, and marks that come below if there is no room beside it."""

    address: str
    bar: str
    text: str
    marks: tuple[str, ...] = ()

    def lines(self, width: int) -> Iterator[str]:
        """With its address in so many columns."""
        head = f"{self.address:>{width}}  {self.bar:<{_CELLS}}  "
        together = head + "  ".join((self.text, *self.marks))
        if len(together) <= _WIDTH:
            yield together.rstrip()
            return
        yield (head + self.text).rstrip()
        for mark in self.marks:
            yield " " * len(head) + mark


def draw(loads: Sequence[ProgramHeader], entries: Mapping[str, int]) -> list[str]:
    """Lines from the lowest address to the highest: the segments with memory, the gaps between them, and the lines at 1 MiB,
    1 GiB and 4 GiB that something is near. `entries` are addresses by name, each marked in the segment that holds it."""
    segments = sorted((load for load in loads if load.memsz), key=lambda load: (load.paddr, load.memsz))
    if not segments:
        return []
    shown, hidden = cut(segments)
    edges = _edges(segments)
    rows: list[_Row] = []
    end, whose = 0, ""
    for segment in shown:
        if segment is None:
            rows.append(_Row("", "…", f"{hidden} more segments"))
            end = max(load.paddr + load.memsz for load in segments[:-_LAST])
            whose = "one of those"
            continue
        while edges and edges[0][0] <= segment.paddr:
            at, name = edges.pop(0)
            rows += _gap(end, at)
            rows.append(_line(at, name, whose if at < end else ""))
            end = max(end, at)
        rows += _gap(end, segment.paddr)
        held = (f"<- {name} {at:#x}" for name, at in entries.items() if 0 <= at - segment.paddr < segment.memsz)
        marks = (*_faults(segment, end, whose), *held)
        rows.append(_Row(f"{segment.paddr:#x}", _bar(segment), _described(segment), marks))
        if segment.paddr + segment.memsz > end:
            end, whose = segment.paddr + segment.memsz, segment.name
    rows += [_line(at, name, whose) for at, name in edges if at < end]
    rows.append(_Row(f"{end:#x}", "", "the end"))
    rows += [_line(at, name, "") for at, name in edges if at >= end]
    width = max(len(row.address) for row in rows)
    return [line for row in rows for line in row.lines(width)]


def _edges(segments: Sequence[ProgramHeader]) -> list[tuple[int, str]]:
    """The line at 1 MiB if anything begins there or below, the others if more than half of what lies below them is reached."""
    first, last = segments[0].paddr, max(load.paddr + load.memsz for load in segments)
    return [(at, name) for at, name in _LINES if (first <= at if at == MIB else last > at // 2)]


def _line(at: int, name: str, whose: str) -> _Row:
    return _Row(f"{at:#x}", LINE * _CELLS, f"{name}, in {whose}" if whose else name)


def _gap(start: int, end: int) -> list[_Row]:
    return [_Row(f"{start:#x}", "", f"{about(end - start)} free")] if start < end else []


def _bar(segment: ProgramHeader) -> str:
    """Its cells, those of the file's bytes and those of zeros: one at least of each that there is."""
    stored = min(segment.filesz, segment.memsz)
    full = round(_CELLS * stored / segment.memsz)
    if stored:
        full = max(full, 1)
    if stored < segment.memsz:
        full = min(full, _CELLS - 1)
    return FILE * full + ZEROS * (_CELLS - full)


def _described(segment: ProgramHeader) -> str:
    text = f"{segment.name} {show_flags(segment.flags)} {about(segment.memsz)}"
    zeros = segment.memsz - segment.filesz
    return f"{text}, {about(zeros)} zeros" if zeros > 0 else text


def _faults(segment: ProgramHeader, end: int, whose: str) -> Iterator[str]:
    if segment.paddr < end:
        yield f"!! overlaps {whose}"
    if segment.paddr + segment.memsz > 1 << 64:
        yield "!! wraps around"
