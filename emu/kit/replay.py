"""A machine again, as far as it had come: the same instructions, and what devices and the test did in between."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from ..board import Board
from ..bus import LOADS, Access
from ..engines.base import Cpu, Watcher
from ..engines.names import KVM, UNICORN
from .setup import Setup, device_name
from .standing import Point, Standing

WATCHED: Final = {UNICORN: 100_000, KVM: 50_000}  # instructions: about a second, with a trace
EXECUTED: Final = 3_000_000  # instructions, watched or not: a few seconds


class _Answers:
    """In place of a test's own device: what it answered."""

    def __init__(self, values: deque[int]) -> None:
        self._values = values

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The next answer."""
        return self._values.popleft() if self._values else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing: what it answers then is known."""


@contextmanager
def replayed(setup: Setup, standing: Standing, watchers: Sequence[Watcher]) -> Iterator[tuple[Cpu, Board]]:
    """A new machine on the same engine that stands where the other one stood, with `watchers` for the last WATCHED
    instructions, or that has not come there within EXECUTED of them. Where the other one's were not counted, it is watched from
    its reset vector on, for WATCHED, and stands where it came to the same instruction after as many accesses, or where it has
    ended by itself. Who looks compares."""
    assert standing.point is not None
    watched = WATCHED[setup.engine.name]
    counted = standing.point.instructions
    most = watched if counted is None else min(counted, EXECUTED)
    watched_from = most - watched
    board = setup.board(_answering(setup, standing.accesses))
    with ExitStack() as opened:
        cpu = opened.enter_context(setup.engine.cpu(board, setup.limits))
        waiting = deque(watchers)

        def execute(point: Point, *, to_the_end: bool = False) -> None:
            if point.instructions is None or point.instructions >= watched_from:
                _count(cpu, watched_from)
                while waiting:
                    opened.enter_context(cpu.watch(waiting.popleft().start(cpu, board)))
            if point.instructions is not None:
                _count(cpu, min(point.instructions, most))
            else:
                _find(cpu, board, point, most, to_the_end=to_the_end)

        for change in standing.changes:
            execute(change.point)
            change.make(cpu, board)
        execute(standing.point, to_the_end=standing.stop is not None)
        yield cpu, board


def _count(cpu: Cpu, instructions: int) -> None:
    """Until so many have been executed since the reset."""
    if cpu.instructions < instructions:
        cpu.run_to(lambda _address: cpu.instructions >= instructions)


def _find(cpu: Cpu, board: Board, point: Point, most: int, *, to_the_end: bool) -> None:
    """To the point, if that has not been reached, or until `most` instructions have been executed. `to_the_end`: the run is
    over there by itself."""
    bus = board.bus

    def is_there(address: int) -> bool:
        return address == point.ip and bus.accesses == point.accesses and not to_the_end

    if not is_there(cpu.linear_ip()):
        cpu.run_to(lambda address: cpu.instructions >= most or is_there(address))


def _answering(setup: Setup, accesses: Sequence[Access]) -> dict[int | range, _Answers]:
    values: dict[str, deque[int]] = defaultdict(deque)
    for access in accesses:
        if access.kind in LOADS:
            values[access.device].append(access.value)
    return {where: _Answers(values[device_name(device)]) for where, device in setup.devices.items()}
