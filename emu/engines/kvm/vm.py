"""A virtual machine with one vCPU on /dev/kvm. Everything here is closed by the end of its `with`, whatever happens in it."""

import errno
import mmap
import os
import sys
from collections.abc import Collection
from contextlib import ExitStack, suppress
from ctypes import Structure, c_uint64, sizeof
from types import TracebackType
from typing import Any, Final, Self

from pvhboot.loader.memory import GuestMemory, Region
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError, UnavailableError

from . import uapi

if sys.platform == "linux":
    import fcntl

_MMIO_DATA: Final = uapi.KvmRun.exit.offset + uapi.ExitMmio.data.offset
_IMMEDIATE_EXIT: Final = uapi.KvmRun.immediate_exit.offset
_MACHINE: Final = "x86_64"
BREAKPOINTS: Final = 4  # debug registers 0 to 3


def _call(fd: int, request: int, argument: int | Structure | c_uint64, what: str) -> int:
    """An ioctl other than KVM_RUN, taken up again after a signal; BootError says that KVM cannot do `what`, and why."""
    while True:
        try:
            return int(fcntl.ioctl(fd, request, argument))
        except InterruptedError:
            continue
        except OSError as error:
            raise BootError(f"KVM cannot {what}: {error.strerror}") from None


def open_device() -> int:
    """A file descriptor of /dev/kvm, for the caller to close. UnavailableError says what is missing and how to get it."""
    device = uapi.KVM_DEVICE
    if sys.platform != "linux":
        raise UnavailableError(f"the kvm engine needs Linux and this is {sys.platform}: use --engine unicorn")
    if (machine := os.uname().machine) != _MACHINE:
        raise UnavailableError(f"the kvm engine needs an {_MACHINE} host and this is {machine}: use --engine unicorn")
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnavailableError(f"{device} does not exist: load the kvm module, or use --engine unicorn") from None
    except PermissionError:
        raise UnavailableError(f"no permission to open {device}: join the group kvm, or use --engine unicorn") from None
    except OSError as error:
        raise UnavailableError(f"cannot open {device}: {error.strerror}; use --engine unicorn") from None
    try:
        _check_abilities(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_abilities(fd: int) -> None:
    version = _call(fd, uapi.KVM_GET_API_VERSION, 0, f"tell its version ({uapi.KVM_DEVICE})")
    if version != uapi.KVM_API_VERSION:
        raise UnavailableError(f"{uapi.KVM_DEVICE} has API version {version}: this engine speaks {uapi.KVM_API_VERSION}")
    capabilities = uapi.REQUIRED_CAPABILITIES.items()
    missing = [name for number, name in capabilities if not _call(fd, uapi.KVM_CHECK_EXTENSION, number, f"check {name}")]
    if missing:
        raise UnavailableError(f"this host's KVM lacks {', '.join(missing)}: use --engine unicorn")


class Vcpu:
    """A virtual processor, from its architectural reset state on: nothing here sets a register."""

    def __init__(self, vm_fd: int, map_size: int, cpuid: uapi.KvmCpuid2) -> None:
        """Raises BootError if KVM refuses. The vCPU answers CPUID from `cpuid`."""
        self.cpuid = cpuid
        self.incomplete = False  # an access has been served, and its instruction is not over
        self._debugging: tuple[frozenset[int], bool] = frozenset(), False
        with ExitStack() as stack:
            self._fd = _call(vm_fd, uapi.KVM_CREATE_VCPU, 0, "create a vCPU")
            stack.callback(os.close, self._fd)
            try:
                # Read by copy and written by slice: with no ctypes view into it, it can be closed under any exception.
                self._map = mmap.mmap(self._fd, map_size, flags=mmap.MAP_SHARED)
            except (OSError, ValueError) as error:
                raise BootError(f"KVM cannot share its kvm_run: {error}") from None
            stack.callback(self._map.close)
            _call(self._fd, uapi.KVM_SET_CPUID2, cpuid, "set what CPUID answers")
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
        self.incomplete = False
        self._map[_IMMEDIATE_EXIT] = completing
        try:
            fcntl.ioctl(self._fd, uapi.KVM_RUN, 0)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise InterruptedError(errno.EINTR, "KVM_RUN is to be called again") from None
            raise
        finally:
            self._map[_IMMEDIATE_EXIT] = 0
        exit = uapi.KvmRun.from_buffer_copy(self._map)
        self.incomplete = exit.exit_reason in (uapi.KVM_EXIT_IO, uapi.KVM_EXIT_MMIO)
        return exit

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
        regs = uapi.KvmRegs()
        _call(self._fd, uapi.KVM_GET_REGS, regs, "read the registers")
        return regs

    def set_regs(self, regs: uapi.KvmRegs) -> None:
        """Writes what `regs` has read."""
        _call(self._fd, uapi.KVM_SET_REGS, regs, "write the registers")

    def sregs(self) -> uapi.KvmSregs:
        """Segments, descriptor tables, control registers."""
        sregs = uapi.KvmSregs()
        _call(self._fd, uapi.KVM_GET_SREGS, sregs, "read the control registers")
        return sregs

    def msr(self, index: int) -> int | None:
        """A model-specific register; None if KVM has none of that index."""
        msrs = uapi.KvmMsrs(nmsrs=1)
        msrs.entries[0].index = index
        if _call(self._fd, uapi.KVM_GET_MSRS, msrs, f"read MSR {index:#x}") != 1:
            return None
        return int(msrs.entries[0].data)

    def cpuid_leaf(self, function: int) -> uapi.KvmCpuidEntry2 | None:
        """The first entry for a CPUID leaf, of the table that the guest sees."""
        used = self.cpuid.entries[: self.cpuid.nent]
        return next((entry for entry in used if entry.function == function), None)

    def translate(self, linear: int) -> int | None:
        """The physical address of a linear one under the guest's page tables; None where nothing is mapped."""
        translation = uapi.KvmTranslation(linear_address=linear)
        _call(self._fd, uapi.KVM_TRANSLATE, translation, f"translate the address {linear:#x}")
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
        _call(self._fd, uapi.KVM_SET_GUEST_DEBUG, debug, "set a breakpoint")
        self._debugging = wanted


class Vm:
    """A virtual machine whose memory is `memory`, a slot a region. Without interrupt controller, so that HLT exits."""

    def __init__(self, memory: GuestMemory) -> None:
        """Raises BootError if /dev/kvm is missing or refuses."""
        self._memory = memory  # alive as long as the slots point to it
        with ExitStack() as stack:
            self._device = open_device()
            stack.callback(os.close, self._device)
            self._fd = _call(self._device, uapi.KVM_CREATE_VM, 0, "create a virtual machine")
            stack.callback(os.close, self._fd)
            identity_map = c_uint64(uapi.IDENTITY_MAP_PADDR)
            _call(self._fd, uapi.KVM_SET_IDENTITY_MAP_ADDR, identity_map, "place its identity map")
            # fcntl takes a C int, so the address goes as the negative number with the same 32 bits.
            _call(self._fd, uapi.KVM_SET_TSS_ADDR, uapi.TSS_PADDR - (1 << 32), "place its TSS")
            self._slots: dict[Region, int] = {}
            self._map()
            memory.map_listeners.append(self._map)
            stack.callback(memory.map_listeners.remove, self._map)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def _map(self) -> None:
        """A slot for each region; those that are so already stay. Not while KVM_RUN executes."""
        regions = self._memory.regions
        for region in [region for region in self._slots if region not in regions]:
            self._set_slot(self._slots.pop(region), region, 0)
        for region in regions:
            if region not in self._slots:
                number = min(set(range(len(self._slots) + 1)) - set(self._slots.values()))
                self._set_slot(number, region, region.span.size)
                self._slots[region] = number

    def _set_slot(self, number: int, region: Region, size: int) -> None:
        """Maps `size` bytes of a region; 0 takes the slot away, which KVM wants before it is used otherwise."""
        slot = uapi.KvmUserspaceMemoryRegion(
            slot=number,
            flags=uapi.KVM_MEM_READONLY if region.readonly else 0,
            guest_phys_addr=region.span.start,
            memory_size=size,
            userspace_addr=region.host,
        )
        where = f"{region.span.name} at {region.span.start:#x}-{region.span.end:#x}"
        _call(self._fd, uapi.KVM_SET_USER_MEMORY_REGION, slot, f"map {where}")

    def vcpu(self) -> Vcpu:
        """A vCPU in its reset state with all CPUID features that this host supports. To be closed before the Vm is."""
        cpuid = uapi.KvmCpuid2(nent=uapi.KVM_MAX_CPUID_ENTRIES)
        _call(self._device, uapi.KVM_GET_SUPPORTED_CPUID, cpuid, "tell what CPUID answers")
        size = _call(self._device, uapi.KVM_GET_VCPU_MMAP_SIZE, 0, "tell the size of kvm_run")
        return Vcpu(self._fd, max(size, sizeof(uapi.KvmRun)), cpuid)


def segment(kvm: Any) -> Segment:
    """A segment register of KvmSregs in our terms."""
    return Segment(
        kvm.selector, kvm.base, kvm.limit, kvm.type, bool(kvm.s), bool(kvm.present), bool(kvm.db), bool(kvm.l), bool(kvm.g)
    )
