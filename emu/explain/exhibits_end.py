"""What there is to look at in the end: the kernel's first instructions, the check's findings, or what went wrong."""

from typing import Final

from ..check import OK
from ..report.causes import executed_lines
from ..report.state import state_text
from .telling import Telling
from .told import Exhibit, Row

_LAST: Final = 8  # instructions that are shown of a run that failed


def entry(telling: Telling) -> list[Exhibit]:
    """The kernel's first instructions, with its symbols if it has any."""
    rows = []
    for record in telling.recorded.kernel:
        place = "" if record.place is None else f" ({record.place})"
        text = f"{record.address:#x}{place}: {record.text}"
        rows.append(Row(text, {"address": record.address, "place": str(record.place or ""), "instruction": record.text}))
    return [Exhibit("What the kernel did first", tuple(rows))] if rows else []


def check(telling: Telling) -> list[Exhibit]:
    """The clauses, those that are met by their names alone."""
    findings = telling.outcome.findings
    met: dict[str, list[str]] = {}
    for finding in findings:
        if finding.status == OK:
            met.setdefault(finding.clause.partition(".")[0], []).append(finding.clause)
    rows = [
        Row(
            f"{finding.status}, {finding.clause}: {finding.detail}",
            {"clause": finding.clause, "status": finding.status, "detail": finding.detail},
        )
        for finding in findings
        if finding.status != OK
    ]
    rows += [Row(f"met: {', '.join(clauses)}", {"clauses": clauses, "status": OK}) for clauses in met.values()]
    return [Exhibit("The clauses", tuple(rows))]


def causes(telling: Telling) -> list[Exhibit]:
    """What the diagnosis says."""
    if telling.diagnosis is None:
        return []
    shown = []
    for number, cause in enumerate(telling.diagnosis.causes):
        data = {"title": cause.title, "why": cause.why, "evidence": list(cause.evidence), "remedy": cause.remedy}
        rows = [
            Row(cause.why, data),
            *(Row(f"seen: {line}", {}) for line in cause.evidence),
            Row(f"what to do: {cause.remedy}", {}),
        ]
        shown.append(Exhibit(f"{'Also' if number else 'The likely cause'}: {cause.title}", tuple(rows)))
    return shown


def end_state(telling: Telling) -> list[Exhibit]:
    """The processor where it stopped, and what it did last."""
    run = telling.outcome.run
    rows = [Row(line, {}) for line in state_text(run.registers, run.segments, telling.outcome.memory)]
    shown = [Exhibit("The processor then", tuple(rows))] if rows else []
    if telling.diagnosis is not None and (executed := telling.diagnosis.history.executed[-_LAST:]):
        shown.append(Exhibit("The last instructions", tuple(Row(line, {}) for line in executed_lines(executed))))
    return shown
