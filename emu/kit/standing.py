"""Where a machine stands, and how it came there: enough to bring another one to the same place."""

from typing import NamedTuple

from pvhboot.shim.abi.x86 import Segment

from ..board import Board
from ..bus import Access
from ..engines.base import Cpu, Stop
from .values import Registers
from .view import HandoffView


class Point(NamedTuple):
    """A moment of a run: the linear address of the next instruction, and how many accesses to devices there were before it. Of
    `instructions` None, not all were counted."""

    ip: int
    accesses: int
    instructions: int | None


class Change(NamedTuple):
    """What a test did to a machine: to memory (address and bytes) or to a register."""

    point: Point
    what: int | str
    value: bytes | int

    def make(self, cpu: Cpu, board: Board) -> None:
        """Does it, to a machine that stands where that one stood."""
        if isinstance(self.what, str):
            assert isinstance(self.value, int)
            cpu.set_register(self.what, self.value)
        else:
            assert isinstance(self.value, bytes)
            with board.memory.writing(self.what, len(self.value)) as view:
                view[:] = self.value


class Standing(NamedTuple):
    """Where a machine stands (None: unknown), and how it came there: what ended it, and what the test did on the way."""

    stop: Stop | None
    point: Point | None
    registers: Registers
    segments: dict[str, Segment]
    changes: tuple[Change, ...]
    handoff: HandoffView | None
    accesses: tuple[Access, ...]
    console: str
    debug_console: str
    post_codes: tuple[int, ...]
    counts: dict[str, int]
