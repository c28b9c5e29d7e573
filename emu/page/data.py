"""The data of a page: a boot that was recorded step by step, and the same boot once more, to where it was to end."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.printable import one_line
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.blob import Blob

from ..board import Board
from ..bus import KINDS
from ..engines.base import STATE_SEGMENTS, Engine, Limits, Until, describe_stop
from ..engines.names import UNICORN
from ..reasons import HANDOFF, LIMIT
from ..recorded import Recorded, record_boot
from ..session import Outcome, boot_board
from ..timeline.marks import FIRST_INSTRUCTION, PROTECTED_MODE
from ..timeline.marks import HANDOFF as HANDOFF_MARK
from ..trace import Record
from .accesses import POST_CODES, AccessWords
from .beside import Beside
from .beyond import Beyond
from .columns import Json, plain
from .facts import facts_json, title, verdict
from .findings import findings_json
from .meanings import meanings_json
from .memory import regions, regions_json
from .phases import modes_json, phases_json
from .sources import SourceFiles
from .steps import steps_json
from .stored import Stored
from .structures import memmap_json, structures

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

    from ..diagnosis import Diagnosis

VERSION: Final = 1  # of the data
STEPS_MAX: Final = 250_000  # that are told one by one
_LOOPED: Final = 1000  # of those in which nothing is executed that was not before, of a firmware that goes on so
_EVERY: Final = 1000  # steps between two words on how far it is


class Told(NamedTuple):
    """A boot to be told: recorded (to the handoff, or as far as it is worth it), and as `pvhboot boot` makes it. `beyond` has
    listened to the latter behind the last step, if there is more."""

    recorded: Recorded
    beside: Beside
    outcome: Outcome
    beyond: Beyond | None
    diagnosis: "Diagnosis | None"

    @property
    def is_cut(self) -> bool:
        """The run went on behind the last step, and that was not yet in the kernel."""
        return _is_cut(self.recorded)


def tell(
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    until: Until,
    limits: Limits,
    *,
    recording: "Recording | None" = None,
    sources: Mapping[str, str] | None = None,
    interrupts: bool = False,
    steps: int = STEPS_MAX,
    progress: Callable[[str], None] | None = None,
) -> Told:
    """Boots the plan twice: step by step, of which so many at most are kept, and as a whole. `sources` as of
    SourceLines, `interrupts` as of Board; `progress` is told how far it is. Raises as `boot` does. The kernel's file must be
    open."""
    show = progress or (lambda _words: None)
    beside = Beside()

    def on_record(record: Record) -> None:
        beside.on_record(record)
        if not record.number % _EVERY:
            show(f"{record.number} instructions")

    def board(on_console: Callable[[bytes], None] | None = None) -> Board:
        return Board(plan, recording=recording, interrupts=interrupts, on_console=on_console)

    recorded = record_boot(
        plan,
        blob,
        engine,
        limits,
        sources=sources,
        most=steps,
        watchers=[beside],
        on_record=on_record,
        board=board(),
    )
    is_cut = _is_cut(recorded)
    if is_cut:
        recorded = recorded._replace(records=recorded.records[: _last_new(recorded) + _LOOPED])
    beyond, watchers = None, []
    if is_cut or (recorded.handoff is not None and until.kind != HANDOFF):
        watches = engine.name == UNICORN  # KVM would make a step of each instruction for it
        words = access_words(plan, blob, recording)
        entered = recorded.handoff is not None and not watches
        beyond = Beyond(_accesses(recorded), _marks(plan, until), words, show, entered=entered)
        watchers = [beyond] if watches else []
    whole = board(None if beyond is None else beyond.on_console)
    if beyond is not None:
        beyond.attach(whole, timed=engine.name == UNICORN)
    outcome = boot_board(whole, blob, engine, until, limits, watchers)
    if beyond is not None:
        beyond.end(outcome)
    diagnosis = None
    if not outcome.ok:
        from ..diagnosis import diagnose

        diagnosis = diagnose(outcome, engine, until, limits, board(), recording)
    return Told(recorded, beside, outcome, beyond, diagnosis)


def page_data(told: Told, recording: "Recording | None" = None) -> Json:
    """The data, as docs/report.md has them. The kernel's file must be open."""
    recorded, outcome, beside = told.recorded, told.outcome, told.beside
    plan, blob = outcome.plan, outcome.blob
    sources = SourceFiles(blob, recorded.sources)
    found = structures(outcome, beside.gdt(recorded.handoff))
    stored = [Stored(structure, recorded.records) for structure in found]
    areas = regions(plan, blob)
    place = outcome.stop_place
    stop = outcome.run.stop
    return {
        "version": VERSION,
        "title": title(plan, blob),
        "ok": outcome.ok,
        "verdict": verdict(outcome),
        "facts": facts_json(outcome, recorded, is_cut=told.is_cut),
        "findings": findings_json(outcome, recorded, stored),
        "causes": [_cause(cause._asdict()) for cause in told.diagnosis.causes] if told.diagnosis else [],
        "end": {
            "words": one_line(describe_stop(stop)),
            "place": "" if place is None else str(place),
            "asked": outcome.ended_as_asked,
            "reason": stop.reason,
        },
        "sees_memory": recorded.sees_memory,
        "cut": told.is_cut,
        "handoff": recorded.handoff,
        **steps_json(recorded, beside, sources, access_words(plan, blob, recording)),
        "phases": phases_json(recorded, sources),
        "modes": modes_json(recorded),
        "files": sources.to_json(),
        **meanings_json(beside),
        "segment_registers": [[name, name, f"{name}_base", f"{name}_limit"] for name in STATE_SEGMENTS],
        "memory": {
            "end": plain(max(region.end for region in areas)),
            "regions": regions_json(areas),
            "structures": [structure.to_json() for structure in found],
            "written": [one.to_json() for one in stored],
            "memmap": memmap_json(outcome),
        },
        "beyond": None if told.beyond is None else told.beyond.to_json(),
        "marks": _marks_json(told),
    }


def access_words(plan: BootPlan, blob: Blob, recording: "Recording | None") -> AccessWords:
    """What says what accesses mean in a boot of the plan."""
    files: dict[int, str] = {}
    if plan.source == FW_CFG:
        from pvhboot.loader.fw_cfg import directory, fw_cfg_items

        listed = directory(fw_cfg_items(plan, recording))
        files = {key: file.name.rstrip(b"\0").decode("ascii", "replace") for key, file in listed.items()}
    return AccessWords(files, POST_CODES if "machine" in blob.manifest else {}, plan.spec.chipset)


def _is_cut(recorded: Recorded) -> bool:
    return recorded.handoff is None and recorded.end.reason == LIMIT


def _last_new(recorded: Recorded) -> int:
    """How many records there are up to the last one of an instruction that was not executed before, there or elsewhere: a loop
    has none, nor has what runs through zeros."""
    seen: set[bytes] = set()
    last = 0
    for number, record in enumerate(recorded.records, 1):
        if record.code not in seen:
            seen.add(record.code)
            last = number
    return last


def _cause(cause: dict[str, object]) -> Json:
    return {name: cause[name] for name in ("title", "why", "evidence", "remedy")}


def _accesses(recorded: Recorded) -> int:
    """How many to devices there are in the records."""
    return sum(effect.times for record in recorded.records for effect in record.effects if effect.kind in KINDS)


def _marks(plan: BootPlan, until: Until) -> dict[str, int]:
    """Those of the plan's kernel, if the run is to go on there."""
    if until.kind == HANDOFF:
        return {HANDOFF_MARK: plan.entry}
    from ..timeline.goal import kernel_places

    return {HANDOFF_MARK: plan.entry, **kernel_places(plan).addresses}


def _marks_json(told: Told) -> list[list[object]]:
    """Name, step, ns and words of each mark: those of the firmware have a step, those behind the handoff a time, if the engine
    has one."""
    recorded, timed = told.recorded, {} if told.beyond is None else {mark.name: mark for mark in told.beyond.marks()}
    found: list[list[object]] = [[FIRST_INSTRUCTION, 0, None, ""]]
    first = next((step for step, record in enumerate(recorded.firmware, 1) if record.changes.get("cr0", 0) & x86.CR0_PE), None)
    if first is not None:
        found.append([PROTECTED_MODE, first, None, ""])
    if recorded.handoff is not None:
        mark = timed.pop(HANDOFF_MARK, None)
        found.append([HANDOFF_MARK, recorded.handoff, None if mark is None else mark.ns, ""])
    return found + [[mark.name, None, mark.ns, mark.place] for mark in timed.values()]
