"""`pvhboot diff`: two traces, to where they part."""

import argparse
import json
from typing import Any

from pvhboot.loader.printable import one_line
from pvhboot.shim.errors import BootError

from ..effects import EFFECTS, LOAD, STORE, Effect
from ..report.trace_diff_text import comparison_lines, subject_lines
from ..trace import End, Record
from ..trace_diff import Trace, TraceComparison, compare_effects, compare_traces
from ..trace_file import Header, TraceFile, to_json
from .common import require_registers
from .trace import ONLY


def run(arguments: argparse.Namespace) -> int:
    """0 if the traces are the same, 1 if they part."""
    require_registers(arguments.ignore, "--ignore")
    with TraceFile(arguments.first) as first, TraceFile(arguments.second) as second:
        _require_alike(first.header.filters, second.header.filters, only=bool(arguments.only))
        kinds = frozenset(kind for word in arguments.only for kind in EFFECTS[word])
        _require_told(kinds, (arguments.first, first.header), (arguments.second, second.header))
        one, other = (Trace(file, file.header.sees_memory, not file.header.filters) for file in (first, second))
        comparison = compare_effects(one, other, kinds) if arguments.only else compare_traces(one, other, arguments.ignore)
        if arguments.json:
            print(json.dumps(_to_json(comparison, first.header, second.header), indent=2))
        else:
            told = comparison_lines(comparison, of_accesses=bool(arguments.only))
            print("\n".join(map(one_line, [*subject_lines(first.header, second.header), *told])))
    return 0 if comparison.divergence is None else 1


def _require_alike(first: tuple[str, ...], second: tuple[str, ...], *, only: bool) -> None:
    """With --only, a trace may have more kinds of accesses than the other one."""
    one, other = (sorted(word for word in filters if not (only and word.startswith(f"{ONLY} "))) for filters in (first, second))
    if one != other:
        told = [", ".join(filters) or "nothing left out" for filters in (first, second)]
        raise BootError(f"the traces were not chosen alike: {told[0]} and {told[1]}; give `trace` the same options")


def _require_told(kinds: frozenset[str], *files: tuple[str, Header]) -> None:
    """That the accesses of these kinds are in the files; without kinds, those that the files were made to tell."""
    for path, header in files:
        words = [word.removeprefix(f"{ONLY} ") for word in header.filters if word.startswith(f"{ONLY} ")]
        chosen = frozenset(kind for word in words for kind in EFFECTS.get(word, ()))
        if not header.sees_memory and not (kinds or chosen).isdisjoint((LOAD, STORE)):
            raise BootError(f"{path}: the engine {header.engine} has not seen loads and stores: compare --only io or dma")
        if words and not kinds <= chosen:
            raise BootError(f"{path}: it was made with {', '.join(header.filters)}, and has not all that is to be compared")


def _to_json(comparison: TraceComparison, first: Header, second: Header) -> dict[str, Any]:
    divergence = comparison.divergence
    return {
        "ok": divergence is None,
        "first": first._asdict(),
        "second": second._asdict(),
        "same": comparison.same,
        "own": [to_json(record) for record in comparison.own],
        "own_reached": comparison.own_reached,
        "before": [to_json(record) for record in comparison.before],
        "divergence": None
        if divergence is None
        else {
            "first": _value(divergence.first),
            "second": _value(divergence.second),
            "differences": [
                {"what": difference.what, "first": _value(difference.first), "second": _value(difference.second)}
                for difference in divergence.differences
            ],
        },
    }


def _value(value: int | Effect | Record | End | None) -> Any:
    return value if value is None or isinstance(value, int) else to_json(value)
