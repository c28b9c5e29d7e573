"""A matrix of changes as text for a person, and as JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..places import Places
from .judging import SAME, SILENT, WORDS
from .matrix import Result
from .mutants import Mutation
from .trial import Change

_EFFECTS = 4  # of a change that are shown


def kind_of(change: Change) -> str:
    """The operator of a mutant, the family of a fault."""
    return change.operator if isinstance(change, Mutation) else change.family


def matrix_text(results: Sequence[Result], places: Places, verbose: bool) -> str:
    """How many changes of each kind led to what; then those that nobody has noticed, or with `verbose` all."""
    lines = [*_table(results), ""]
    shown = [result for result in results if verbose or result.verdict.word == SILENT]
    for result in shown:
        lines += _result_lines(result, places)
    return "\n".join([*lines, *([""] if shown else []), _score(results)])


def _table(results: Sequence[Result]) -> Iterator[str]:
    counts = Counter((kind_of(change), verdict.word) for change, verdict in results)
    words = [word for word in WORDS if any(found == word for _, found in counts)]
    kinds = list(dict.fromkeys(kind_of(result.change) for result in results))
    yield f"{'':<13}" + "".join(f"{word:>8}" for word in (*words, "all"))
    for kind in (*kinds, "all"):
        row = [sum(n for (one, found), n in counts.items() if kind in (one, "all") and found == word) for word in words]
        yield f"{kind:<13}" + "".join(f"{number or '-':>8}" for number in (*row, sum(row)))


def _result_lines(result: Result, places: Places) -> Iterator[str]:
    change, verdict = result
    place = _place(places, change.address)
    yield f"{verdict.word}  {kind_of(change)}: {change}" + (f"  at {place}" if place else "")
    detail = "; ".join(verdict.effects[:_EFFECTS]) if verdict.effects and verdict.word == SILENT else verdict.detail
    more = len(verdict.effects) - _EFFECTS if verdict.word == SILENT else 0
    ended = _place(places, verdict.ended_at)
    if detail:
        yield f"    {detail}" + (f"; and {more} more" if more > 0 else "") + (f", at {ended}" if ended else "")


def _place(places: Places, address: int | None) -> str:
    if address is None:
        return ""
    place = places.locate(address)
    return f"{address:#x}" if place is None else str(place)


def _score(results: Sequence[Result]) -> str:
    silent = sum(result.verdict.word == SILENT for result in results)
    same = sum(result.verdict.word == SAME for result in results)
    effective = len(results) - same
    share = f" ({100 * (effective - silent) / effective:.1f} %)" if effective else ""
    return (
        f"{len(results)} changes: {same} without an effect on what the kernel is handed, "
        f"{effective - silent} of the other {effective} noticed{share}"
    )


def matrix_to_json(results: Sequence[Result], places: Places) -> dict[str, Any]:
    """Every change, and the numbers."""
    counts = Counter(result.verdict.word for result in results)
    return {"ok": not counts[SILENT], "counts": dict(counts), "changes": [_to_json(result, places) for result in results]}


def _to_json(result: Result, places: Places) -> dict[str, Any]:
    change, verdict = result
    found: dict[str, Any] = {"kind": kind_of(change), "change": str(change), "address": change.address}
    found["place"] = _place(places, change.address) or None
    if isinstance(change, Mutation):
        found |= {"offset": change.offset, "before": change.before.hex(), "after": change.after.hex()}
    else:
        found |= {"how": change.how, "number": change.number}
    return found | {
        "verdict": verdict.word,
        "detail": verdict.detail,
        "ended_at": _place(places, verdict.ended_at) or None,
        "effects": list(verdict.effects),
    }
