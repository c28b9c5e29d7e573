"""A virtual machine with one vCPU on /dev/kvm. Everything here is closed by the end of its `with`, whatever happens in it."""

import os
from contextlib import ExitStack
from ctypes import c_uint64
from types import TracebackType
from typing import Self

from pvhboot.loader.memory import GuestMemory, Region
from pvhboot.shim.abi.x86 import (
    CPUID_1_EBX_COUNT,
    CPUID_1_EBX_COUNT_ONE,
    CPUID_1_EBX_ID,
    CPUID_FEATURES_LEAF,
    CPUID_TOPOLOGY_LEAVES,
)

from . import uapi
from .device import Ioctls, open_device
from .vcpu import MAP_BYTES, Vcpu


class Vm:
    """A virtual machine whose memory is `memory`, a slot a region."""

    def __init__(self, memory: GuestMemory, *, interrupts: bool = False) -> None:
        """`interrupts`: with the kernel's interrupt controllers and timer, by which HLT waits; without, it exits. Raises
        BootError if /dev/kvm is missing or refuses."""
        self.ioctls = Ioctls()
        self._interrupts = interrupts
        self._memory = memory  # alive as long as the slots point to it
        with ExitStack() as stack:
            self._device = open_device(self.ioctls)
            stack.callback(os.close, self._device)
            self._fd = self.ioctls.call(self._device, uapi.KVM_CREATE_VM, 0, "create a virtual machine")
            stack.callback(os.close, self._fd)
            identity_map = c_uint64(uapi.IDENTITY_MAP_PADDR)
            self.ioctls.call(self._fd, uapi.KVM_SET_IDENTITY_MAP_ADDR, identity_map, "place its identity map")
            # fcntl takes a C int, so the address goes as the negative number with the same 32 bits.
            self.ioctls.call(self._fd, uapi.KVM_SET_TSS_ADDR, uapi.TSS_PADDR - (1 << 32), "place its TSS")
            self._slots: dict[Region, int] = {}
            self._map()
            if interrupts:  # only now: once there are controllers, each slot costs the kernel milliseconds
                self._create_interrupts()
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
        self.ioctls.call(self._fd, uapi.KVM_SET_USER_MEMORY_REGION, slot, f"map {where}")

    def _create_interrupts(self) -> None:
        """Both 8259A, the I/O APIC, the local APIC of each vCPU that is created from now on, and the 8254."""
        self.ioctls.call(self._fd, uapi.KVM_CREATE_IRQCHIP, 0, "create interrupt controllers")
        timer = uapi.KvmPitConfig(flags=uapi.KVM_PIT_SPEAKER_DUMMY)
        self.ioctls.call(self._fd, uapi.KVM_CREATE_PIT2, timer, "create a timer")

    def irq_line(self, number: int, level: bool) -> None:
        """Sets a line of the interrupt controllers."""
        line = uapi.KvmIrqLevel(number, level)
        self.ioctls.call(self._fd, uapi.KVM_IRQ_LINE, line, f"set the interrupt line {number}")

    def vcpu(self) -> Vcpu:
        """A vCPU in its reset state with all CPUID features that this host supports. To be closed before the Vm is."""
        cpuid = uapi.KvmCpuid2(nent=uapi.KVM_MAX_CPUID_ENTRIES)
        self.ioctls.call(self._device, uapi.KVM_GET_SUPPORTED_CPUID, cpuid, "tell what CPUID answers")
        size = self.ioctls.call(self._device, uapi.KVM_GET_VCPU_MMAP_SIZE, 0, "tell the size of kvm_run")
        if self._interrupts:
            _be_the_only_processor(cpuid)
        return Vcpu(self._fd, max(size, MAP_BYTES), cpuid, self.ioctls)


def _be_the_only_processor(cpuid: uapi.KvmCpuid2) -> None:
    """KVM tells the APIC ID of the processor that it was asked on: the guest's own is 0."""
    for entry in cpuid.entries[: cpuid.nent]:
        if entry.function == CPUID_FEATURES_LEAF:
            entry.ebx = entry.ebx & ~(CPUID_1_EBX_ID | CPUID_1_EBX_COUNT) | CPUID_1_EBX_COUNT_ONE
        elif entry.function in CPUID_TOPOLOGY_LEAVES:
            entry.edx = 0
