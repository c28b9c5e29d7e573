"""pvhboot's own loader: what examination.examine proved, as a verdict beside the others."""

from dataclasses import dataclass
from typing import Final

from ..facts import Facts
from .base import ACCEPTS, PVH, Model, Rule, Ruling, Verdict, refuses


@dataclass(frozen=True)
class _Case:
    """What was proven of the kernel, None if nothing could be; `reason` says why."""

    facts: Facts | None
    reason: str


def _decide(case: _Case) -> Ruling:
    if case.facts is None:
        return refuses(case.reason)
    return Ruling(ACCEPTS, case.reason, PVH, case.facts.entry)


OWN: Final = Model(
    "pvhboot",
    "pvhboot",
    (
        Rule(
            "all is checked before anything is loaded; PHYS32_ENTRY named Xen, in any PT_NOTE or else a section, packed to 4",
            "pvhboot loader/examination.py: examine",
            _decide,
        ),
    ),
)


def judge_own(facts: Facts | None, reason: str) -> Verdict:
    """pvhboot's verdict; `reason` says why, either way."""
    return OWN.judge(_Case(facts, reason))
