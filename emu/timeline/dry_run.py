"""A firmware's own part of a boot, made once before it is timed: what Unicorn sees of it at leisure, and no clock could."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi.x86 import CR0_PE

from ..board import Board
from ..engines.base import STATE_REGISTERS, Limits
from ..engines.names import UNICORN
from ..session import get_engine

LIMITS: Final = Limits(instructions=1_000_000, seconds=5.0)  # a firmware is over long before that, or never
_CR0: Final = STATE_REGISTERS.index("cr0")


class DryRun(NamedTuple):
    """Of a firmware: `protected_mode` is the linear address of the first instruction that it executes with CR0.PE set (None:
    it never did), `counts` what it took to the handoff, by Cpu.counts (empty: it did not come there)."""

    protected_mode: int | None
    counts: Mapping[str, int]


def dry_run(plan: BootPlan, recording: Recording | None = None, *, interrupts: bool = False, limits: Limits = LIMITS) -> DryRun:
    """Boots the plan to the handoff under Unicorn; the rest as of Board. Raises as the engine does."""
    board = Board(plan, recording=recording, interrupts=interrupts)
    with get_engine(UNICORN).cpu(board, limits) as cpu:
        cpu.run_to(lambda address: address == board.entry or bool(cpu.state().values[_CR0] & CR0_PE))
        if cpu.stop is not None:
            return DryRun(None, {})
        protected_mode = cpu.linear_ip()
        reached = protected_mode == board.entry or cpu.run_to({board.entry})
        return DryRun(protected_mode, cpu.counts() if reached else {})
