"""Coverage of firmware as text for a person, and as JSON."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pvhboot.loader.printable import one_line

from ..covered import Covered, CoveredFile, Figures, total

_NOT_EXECUTED = "not executed"
_NEVER_TAKEN = "never taken"
_ALWAYS_TAKEN = "always taken"


def missed(instruction: Covered) -> str:
    """What of an instruction is not covered, in words; empty if nothing is missing."""
    if not instruction.runs:
        return _NOT_EXECUTED
    ways = instruction.ways
    if ways is None or ways.covered == len(ways):
        return ""
    if not ways.covered:  # the run ended there
        return f"{_NEVER_TAKEN}, nor gone past"
    return _ALWAYS_TAKEN if ways.taken else _NEVER_TAKEN


def coverage_text(files: Sequence[CoveredFile], missing: bool) -> str:
    """A table by file. `missing` lists behind it, with the source, what is not covered."""
    width = max(len("total"), *(len(file.name) for file in files)) if files else len("total")
    lines = [f"{'':<{width}}  {'instructions':>14}  {'branch ways':>14}  {'covered':>8}"]
    lines += [_row(file.name, file.figures, width) for file in files]
    lines.append(_row("total", total(files), width))
    for file in files if missing else ():
        if not file.figures.complete:
            lines += ["", file.name, *_missing(file)]
    return "\n".join(map(one_line, lines))


def _row(name: str, figures: Figures, width: int) -> str:
    executed = f"{figures.executed} of {figures.instructions}"
    ways = f"{figures.gone} of {figures.ways}" if figures.ways else "none"
    return f"{name:<{width}}  {executed:>14}  {ways:>14}  {_per_cent(figures):>8}"


def _per_cent(figures: Figures) -> str:
    """100 % only if nothing is missing."""
    return f"{figures.per_cent if figures.complete else min(figures.per_cent, 99.9):.1f} %"


def _missing(file: CoveredFile) -> Iterator[str]:
    for each in file.instructions:
        if what := missed(each):
            yield f"{each.line:>6}  {what:<12}  {each.text}"


def coverage_to_json(files: Iterable[CoveredFile]) -> dict[str, Any]:
    """The same: figures by file, and what is missing."""
    return {
        "files": {file.name: {**_figures(file.figures), "missing": _missing_json(file)} for file in files},
        "total": _figures(total(files)),
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {**figures._asdict(), "per_cent": round(figures.per_cent, 2)}


def _missing_json(file: CoveredFile) -> list[dict[str, Any]]:
    return [{"line": each.line, "text": each.text, "missing": what} for each in file.instructions if (what := missed(each))]


def too_little(covered: float, wanted: float) -> str:
    """That less is covered than was asked for, in per cent, in words."""
    return f"{covered:.2f} % of the firmware is covered, less than {wanted:g} %"
