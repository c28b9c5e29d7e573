"""What pytest says of two values that are not equal, or of one that is not in the other, if one of them is a machine's."""

from collections.abc import Mapping, Sequence

from pvhboot.shim.abi.x86 import Segment

from ..bus import Access
from . import differences
from .differences import LEGEND, holds
from .values import MemoryBytes, MemoryRange, Registers, RegisterValue
from .view import HandoffView


def explain(op: str, left: object, right: object) -> list[str] | None:
    """Lines for a person, the first one a heading; None for values of which nothing better is known than what pytest says."""
    if op == "==":
        found = _not_equal(left, right)
        return None if found is None else [f"{found[0]} {LEGEND}", *found[1:]]
    if op in ("in", "not in") and isinstance(right, list | tuple) and holds(MemoryRange, right):
        (entry,) = differences.memmap_lines([left])
        heading = f"the memory map has {'no ' if op == 'in' else ''}{entry.rstrip()}; it is:"
        return [heading, *(f"  {line}" for line in differences.memmap_lines(right))]
    return None


def _not_equal(left: object, right: object) -> Sequence[str] | None:
    pair = (left, right)
    if isinstance(left, HandoffView) and isinstance(right, HandoffView):
        return ["the handoffs differ", *left.diff(right).splitlines()]
    if isinstance(left, int) and isinstance(right, int) and any(isinstance(side, RegisterValue) for side in pair):
        name = next(side.name for side in pair if isinstance(side, RegisterValue))
        return [f"{name} differs", *differences.value_differences(name, left, right)]
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if any(isinstance(side, Registers) for side in pair):
            return ["the registers differ", *differences.register_differences(left, right)]
        if any(isinstance(value, Segment) for side in (left, right) for value in side.values()):
            return ["the segments differ", *differences.segment_differences(left, right)]
    if isinstance(left, Segment) and isinstance(right, Segment):
        return ["the segments differ", *differences.field_differences(left, right)]
    if isinstance(left, bytes) and isinstance(right, bytes) and any(isinstance(side, MemoryBytes) for side in pair):
        paddr = next(side.paddr for side in pair if isinstance(side, MemoryBytes))
        return ["the memory differs", *differences.memory_differences(left, right, paddr)]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if holds(MemoryRange, left, right):
            return ["the memory maps differ", *differences.memmap_differences(left, right)]
        if holds(Access, left, right):
            return ["the logs of accesses differ", *differences.io_differences(left, right)]
    return None
