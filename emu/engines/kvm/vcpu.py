"""A virtual processor of a virtual machine."""

import errno
import mmap
import os
from collections.abc import Collection
from contextlib import ExitStack, suppress
from ctypes import sizeof
from types import TracebackType
from typing import Any, Final, Self

from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError

from . import uapi
from .device import Ioctls

_IMMEDIATE_EXIT: Final = uapi.KvmRun.immediate_exit.offset
_MMIO_DATA: Final = uapi.KvmRun.exit.offset + uapi.ExitMmio.data.offset
_VALID_REGS: Final = sizeof(uapi.KvmRun) + uapi.KvmSyncRegs.kvm_valid_regs.offset
_SYNC_REGS: Final = sizeof(uapi.KvmRun) + uapi.KvmSyncRegs.regs.offset
_SYNC_SREGS: Final = sizeof(uapi.KvmRun) + uapi.KvmSyncRegs.sregs.offset
MAP_BYTES: Final = _SYNC_SREGS + sizeof(uapi.KvmSregs)  # of struct kvm_run that this reads
BREAKPOINTS: Final = 4  # debug registers 0 to 3


class Vcpu:
    """A virtual processor, from its architectural reset state on: nothing here sets a register."""

    def __init__(self, vm_fd: int, map_size: int, cpuid: uapi.KvmCpuid2, ioctls: Ioctls) -> None:
        """Raises BootError if KVM refuses. The vCPU answers CPUID from `cpuid`."""
        self.cpuid = cpuid
        self.incomplete = False  # an access has been served, and its instruction is not over
        self._ioctls = ioctls
        self._debugging: tuple[frozenset[int], bool] = frozenset(), False
        self._synchronised = False  # the kernel leaves the registers in kvm_run
        self._current = False  # and those there are the vCPU's
        self._regs: uapi.KvmRegs | None = None  # as they are until the vCPU runs again
        self._sregs: uapi.KvmSregs | None = None
        with ExitStack() as stack:
            self._fd = ioctls.call(vm_fd, uapi.KVM_CREATE_VCPU, 0, "create a vCPU")
            stack.callback(os.close, self._fd)
            try:
                # Read by copy and written by slice: with no ctypes view into it, it can be closed under any exception.
                self._map = mmap.mmap(self._fd, map_size, flags=mmap.MAP_SHARED)
            except (OSError, ValueError) as error:
                raise BootError(f"KVM cannot share its kvm_run: {error}") from None
            stack.callback(self._map.close)
            ioctls.call(self._fd, uapi.KVM_SET_CPUID2, cpuid, "set what CPUID answers")
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def run(self, completing: bool = False) -> uapi.KvmRun:
        """Executes the guest until its next exit: a copy of what KVM says about that. `completing`: finishes the instruction
        whose access has been served, and executes no other.

        Raises InterruptedError after a signal, and when it has completed; OSError for what KVM refuses.
        """
        self.incomplete = self._current = False
        self._regs = self._sregs = None
        if completing:
            self.interrupt()
        try:
            self._ioctls.run(self._fd)
        except OSError as error:
            # Not otherwise: what another thread asks for while an exit is served is for the next KVM_RUN.
            self._map[_IMMEDIATE_EXIT] = 0
            if error.errno == errno.EAGAIN:
                raise InterruptedError(errno.EINTR, "KVM_RUN is to be called again") from None
            raise
        finally:
            self._current = self._synchronised
        if completing:
            self._map[_IMMEDIATE_EXIT] = 0
        exit = uapi.KvmRun.from_buffer_copy(self._map)
        self.incomplete = exit.exit_reason in (uapi.KVM_EXIT_IO, uapi.KVM_EXIT_MMIO)
        return exit

    def interrupt(self) -> None:
        """`run` returns at once, now or when it is called next. From another thread, with a signal to the one that runs it."""
        self._map[_IMMEDIATE_EXIT] = 1

    def complete(self) -> None:
        """Finishes the instruction whose access has been served, without executing the next one.

        KVM does that at the next KVM_RUN only: until then RIP and the target register may still be those before it.
        """
        if self.incomplete:
            with suppress(OSError):  # EINTR, as it has to be; anything else would come again, and nothing follows
                self.run(completing=True)
        self.incomplete = False

    def io_data(self, offset: int, size: int) -> int:
        """An element of port output, `offset` bytes from the start of struct kvm_run."""
        return int.from_bytes(self._map[offset : offset + size], "little")

    def set_io_data(self, offset: int, size: int, value: int) -> None:
        """An element of port input."""
        self._map[offset : offset + size] = value.to_bytes(size, "little")

    def set_mmio_data(self, size: int, value: int) -> None:
        """What a load from an address without memory is to give."""
        self._map[_MMIO_DATA : _MMIO_DATA + size] = value.to_bytes(size, "little")

    def regs(self) -> uapi.KvmRegs:
        """General registers, RIP, RFLAGS."""
        if self._regs is None:
            if self._current:
                self._regs = uapi.KvmRegs.from_buffer_copy(self._map, _SYNC_REGS)
            else:
                self._regs = uapi.KvmRegs()
                self._ioctls.call(self._fd, uapi.KVM_GET_REGS, self._regs, "read the registers")
        return self._regs

    def set_regs(self, regs: uapi.KvmRegs) -> None:
        """Writes what `regs` has read."""
        self._ioctls.call(self._fd, uapi.KVM_SET_REGS, regs, "write the registers")
        self._regs, self._current = None, False

    def sregs(self) -> uapi.KvmSregs:
        """Segments, descriptor tables, control registers."""
        if self._sregs is None:
            if self._current:
                self._sregs = uapi.KvmSregs.from_buffer_copy(self._map, _SYNC_SREGS)
            else:
                self._sregs = uapi.KvmSregs()
                self._ioctls.call(self._fd, uapi.KVM_GET_SREGS, self._sregs, "read the control registers")
        return self._sregs

    @property
    def halted(self) -> bool:
        """It waits for an interrupt, in a machine that has some."""
        state = uapi.KvmMpState()
        self._ioctls.call(self._fd, uapi.KVM_GET_MP_STATE, state, "tell whether it is halted")
        return state.mp_state == uapi.KVM_MP_STATE_HALTED  # type: ignore[no-any-return]

    def msr(self, index: int) -> int | None:
        """A model-specific register; None if KVM has none of that index."""
        msrs = uapi.KvmMsrs(nmsrs=1)
        msrs.entries[0].index = index
        if self._ioctls.call(self._fd, uapi.KVM_GET_MSRS, msrs, f"read MSR {index:#x}") != 1:
            return None
        return int(msrs.entries[0].data)

    def cpuid_leaf(self, function: int) -> uapi.KvmCpuidEntry2 | None:
        """The first entry for a CPUID leaf, of the table that the guest sees."""
        used = self.cpuid.entries[: self.cpuid.nent]
        return next((entry for entry in used if entry.function == function), None)

    def translate(self, linear: int) -> int | None:
        """The physical address of a linear one under the guest's page tables; None where nothing is mapped."""
        translation = uapi.KvmTranslation(linear_address=linear)
        self._ioctls.call(self._fd, uapi.KVM_TRANSLATE, translation, f"translate the address {linear:#x}")
        return int(translation.physical_address) if translation.valid else None

    def debug(self, places: Collection[int] = (), *, stepping: bool = False) -> None:
        """Exits with KVM_EXIT_DEBUG when an instruction at one of up to BREAKPOINTS linear addresses is next, or after each
        instruction."""
        wanted = frozenset(places), stepping
        if wanted == self._debugging:
            return
        debug = uapi.KvmGuestDebug()
        if places or stepping:
            debug.control = uapi.KVM_GUESTDBG_ENABLE
        if stepping:
            debug.control |= uapi.KVM_GUESTDBG_SINGLESTEP
        if places:
            debug.control |= uapi.KVM_GUESTDBG_USE_HW_BP
            debug.debugreg[7] = uapi.DR7_FIXED
        for number, linear in enumerate(places):
            debug.debugreg[number] = linear
            debug.debugreg[7] |= uapi.DR7_G0 << 2 * number
        self._ioctls.call(self._fd, uapi.KVM_SET_GUEST_DEBUG, debug, "set a breakpoint")
        self._debugging = wanted
        # Whoever waits for a place looks at the registers at each stop.
        self._synchronised = bool(debug.control)
        valid = uapi.KVM_SYNC_X86_REGS | uapi.KVM_SYNC_X86_SREGS if self._synchronised else 0
        self._map[_VALID_REGS : _VALID_REGS + 8] = valid.to_bytes(8, "little")


def segment(kvm: Any) -> Segment:
    """A segment register of KvmSregs in our terms."""
    return Segment(
        kvm.selector, kvm.base, kvm.limit, kvm.type, bool(kvm.s), bool(kvm.present), bool(kvm.db), bool(kvm.l), bool(kvm.g)
    )
