"""All rules, and which of what they say is the likeliest."""

from collections.abc import Callable, Sequence
from typing import Final

from . import execution, guest, handed, host, memmap, segments, state
from .scene import Cause, Scene

Rule = Callable[[Scene], Cause | None]

# Where the CPU has gone astray goes before what it left undone; a rule that knows more before one that knows less.
RULES: Final[Sequence[Rule]] = (
    *guest.RULES,
    *execution.FIRST,
    *segments.RULES,
    *host.RULES,
    *execution.RULES,
    *handed.RULES[:1],
    *memmap.RULES,
    *handed.RULES[1:],
    *state.RULES,
)
LAST: Final[Sequence[Rule]] = (*host.LAST, *execution.LAST)


def likely_causes(scene: Scene) -> list[Cause]:
    """The likeliest first. What a rule of LAST says is told only if no other says anything, and of each violated clause one
    cause is told; of those that no rule explains, that they are violated."""
    causes: list[Cause] = []
    unexplained = set(scene.violated)
    for rule in RULES:
        cause = rule(scene)
        if cause is not None and (not cause.clauses or unexplained.intersection(cause.clauses)):
            causes.append(cause)
            unexplained -= set(cause.clauses)
    causes += [_of_clause(clause, detail) for clause, detail in scene.violated.items() if clause in unexplained]
    for rule in LAST if not causes else ():
        if (cause := rule(scene)) is not None:
            return [cause]
    return causes


def _of_clause(clause: str, detail: str) -> Cause:
    return Cause(
        f"the clause {clause} of the ABI is violated",
        f"{detail[:1].upper()}{detail[1:]}.",
        (),
        "docs/check.md says what the clause asks for",
        (clause,),
    )
