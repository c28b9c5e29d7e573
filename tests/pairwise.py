"""A small table that has every pair of values of any two factors, and what makes sure of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = tuple[Any, ...]
Pair = tuple[tuple[int, Any], tuple[int, Any]]


def pairs_of(row: Row) -> set[Pair]:
    """The pairs in a row, each value with the number of its factor."""
    return set(combinations(enumerate(row), 2))


def everything(factors: Mapping[str, Sequence[Any]]) -> list[Row]:
    """All combinations, a row with a value of each factor in their order."""
    return list(product(*factors.values()))


def pairwise(factors: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Rows in which every pair occurs, always the same: one after another that which adds most; of several the one whose values
    were used least, of those the first."""
    candidates = {row: pairs_of(row) for row in everything(factors)}
    missing = set().union(*candidates.values())
    used: Counter[tuple[int, Any]] = Counter()
    rows = []
    while missing:
        best = max(candidates, key=lambda row: (len(candidates[row] & missing), -sum(used[value] for value in enumerate(row))))
        missing -= candidates[best]
        used.update(enumerate(best))
        rows.append(best)
    return rows
