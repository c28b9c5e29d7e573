"""The engine that executes a Board on real KVM.

What it cannot see: it counts no instructions but those that it makes step by step, and loads and stores go unseen. A step that
takes an interrupt executes the first instruction of its handler, and is told as the one that was interrupted. Where the
host's KVM emulates instead of executing (real mode on old Intel processors, ring 0 under a software KVM), an instruction that
its emulator lacks ends the run as a fault that names the bytes. AMD's hardware clears the processor at a triple fault: then the
run says that the place is unknown. Breakpoints compare linear addresses, so paging that moves the entry would hide it.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from pvhboot.shim.errors import BootError

from ...board import Board
from ..base import DrivenEngine, Limits
from ..names import KVM
from .cpu import KvmCpu
from .ticks import require_main_thread
from .vm import Vm


class KvmEngine(DrivenEngine):
    """Executes a Board on /dev/kvm. Register names are those of Handoff also in 64-bit mode: `eax` then holds RAX."""

    name = KVM

    @contextmanager
    def cpu(self, board: Board, limits: Limits) -> Iterator[KvmCpu]:
        """See Engine. Only in the main thread, whose SIGALRM and real-time timer it borrows while the guest executes."""
        if limits.instructions is not None:
            raise BootError("the kvm engine cannot count instructions: use --max-exits or --timeout")
        require_main_thread()
        with Vm(board.memory, interrupts=board.interrupts is not None) as vm, vm.vcpu() as vcpu, _connected(board, vm):
            yield KvmCpu(board, limits, vcpu, vm.ioctls)


@contextmanager
def _connected(board: Board, vm: Vm) -> Iterator[None]:
    """The kernel's controllers take the place of the board's, and the time of its real-time clock is the host's."""
    if board.interrupts is None:
        yield
        return
    board.has_controllers = False
    started = time.monotonic_ns()
    board.clock.drive(lambda: time.monotonic_ns() - started)
    board.interrupts.connect(vm.irq_line)
    try:
        yield
    finally:
        board.interrupts.connect(lambda _number, _level: None)
