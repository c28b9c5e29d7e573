"""A boot for a notebook: how it went, and if it did not go well, why."""

from collections.abc import Iterator

from ..causes.scene import Cause
from ..kit.boot_view import BootView
from ..report.state import mode_text
from ..report.subject import subject_text
from .handoff import findings_parts, verdict
from .markup import Markup, code, element, folded, fragment
from .registers import registers_tables, segments_table
from .trace import trace_table

_LAST = 12  # instructions that are shown of a boot that did not come to the handoff


def boot_html(boot: BootView) -> str:
    """The verdict first, then likely causes, and of a boot without a handoff where it ended."""
    outcome = boot.outcome
    heading = f"{subject_text(boot.plan, outcome.blob)}, engine {outcome.engine}"
    parts = [verdict(boot.summary, good=boot.clean), *_causes(boot)]
    parts += _end(boot) if outcome.handoff is None else findings_parts(boot.findings)
    return fragment(heading, element("h3", heading), *parts)


def _causes(boot: BootView) -> Iterator[Markup]:
    if boot.causes:
        yield _cause(boot.causes[0])
    if others := boot.causes[1:]:
        yield element("p", "also: " + "; ".join(cause.title for cause in others))


def _cause(cause: Cause) -> Markup:
    seen = element("ul", *(element("li", code(line)) for line in cause.evidence)) if cause.evidence else ""
    return element(
        "div",
        element("p", element("strong", f"likely cause: {cause.title}")),
        element("p", cause.why),
        seen,
        element("p", element("strong", "what to do: "), cause.remedy),
        classes="cause",
    )


def _end(boot: BootView) -> Iterator[Markup]:
    run, place = boot.outcome.run, boot.outcome.stop_place
    if run.stop.rip is not None and run.registers and run.segments:
        where = f", {place}" if place else ""
        yield element("p", "it ended at ", code(f"{run.stop.rip:#x}"), f"{where}, in {mode_text(run.registers, run.segments)}")
    yield trace_table(boot.trace[-_LAST:])
    yield folded("the CPU then", *registers_tables(run.registers), segments_table(run.segments))
