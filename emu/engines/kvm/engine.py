"""The engine that executes a Board on real KVM.

What it cannot see: it counts no instructions but those that it makes step by step, and loads and stores go unseen. Where the
host's KVM emulates instead of executing (real mode on old Intel processors, ring 0 under a software KVM), an instruction that
its emulator lacks ends the run as a fault that names the bytes. AMD's hardware clears the processor at a triple fault: then the
run says that the place is unknown. Breakpoints compare linear addresses, so paging that moves the entry would hide it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pvhboot.shim.errors import BootError

from ...board import Board
from ..base import DrivenEngine, Limits
from ..names import KVM
from .cpu import KvmCpu, require_main_thread
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
        with Vm(board.memory) as vm, vm.vcpu() as vcpu:
            yield KvmCpu(board, limits, vcpu)
