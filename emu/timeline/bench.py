"""Boots the rows of a bench in turn, again and again, and makes one line of each."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pvhboot.shim.errors import BootError

from ..reasons import INTERRUPTED
from .marks import FIRST_INSTRUCTION, HANDOFF, Mark, Timeline
from .rows import Row


class Spread(NamedTuple):
    """Nanoseconds, of so many runs."""

    median: int
    least: int
    most: int
    runs: int


class Result(NamedTuple):
    """What came of a row: a timeline for each run; `reason` says why there are none, or no more."""

    label: str
    timelines: tuple[Timeline, ...]
    counts: Mapping[str, int]
    reason: str

    def spread(self, name: str) -> Spread | None:
        """When a mark was reached; None if it never was."""
        return _spread([ns for timeline in self.timelines if (ns := timeline.ns(name)) is not None])

    @property
    def firmware(self) -> Spread | None:
        """From the first instruction to the handoff; None if that never came."""
        ends = [(timeline.ns(FIRST_INSTRUCTION), timeline.ns(HANDOFF)) for timeline in self.timelines]
        return _spread([end - start for start, end in ends if start is not None and end is not None])

    @property
    def median(self) -> Timeline:
        """A boot that there never was: each mark at its median."""
        names = dict.fromkeys(mark.name for timeline in self.timelines for mark in timeline.marks)
        marks = [Mark(name, spread.median) for name in names if (spread := self.spread(name))]
        engine = self.timelines[0].engine if self.timelines else ""
        return Timeline(self.label, engine, tuple(sorted(marks, key=lambda mark: mark.ns)), self.counts, self.reason)


def measure(rows: Sequence[Row], goal: str, runs: int, on_boot: Callable[[], None]) -> list[Result]:
    """Boots each row once, then all of them again, `runs` times in all, so that what else the host does meets all of them; in
    an order of chance, so that none always follows the same one, which is the same in each bench.

    One that has not come to the goal is not booted again: it would take as long as it may. `on_boot` is called after each
    boot that could have been.
    """
    timelines: list[list[Timeline]] = [[] for _ in rows]
    reasons = [row.reason for row in rows]
    for run in range(runs):
        for number in random.Random(run).sample(range(len(rows)), len(rows)):
            row = rows[number]
            if row.take is not None and not reasons[number]:
                try:
                    timeline = row.take()
                except BootError as error:
                    reasons[number] = str(error)
                else:
                    if timeline.end == INTERRUPTED:
                        raise KeyboardInterrupt
                    timelines[number].append(timeline)
                    if timeline.ns(goal) is None:
                        reasons[number] = f"did not come to {goal} in run {run + 1}: {timeline.end}"
            on_boot()
    return [
        Result(row.label, tuple(taken), row.counts, reason) for row, taken, reason in zip(rows, timelines, reasons, strict=True)
    ]


def _spread(values: Sequence[int]) -> Spread | None:
    if not values:
        return None
    return Spread(round(statistics.median(values)), min(values), max(values), len(values))
