"""What a bench has measured, as text for a person, as JSON, and as a picture."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final, NamedTuple

from pvhboot.loader.sizes import show_size
from pvhboot.shim.errors import BootError

from ..engines.qemu.recorder import qemu_version
from ..timeline.bench import Result, Spread
from ..timeline.marks import (
    CONSOLE,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
    Timeline,
    console_text,
)
from ..timeline.rows import Subject
from .timeline import timelines_json
from .timeline_svg import timelines_svg

_NEVER: Final = "-"
_GAP: Final = "  "
_HEADS: Final = {
    FIRST_INSTRUCTION: "first",
    PROTECTED_MODE: "protected",
    HANDOFF: "handoff",
    KERNEL_64: "64-bit",
    START_KERNEL: "start_kernel",
    CONSOLE: "console",
    INIT: "init",
}
_COUNTS: Final = {
    "instructions": "instructions",
    "device_accesses": "device accesses",
    "rom_bytes_not_zero": "ROM bytes not zero",
}


class Bench(NamedTuple):
    """The results by accelerator, of so many runs. `kernel` is the file that was named."""

    kernel: str
    subject: Subject
    runs: int
    results: Mapping[str, Sequence[Result]]


def bench_text(bench: Bench) -> str:
    """What was booted and where; a table for each accelerator; what each firmware counts, which no clock is needed for."""
    subject = bench.subject
    lines = [
        f"{bench.kernel} on {subject.spec.name} with {show_size(subject.memory)}, to {subject.goal}: {subject.cmdline}",
        _host_text(),
    ]
    for accelerator, results in bench.results.items():
        lines += ["", f"{accelerator}: milliseconds since the start of the process, medians of {bench.runs}"]
        lines += _table(_time_rows(results, subject.goal))
        lines += _noise(results, subject.goal)
        lines += [f"{result.label}: {result.reason}" for result in results if result.reason]
    counted = {result.label: result.counts for results in bench.results.values() for result in results if result.counts}
    lines += ["", "counted, up to the handoff", *_table(_count_rows(counted))]
    return "\n".join(lines)


def bench_json(bench: Bench) -> dict[str, Any]:
    """Times are nanoseconds. `rows` are in the order of the text; `timelines` has each run."""
    subject = bench.subject
    return {
        "kernel": bench.kernel,
        "vmlinux": subject.vmlinux,
        "machine": subject.spec.name,
        "memory": subject.memory,
        "cmdline": subject.cmdline,
        "initrd": subject.initrd,
        "until": subject.goal,
        "runs": bench.runs,
        "host": _host_text(),
        "accelerators": {
            accelerator: {"rows": [_row_json(result, results, subject.goal) for result in results]}
            for accelerator, results in bench.results.items()
        },
    }


def bench_svg(bench: Bench) -> str:
    """A bar for each row that was booted: the medians of its marks."""
    subject = bench.subject
    shown = [
        _drawn(result.median, subject.goal)._replace(label=f"{result.label}, {accelerator}")
        for accelerator, results in bench.results.items()
        for result in results
        if result.timelines
    ]
    end = repr(text) if (text := console_text(subject.goal)) else subject.goal
    return timelines_svg(shown, f"{os.path.basename(bench.kernel)} on {subject.spec.name} to {end}")


def _drawn(timeline: Timeline, goal: str) -> Timeline:
    """If a text on the console is waited for, that is what the console stands for: the first byte may be of a decompressor."""
    if not console_text(goal):
        return timeline
    marks = [mark for mark in timeline.marks if mark.name != CONSOLE]
    return timeline._replace(marks=tuple(mark._replace(name=CONSOLE) if mark.name == goal else mark for mark in marks))


def _row_json(result: Result, results: Sequence[Result], goal: str) -> dict[str, Any]:
    spreads = {name: result.spread(name) for name in _names(results, goal)}
    return {
        "label": result.label,
        "reason": result.reason,
        "counts": dict(result.counts),
        "marks": {name: spread._asdict() for name, spread in spreads.items() if spread is not None},
        "firmware": None if result.firmware is None else result.firmware._asdict(),
        "ratio": _ratio(result, results, goal),
        "timelines": timelines_json(result.timelines),
    }


def _names(results: Sequence[Result], goal: str) -> list[str]:
    """The marks that some row has come to, in their order, the goal at the end."""
    reached = {mark.name for result in results for timeline in result.timelines for mark in timeline.marks}
    return [name for name in MARKS if name in reached and name not in (VMM_START, goal)] + [goal]


def _ratio(result: Result, results: Sequence[Result], goal: str) -> float | None:
    """To the row that was there first."""
    ends = [spread.median for other in results if (spread := other.spread(goal))]
    own = result.spread(goal)
    return None if own is None else own.median / min(ends)


def _time_rows(results: Sequence[Result], goal: str) -> list[list[str]]:
    names = _names(results, goal)
    head = console_text(goal) or _HEADS.get(goal, goal)
    rows = [["", "reset-handoff", *(_HEADS[name] for name in names[:-1]), head, "least-most", "ratio"]]
    for result in results:
        if not result.timelines:
            continue
        end, ratio = result.spread(goal), _ratio(result, results, goal)
        rows.append(
            [
                result.label,
                _median(result.firmware),
                *(_median(result.spread(name)) for name in names),
                _NEVER if end is None else f"{_ms(end.least)}-{_ms(end.most)}",
                _NEVER if ratio is None else f"{ratio:.2f}",
            ]
        )
    return rows


def _noise(results: Sequence[Result], goal: str) -> list[str]:
    """Which two rows cannot be told apart by their last mark: the median of each lies between least and most of the other. Of a
    single run there is no saying."""
    ends = [(result.label, spread) for result in results if (spread := result.spread(goal)) and spread.runs > 1]
    pairs = [
        f"{label} ~ {other}"
        for (label, one), (other, two) in combinations(ends, 2)
        if one.least <= two.median <= one.most and two.least <= one.median <= two.most
    ]
    return [f"rows within noise: {'; '.join(pairs)}; the counts decide"] if pairs else []


def _count_rows(counted: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    rows = [["", *_COUNTS.values()]]
    for label, counts in counted.items():
        if _COUNTS.keys() <= counts.keys():
            rows.append([label, *(str(counts[name]) for name in _COUNTS)])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column is flush left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(_GAP.join([f"{first:<{widths[0]}}", *cells]))
    return lines


def _median(spread: Spread | None) -> str:
    return _NEVER if spread is None else _ms(spread.median)


def _ms(ns: int) -> str:
    value = ns / 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _host_text() -> str:
    """The day, the processor, how many of them, and what runs there."""
    try:
        qemu = f"QEMU {qemu_version().partition(' ')[0]}"  # without the distribution's own number
    except BootError:
        qemu = "no QEMU"
    linux = f"Linux {platform.release().partition('-')[0]}"
    return f"{time.strftime('%Y-%m-%d')}: {_processor()}, {os.cpu_count()} CPUs, {linux}, {qemu}"


def _processor() -> str:
    """As Linux calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
