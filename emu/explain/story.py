"""The story of a boot: which chapters it has, and all that is told in each."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pvhboot.shim.errors import BootError

from ..bus import KINDS
from ..engines.base import Stop, describe_stop
from ..recorded import Recorded
from ..report.subject import subject_text
from . import division as names
from . import exhibits_cpu, exhibits_end, exhibits_host
from .changes import memory_written, registers_changed
from .division import Part
from .facts_cpu import CPU_FACTS
from .facts_end import end_facts
from .facts_host import HOST_FACTS
from .outline import Outline, filled, paragraphs
from .prose_cpu import CPU_CHAPTERS
from .prose_end import FOREIGN_CHAPTERS, LAST_CHAPTERS
from .prose_host import HOST_CHAPTERS
from .telling import Telling
from .told import Chapter, Exhibit, Story

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

    from ..diagnosis import Diagnosis

OUTLINES: Final[Mapping[str, Outline]] = {
    outline.name: outline for outline in (*CPU_CHAPTERS, *HOST_CHAPTERS, *FOREIGN_CHAPTERS, *LAST_CHAPTERS)
}
EXHIBITS: Final[Mapping[str, Callable[[Telling], list[Exhibit]]]] = {
    "reset state": exhibits_cpu.reset_state,
    "layout": exhibits_cpu.layout,
    "gdt": exhibits_cpu.gdt,
    "tss": exhibits_cpu.tss,
    "mtrr": exhibits_cpu.mtrr,
    "handoff": exhibits_cpu.handoff,
    "params": exhibits_host.params_block,
    "memmap": exhibits_host.memmap,
    "kernel": exhibits_host.kernel,
    "acpi": exhibits_host.acpi_tables,
    "start_info": exhibits_host.start_info,
    "entry": exhibits_end.entry,
    "check": exhibits_end.check,
    "causes": exhibits_end.causes,
    "end state": exhibits_end.end_state,
}


def tell(recorded: Recorded, recording: "Recording | None" = None, diagnosis: "Diagnosis | None" = None) -> Story:
    """The story of a boot that was recorded, on the machine of `recording` (None: the default one); `diagnosis` is what is said
    of it if it failed. The kernel's file must be open. BootError if not one instruction was executed."""
    if not recorded.firmware:
        end = recorded.end
        raise BootError(f"nothing to tell of: no instruction was executed; {describe_stop(Stop(*end[:3]))}")
    telling = Telling(recorded, recording, diagnosis)
    facts: dict[str, Any] = {}
    for of in (*CPU_FACTS, *HOST_FACTS, end_facts):
        facts |= of(telling)
    chapters = tuple(_chapter(number, OUTLINES[name], telling, facts) for number, name in enumerate(_chapter_names(telling), 1))
    counts = recorded.outcome.handoff.counts if recorded.outcome.handoff is not None else recorded.outcome.run.counts
    return Story(
        subject_text(recorded.outcome.plan, recorded.outcome.blob),
        len(recorded.firmware),
        sum(counts.get(kind, 0) for kind in KINDS),
        recorded.sees_memory,
        recorded.outcome.clean,
        chapters,
    )


def _chapter_names(telling: Telling) -> Sequence[str]:
    """In the order of the boot: those that instructions belong to, and those on what has none."""
    found = {*telling.parts, names.A20}
    if telling.outcome.handoff is None:
        found.add(names.END)
    else:
        found |= {names.START_INFO, names.ENTRY, names.CHECK}
    return [name for name in names.ORDER if name in found]


def _chapter(number: int, outline: Outline, telling: Telling, facts: Mapping[str, Any]) -> Chapter:
    part = telling.parts.get(outline.name, Part(outline.name, (), {}, {}))
    meant = outline.registers if telling.own else {}
    registers, scratch = registers_changed(part.before, part.after, meant) if part.records else ([], [])
    exhibits = [exhibit for name in outline.exhibits for exhibit in EXHIBITS[name](telling)]
    return Chapter(
        number,
        outline.name,
        filled(outline.title, facts),
        paragraphs(outline, facts),
        part.records[0].number if part.records else None,
        part.records[-1].number if part.records else None,
        len(part.records),
        tuple(telling.sources.ran(part.records, outline.routines)),
        tuple(telling.sources.called(part.records)),
        tuple(registers),
        tuple(scratch),
        tuple(memory_written(part.records, telling.spans, telling.plan.spec.low.stack)),
        tuple(telling.traffic.of(part.records)),
        tuple(exhibits),
        tuple(outline.see),
    )
