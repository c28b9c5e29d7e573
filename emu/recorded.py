"""A boot that was recorded to be told: each instruction up to the handoff, the kernel's first ones, and what the check says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob

from .board import Board
from .engines.base import Engine, Limits, Stop, Until, Watcher
from .places import Places
from .reasons import EXIT, HANDOFF, LIMIT
from .session import Outcome, boot_board
from .source_lines import SourceLines
from .trace import End, Record, Tracer, Window

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

KERNEL_INSTRUCTIONS: Final = 16  # that are told of the kernel
INSTRUCTIONS: Final = 200_000  # of a boot, at most, unless more are asked for: all are kept, up to 3 KB for each


class Recorded(NamedTuple):
    """A boot and its trace. `outcome` is as if the run was to end at the handoff. `records` are all instructions of the
    firmware, and the kernel's first ones; `handoff` is the number of records in front of the kernel's first one (None: it was
    not reached). `sees_memory`: the engine has told loads and stores."""

    outcome: Outcome
    records: tuple[Record, ...]
    end: End
    handoff: int | None
    sees_memory: bool
    sources: SourceLines

    @property
    def firmware(self) -> tuple[Record, ...]:
        """The records of the firmware."""
        return self.records[: self.handoff]

    @property
    def kernel(self) -> tuple[Record, ...]:
        """The records of the kernel."""
        return () if self.handoff is None else self.records[self.handoff :]

    def states(self) -> Iterator[Mapping[str, int]]:
        """All registers (names of STATE_REGISTERS) in front of each record, and last those behind the last one. The mapping is
        one, and goes on with the iteration: copy what is to be kept."""
        if not self.records:
            return
        first = self.records[0].before
        assert first is not None
        state = dict(first)
        for record in self.records:
            yield state
            state.update(record.changes)
        yield state


def record_boot(
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    limits: Limits,
    *,
    recording: "Recording | None" = None,
    sources: Mapping[str, str] | None = None,
    kernel_instructions: int = KERNEL_INSTRUCTIONS,
    most: int | None = None,
    watchers: Sequence[Watcher] = (),
    on_record: Callable[[Record], None] = lambda _record: None,
    board: Board | None = None,
) -> Recorded:
    """Boots the plan, to the handoff and as many instructions behind it, under the eyes of a tracer. `sources` as SourceLines
    has them, at `most` so many records are made, the rest as `boot` has it; raises as that does. `on_record` is told each
    record when its instruction is over and the next one has not begun. `board` is one that somebody else has made for the plan.
    The kernel's file must be open."""
    items: list[Record | End] = []

    def keep(item: Record | End) -> None:
        items.append(item)
        if isinstance(item, Record):
            on_record(item)

    window = Window(end=frozenset((plan.entry,)), limit=most, beyond=kernel_instructions)
    tracer = Tracer(Places(plan, blob), keep, window)
    # To the handoff alone the engine would stop in front of the kernel's first instruction.
    until = Until(EXIT if kernel_instructions else HANDOFF)
    board = Board(plan, recording=recording) if board is None else board
    outcome = boot_board(board, blob, engine, until, limits, [tracer, *watchers])
    records = tuple(item for item in items if isinstance(item, Record))
    reached = outcome.handoff is not None
    cut = outcome.run.stop.reason == LIMIT and not tracer.closed
    outcome = outcome._replace(until=Until(HANDOFF), ended_as_asked=reached and not cut)
    if (handoff := outcome.handoff) is not None and not cut:
        run = outcome.run._replace(stop=Stop(HANDOFF, "", plan.entry), registers=handoff.registers, counts=handoff.counts)
        outcome = outcome._replace(run=run._replace(segments=handoff.segments))
    at = next((number for number, record in enumerate(records) if record.address == plan.entry), len(records))
    return Recorded(outcome, records, tracer.end, at if reached else None, tracer.sees_memory, SourceLines(blob, sources))
