"""Why a boot failed: it is made again under watch, and the rules look at what has been seen."""

from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span, low_rom_span, rom_span

from .board import Board
from .causes.scene import Cause, scene_of_outcome
from .causes.table import likely_causes
from .engines.base import Engine, Limits, Until
from .engines.names import QEMU, UNICORN
from .places import Places
from .reasons import HANDOFF, LIMIT
from .recent import History, Recent
from .session import Outcome

_INSTRUCTIONS: Final = 2_000_000  # of a run that is made again, at most
_INSTRUCTIONS_ASKED: Final = 300_000  # where registers are asked for at each
_SECONDS: Final = 4.0
_SECONDS_AFTER_LIMIT: Final = 0.75  # of one that took all the time it had: in that, a loop is found or never
_WITH_REGISTERS: Final = 512  # the last instructions, in front of which registers are recorded


class Diagnosis(NamedTuple):
    """What was seen when a boot that failed was made again, and the likely causes, the likeliest first."""

    history: History
    causes: tuple[Cause, ...]


def diagnose(
    outcome: Outcome, engine: Engine, until: Until, limits: Limits, board: Board | None, recording: Recording | None = None
) -> Diagnosis:
    """Of an outcome that is not ok; of one that is, nothing. The boot is made again on `board`, one like that of the first time
    (None: it is not). Engine, end and limits are those of that time; the files of the plan must still be open."""
    if outcome.ok:
        return Diagnosis(History(), ())
    history = History() if board is None else _watched_again(outcome, engine, until, limits, board)
    return Diagnosis(history, tuple(likely_causes(scene_of_outcome(outcome, history, recording))))


def watcher(plan: BootPlan, blob: Blob, instructions: int | None) -> Recent:
    """What has to be watched for the rules, in a run of so many instructions (None: unknown)."""
    asked_from = 0 if instructions is None else max(0, instructions - _WITH_REGISTERS)
    return Recent(Places(plan, blob), spans=_not_the_firmwares(plan), registers_from=asked_from)


def _watched_again(outcome: Outcome, engine: Engine, until: Until, limits: Limits, board: Board) -> History:
    """Nothing if it does not come to the same end, or takes too long."""
    if engine.name == QEMU:
        return History()
    stop = outcome.run.stop
    counted = outcome.run.counts.get("instructions")
    # Behind the handoff they are counted only if they are limited.
    is_all = outcome.handoff is None or until.kind == HANDOFF or limits.instructions is not None
    whole = min(counted, _INSTRUCTIONS) if is_all and counted is not None else None
    most = min(limits.instructions or _INSTRUCTIONS, _INSTRUCTIONS if whole is not None else _INSTRUCTIONS_ASKED)
    seconds = _SECONDS_AFTER_LIMIT if stop.detail == limits.seconds_over else _SECONDS
    again = Limits(most if engine.name == UNICORN else None, limits.exits, min(limits.seconds, seconds))
    recent = watcher(outcome.plan, outcome.blob, whole)
    try:
        run = engine.run(board, until, again, lambda _handoff: None, [recent])
    except BootError:
        return History()
    history = recent.history()
    if run.stop.reason == stop.reason and run.stop.rip == stop.rip:
        return history
    if run.stop.reason == LIMIT:
        # Cut short, here or both times: what there was before that holds of both, and if the one has ended in the loop of the
        # other, so do the last instructions.
        in_loop = any(one.address == stop.rip for one in history.executed)
        return history if in_loop else history._replace(executed=())
    return History()


def _not_the_firmwares(plan: BootPlan) -> list[Span]:
    """What no firmware may store to."""
    spans = [Span("kernel", segment.paddr, segment.end) for segment in plan.segments]
    if plan.spec.rom_writable and plan.memmap is not None:
        low = low_rom_span(plan.spec, len(plan.rom))
        spans += [rom_span(len(plan.rom)), *([low] if low else [])]
    return spans
