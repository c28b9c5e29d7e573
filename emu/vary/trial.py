"""One boot with one change, next to the same boot without."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError

from ..board import Board
from ..engines.base import Cpu, Limits, Until, Watch, Watcher, describe_stop
from ..engines.names import UNICORN
from ..reasons import HANDOFF
from ..session import Outcome, boot_board, get_engine
from .differences import differences, memory_difference
from .faults import DROPPED, NEVER, RAM, READ, REGISTER, Fault
from .injection import FaultyBoard, Flips, HostBoard, honest_items
from .judging import Verdict, judge
from .mutants import Mutation
from .setup import Setup
from .survey import NotedItems, Survey

Change = Fault | Mutation

# What may be executed: so many times as many instructions as by the unchanged firmware, and so many more. A host that does not
# answer is asked again: by pvhboot's firmwares 65536 times, in eight instructions each. One without DMA is read byte by byte.
_TIMES: Final = 4
_MORE: Final = 20_000
_MORE_TO_WAIT: Final = 1_000_000
_SECONDS: Final = 60.0


class Trial(NamedTuple):
    """A run and what it left: `memory` still holds it, `pages` are the numbers of those that were written."""

    outcome: Outcome
    memory: GuestMemory
    pages: frozenset[int]


class Reference(NamedTuple):
    """The boot without a change. `items` are those of its fw_cfg, None without one."""

    setup: Setup
    plan: BootPlan
    recording: Recording | None
    trial: Trial
    watched: Survey
    items: NotedItems | None

    def try_change(self, change: Change) -> Verdict:
        """The same boot with the change, and what it led to."""
        limits = Limits(instructions=self._patience(change), seconds=_SECONDS)
        if isinstance(change, Mutation):
            plan = self.plan._replace(rom=change.apply(self.plan.rom))
            trial = run(Board(plan, self.setup.place(plan), recording=self.recording), limits)
        else:
            board = FaultyBoard(self.plan, self.setup.place(self.plan), self.recording, change)
            flips = [Flips(change)] if change.family in (RAM, REGISTER) else []
            trial = run(board, limits, flips)
        return judge(self.trial.outcome, trial.outcome, tuple(self._effects(trial)))

    def _patience(self, change: Change) -> int:
        """How many instructions a change gets."""
        usual = _TIMES * self.trial.outcome.run.counts["instructions"] + _MORE
        if isinstance(change, Fault):
            if change.how in (NEVER, DROPPED):
                return usual + _MORE_TO_WAIT
            if change.family == READ and self.items is not None:
                return usual + sum(self.items[key].size for key in self.items.asked)
        return usual

    def _effects(self, trial: Trial) -> Iterator[str]:
        """What differs from the unchanged boot, both at the handoff."""
        if trial.outcome.handoff is None:
            return
        yield from differences(self.trial.outcome, trial.outcome)
        loaded = [("kernel", segment.paddr, segment.end) for segment in self.plan.segments]
        loaded += [("module", module.span.start, module.span.end) for module in self.plan.modules]
        for start, end in _ranges(self.trial.pages | trial.pages):
            for what, first, last in loaded:
                inside = max(start, first), min(end, last)
                if inside[0] < inside[1]:
                    at = memory_difference(self.trial.memory, trial.memory, *inside)
                    if at is not None:
                        yield f"{what} at {at:#x}"


class _Pages:
    """A Watcher: the pages that are written, by the CPU or a device."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()

    def start(self, _cpu: Cpu, _board: Board) -> Watch:
        """See Watcher."""
        numbers = self.numbers
        return Watch(store=lambda paddr, _size, _value: numbers.add(paddr // PAGE_SIZE), device_store=self._add)

    def _add(self, paddr: int, size: int) -> None:
        self.numbers.update(range(paddr // PAGE_SIZE, (paddr + size - 1) // PAGE_SIZE + 1))


def run(board: Board, limits: Limits, watchers: Sequence[Watcher] = ()) -> Trial:
    """Boots the board's plan, to the handoff."""
    pages = _Pages()
    engine, blob = get_engine(UNICORN), Blob(board.plan.rom, {}, (), {})
    outcome = boot_board(board, blob, engine, Until(HANDOFF), limits, [pages, *watchers])
    return Trial(outcome, board.memory, frozenset(pages.numbers))


def survey(setup: Setup, plan: BootPlan) -> Reference:
    """The unchanged boot, run and surveyed. `plan` is the setup's, its files open as long as the reference is used.

    Raises BootError if the firmware does not get to the kernel."""
    recording = setup.read_recording()
    honest = honest_items(plan, recording)
    items = None if honest is None else NotedItems(honest)
    watcher = Survey()
    trial = run(HostBoard(plan, setup.place(plan), recording, items), Limits(seconds=_SECONDS), [watcher])
    if trial.outcome.handoff is None:
        raise BootError(
            "the unchanged firmware does not get to the kernel, so there is nothing to change: "
            f"{describe_stop(trial.outcome.run.stop)}; see pvhboot boot"
        )
    return Reference(setup, plan, recording, trial, watcher, items)


@contextmanager
def reference(setup: Setup) -> Iterator[Reference]:
    """As `survey`, with a plan of its own: its files are open as long as the context lasts. Raises BootError as that, and for
    what cannot be planned."""
    with setup.plan() as plan:
        yield survey(setup, plan)


def _ranges(pages: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The pages of these numbers as ranges of addresses."""
    start = end = None
    for page in sorted(pages):
        if end != page:
            if start is not None and end is not None:
                yield start * PAGE_SIZE, end * PAGE_SIZE
            start = page
        end = page + 1
    if start is not None and end is not None:
        yield start * PAGE_SIZE, end * PAGE_SIZE
