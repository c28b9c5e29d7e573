"""The engine that needs no /dev/kvm: Unicorn, from the true reset vector.

Exceptions go through the guest's IDT (unicorn_delivery.py); what cannot be delivered ends the run with a report of the first
one. What it does not do as hardware does: segment limits are not enforced on data accesses, unknown MSRs read as 0, and a write
to the ROM is dropped and recorded.
When a store to the chipset changes what lies below 1 MiB, the code that is translated there already (to the next jump, at most)
is executed as it was; under paging so is code over which a device has written.
Instructions are counted up to the handoff, each iteration of a rep as one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.machines import MachineSpec

from ..board import Board
from ..handoff import UNICORN, Handoff
from .base import Limits, Run, Until, Watcher, drive
from .unicorn_cpu import UnicornCpu


class UnicornEngine:
    """Executes a Board under Unicorn."""

    name = UNICORN

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:  # noqa: ARG002
        """Nothing."""
        return ()

    @contextmanager
    def cpu(self, board: Board, limits: Limits) -> Iterator[UnicornCpu]:
        """See engines.base.Engine."""
        cpu = UnicornCpu(board, limits)
        try:
            yield cpu
        finally:
            cpu.let_go()

    def run(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        watchers: Sequence[Watcher] = (),
    ) -> Run:
        """See engines.base.Engine. Behind the handoff instructions are counted only if they are limited."""
        with self.cpu(board, limits) as cpu:
            return drive(cpu, board, until, on_handoff, watchers=watchers, counting=limits.instructions is not None)
