"""What is left of spans, and where something fits: compared with sets of addresses."""

from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader.ranges import places, without
from pvhboot.shim.machines import Span

ENDS = st.lists(st.integers(0, 60), min_size=2, max_size=12)


def disjoint(ends: list[int]) -> list[Span]:
    """Spans between neighbours of a sorted list: two may touch, and one may be empty."""
    ordered = sorted(ends)
    return [Span(f"s{at}", *ordered[at : at + 2]) for at in range(0, len(ordered) - 1, 2)]


def addresses(spans: list[Span]) -> set[int]:
    return {at for span in spans for at in range(span.start, span.end)}


@given(ENDS, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6))
def test_what_holes_leave_is_the_difference_of_the_sets(ends: list[int], holes: list[tuple[int, int]]) -> None:
    spans = disjoint(ends)
    gone = [Span("hole", start, start + size) for start, size in holes]
    left = without(reversed(spans), gone)
    assert addresses(left) == addresses(spans) - addresses(gone)
    assert left == sorted(left, key=lambda span: span.bounds)
    assert all(span.size for span in left)
    for piece in left:
        assert any(s.name == piece.name and s.start <= piece.start and piece.end <= s.end for s in spans)


@given(ENDS, st.integers(1, 20), st.integers(1, 16), st.integers(0, 60), st.integers(0, 60))
def test_places_are_the_lowest_that_fit(ends: list[int], size: int, align: int, first: int, last: int) -> None:
    spans = disjoint(ends)
    found = list(places(spans, size, align, first, last))
    wanted = []
    for span in spans:
        fits = [at for at in range(0, 80, align) if max(span.start, first) <= at and at + size <= min(span.end, last + 1)]
        wanted += fits[:1]
    assert found == wanted
