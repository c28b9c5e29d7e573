"""The engine that needs no /dev/kvm: Unicorn, from the true reset vector.

Exceptions go through the guest's IDT (unicorn_delivery.py); what cannot be delivered ends the run with a report of the first
one. What it does not do as hardware does: segment limits are not enforced on data accesses, unknown MSRs read as 0, and a write
to the ROM is dropped and recorded.
When a store to the chipset changes what lies below 1 MiB, the code that is translated there already (to the next jump, at most)
is executed as it was; under paging so is code over which a device has written.
Instructions are counted up to the handoff, each iteration of a rep as one.
A board with interrupts has a time of its own (unicorn_pace.py), and a processor for an operating system (unicorn_system.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ..board import Board
from .base import DrivenEngine, Limits
from .names import UNICORN
from .unicorn_cpu import UnicornCpu


class UnicornEngine(DrivenEngine):
    """Executes a Board under Unicorn."""

    name = UNICORN

    @contextmanager
    def cpu(self, board: Board, limits: Limits) -> Iterator[UnicornCpu]:
        """See engines.base.Engine."""
        cpu = UnicornCpu(board, limits)
        try:
            yield cpu
        finally:
            cpu.let_go()
