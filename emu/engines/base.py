"""What all engines share: when a run ends, why it ended, and what it counted."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.x86 import EFLAGS_IF
from pvhboot.shim.machines import MachineSpec

from ..board import Board
from ..handoff import Handoff


class Until(NamedTuple):
    """Where a run is meant to end: `kind` is handoff, console (when COM1 has printed `text`) or exit (by the guest)."""

    kind: str
    text: str = ""


class Limits(NamedTuple):
    """What a run may use at most: guest instructions (Unicorn only), accesses to devices, seconds of wall time."""

    instructions: int | None = None
    exits: int | None = None
    seconds: float = 60.0

    @property
    def instructions_over(self) -> str:
        """What a Stop says when the instructions are used up."""
        return f"{self.instructions} instructions have been executed"

    @property
    def exits_over(self) -> str:
        """What a Stop says when the accesses are used up."""
        return f"{self.exits} accesses to devices have been made"

    @property
    def seconds_over(self) -> str:
        """What a Stop says when the time is used up."""
        return f"{self.seconds:g} seconds of wall time are over"


class Stop(NamedTuple):
    """How a run ended: a word of `reasons`, the words for a person, the linear address of the next (or the faulting)
    instruction (None: unknown), and the value that the guest left with (EXIT)."""

    reason: str
    detail: str
    rip: int | None
    value: int | None = None


class Run(NamedTuple):
    """The end of a run: why, the CPU's registers then (empty: unknown), and counts (instructions only to the handoff; each
    only where the engine can count it)."""

    stop: Stop
    registers: Mapping[str, int]
    counts: Mapping[str, int]


class Engine(Protocol):
    """Executes a Board from the reset vector. `on_handoff` is called once, with the guest stopped at the kernel's entry."""

    name: str

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:
        """What the host adds to the memory map that fw_cfg tells, with `memory` bytes of RAM: a plan for this engine has it."""

    def run(self, board: Board, until: Until, limits: Limits, on_handoff: Callable[[Handoff], None]) -> Run:
        """Raises UnavailableError for what the host lacks, BootError for what it refuses; all that the guest does ends in a
        Run."""


def halt_detail(eflags: int) -> str:
    """What a Stop says of a hlt: no engine's board has an interrupt that would end it."""
    return f"hlt with interrupts {'on, but nothing here raises one' if eflags & EFLAGS_IF else 'off'}"


def describe_stop(stop: Stop) -> str:
    """The stop as a phrase."""
    return f"{stop.reason}: {stop.detail}" if stop.detail else stop.reason
