"""What is told of a boot that is not ok beside its outcome: why, the state of the CPU, the last instructions."""

from collections.abc import Sequence
from typing import Final

from ..causes.scene import Cause
from ..diagnosis import Diagnosis
from ..session import Outcome
from .causes import cause_lines, executed_lines
from .state import state_text

_INSTRUCTIONS: Final = 8  # that are shown


def failure_lines(outcome: Outcome, diagnosis: Diagnosis | None) -> list[str]:
    """The likely cause first; without a diagnosis the state alone."""
    return [*(_cause_lines(diagnosis.causes) if diagnosis is not None else []), *_state_lines(outcome, diagnosis)]


def _cause_lines(causes: Sequence[Cause]) -> list[str]:
    """The likeliest, and what the others are called."""
    lines = ["", *cause_lines(causes[0])] if causes else []
    return lines + [f"also: {cause.title}" for cause in causes[1:]]


def _state_lines(outcome: Outcome, diagnosis: Diagnosis | None) -> list[str]:
    """Where a run stood that did not end as asked, and what it did last."""
    if outcome.ended_as_asked:
        return []
    run = outcome.run
    state = state_text(run.registers, run.segments, outcome.memory)
    lines = ["", "the CPU then:", *(f"  {line}" for line in state)] if state else []
    if diagnosis is not None and (executed := diagnosis.history.executed[-_INSTRUCTIONS:]):
        lines += ["", "the last instructions:", *(f"  {line}" for line in executed_lines(executed))]
    return lines
