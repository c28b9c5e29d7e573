"""Timelines of boots as text for a person, and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pvhboot.loader.printable import one_line

from ..reasons import EXIT as GUEST_EXIT
from ..reasons import INTERRUPTED
from ..timeline.marks import EXIT, HANDOFF, MARKS, NOT_REACHED, Mark, Timeline

_NEVER: Final = "-"
_WIDTH: Final = 100  # columns


def timeline_table(timelines: Sequence[Timeline]) -> str:
    """A block for each: its marks, with the milliseconds since the first one and since the one before, and where the CPU was;
    then what was looked for in vain, how the run ended, and the counts."""
    return "\n\n".join("\n".join(_block(timeline)) for timeline in timelines)


def timelines_json(timelines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """As the fields of Timeline and Mark; nanoseconds."""
    return [
        {**timeline._asdict(), "marks": [mark._asdict() for mark in timeline.marks]}
        | {"counts": dict(timeline.counts), "absent": dict(timeline.absent)}
        for timeline in timelines
    ]


def timelines_from_json(data: Sequence[Mapping[str, Any]]) -> list[Timeline]:
    """What another process has told by `timelines_json`."""
    return [Timeline(**{**entry, "marks": tuple(Mark(**mark) for mark in entry["marks"])}) for entry in data]


def written_text(path: str) -> str:
    """That the picture is there, in one line."""
    return f"{one_line(path)}: written"


def milliseconds(ns: int) -> str:
    """Nanoseconds as milliseconds, to the microsecond."""
    return f"{ns / 1e6:.3f}"


def _block(timeline: Timeline) -> list[str]:
    names = [mark.name for mark in timeline.marks]
    width = max(map(len, [*names, *timeline.absent]), default=0)
    lines = [timeline.label, f"  {'':<{width}}  {'ms':>12}  {'step':>12}"]
    before = 0
    for mark in timeline.marks:
        step = f"+{milliseconds(mark.ns - before)}"
        lines.append(f"  {mark.name:<{width}}  {milliseconds(mark.ns):>12}  {step:>12}  {mark.place}".rstrip())
        before = mark.ns
    order = {name: number for number, name in enumerate((*MARKS, EXIT))}
    for name in sorted(timeline.absent, key=lambda name: order.get(name, len(order))):
        lines.append(f"  {name:<{width}}  {_NEVER:>12}  {_NEVER:>12}  {timeline.absent[name]}")
    if timeline.end:
        lines.append(f"end: {timeline.end}")
    lines += _hint(timeline)
    if timeline.counts:
        lines += _counts(timeline.counts)
    return lines


def _hint(timeline: Timeline) -> list[str]:
    """Who tells more of a boot that went astray."""
    explained = timeline.end == INTERRUPTED or timeline.end.startswith(GUEST_EXIT)
    if explained or NOT_REACHED not in timeline.absent.values():
        return []
    until = HANDOFF if timeline.ns(HANDOFF) is None else GUEST_EXIT
    return [f"why: see `pvhboot boot` with the same options and --until {until}"]


def _counts(counts: Mapping[str, int]) -> list[str]:
    from textwrap import wrap

    words = ", ".join(f"{name}\xa0{value}" for name, value in counts.items())  # not parted from its value
    return [line.replace("\xa0", " ") for line in wrap(f"counts: {words}", _WIDTH, subsequent_indent="  ")]
