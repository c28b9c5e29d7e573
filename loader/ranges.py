"""Sets of physical addresses as spans: what is left of some, and where in it something fits."""

from collections.abc import Iterable, Iterator

from pvhboot.shim.machines import Span


def align_up(paddr: int, align: int) -> int:
    """The lowest multiple of `align` that is not below."""
    return -(-paddr // align) * align


def without(spans: Iterable[Span], holes: Iterable[Span]) -> list[Span]:
    """What the holes leave of the spans, which are disjoint; sorted, the pieces named as what they are of. Linear, but for the
    sorting, in both."""
    left: list[Span] = []
    taken = sorted((hole for hole in holes if hole.size), key=lambda hole: hole.bounds)
    number = 0
    for span in sorted(spans, key=lambda span: span.bounds):
        at = span.start
        while number < len(taken) and taken[number].start < span.end:
            hole = taken[number]
            if at < hole.start:
                left.append(span._replace(start=at, end=hole.start))
            at = max(at, hole.end)
            if hole.end > span.end:
                break  # it may reach into the next span
            number += 1
        if at < span.end:
            left.append(span._replace(start=at))
    return left


def places(free: Iterable[Span], size: int, align: int, first: int, last: int) -> Iterator[int]:
    """The lowest multiple of `align` in each of the free spans from which on `size` bytes lie in it, none of them below `first`
    or above `last`; in the order of the spans."""
    for span in free:
        paddr = align_up(max(span.start, first), align)
        if paddr + size <= min(span.end, last + 1):
            yield paddr
