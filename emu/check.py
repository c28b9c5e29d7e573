"""The check of a handoff against the PVH ABI and the plan, clause by clause. Every clause gives one Finding.

Sources: Xen docs/misc/pvh.pandoc and start_info.h; what Linux and FreeBSD need beyond them is said in the clause.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan

from .handoff import UNOBSERVABLE_CLAUSES, Handoff
from .tables import read_tables

OK: Final = "ok"
VIOLATED: Final = "violated"
UNOBSERVABLE: Final = "unobservable"


class Finding(NamedTuple):
    """What the check says of one clause: `status` is ok, violated or unobservable, `detail` what was seen."""

    clause: str
    status: str
    detail: str


def check(handoff: Handoff, plan: BootPlan) -> list[Finding]:
    """Every clause in a fixed order, whatever the others said."""
    from .clauses import CLAUSES  # only now: a kernel is entered, or is not, without them
    from .subject import Subject

    subject = Subject(handoff, plan, read_tables(handoff))
    findings: list[Finding] = []
    for clause, function in CLAUSES.items():
        problems = function(subject)
        if problems is None:
            findings.append(Finding(clause, UNOBSERVABLE, f"the engine {handoff.engine} cannot see it"))
        else:
            said = list(problems)
            findings.append(Finding(clause, VIOLATED if said else OK, "; ".join(said)))
    return findings


def is_clean(engine: str, findings: Sequence[Finding]) -> bool:
    """Nothing violated, and nothing unobserved but what the engine is known not to observe."""
    unseen = {finding.clause for finding in findings if finding.status == UNOBSERVABLE}
    return not any(finding.status == VIOLATED for finding in findings) and unseen <= UNOBSERVABLE_CLAUSES.get(
        engine, frozenset()
    )
