"""The KVM interface of Linux on x86, as far as a boot needs it: ioctl numbers, constants, structures.

Source: Linux, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h; Documentation/virt/kvm/api.rst says what
each call means. Names are those of the headers; a structure's size is bits 16-29 of the ioctl number that takes it.
"""

from ctypes import Structure, Union, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Final

KVM_DEVICE = "/dev/kvm"  # looked up at each use
KVM_API_VERSION: Final = 12  # the only one since Linux 2.6.22

# Of /dev/kvm.
KVM_GET_API_VERSION: Final = 0xAE00
KVM_CREATE_VM: Final = 0xAE01
KVM_CHECK_EXTENSION: Final = 0xAE03
KVM_GET_VCPU_MMAP_SIZE: Final = 0xAE04
KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05

# Of a VM.
KVM_CREATE_VCPU: Final = 0xAE41
KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
KVM_SET_TSS_ADDR: Final = 0xAE47
KVM_SET_IDENTITY_MAP_ADDR: Final = 0x4008AE48
KVM_CREATE_IRQCHIP: Final = 0xAE60
KVM_IRQ_LINE: Final = 0x4008AE61
KVM_CREATE_PIT2: Final = 0x4040AE77

# Of a vCPU.
KVM_RUN: Final = 0xAE80
KVM_GET_REGS: Final = 0x8090AE81
KVM_SET_REGS: Final = 0x4090AE82
KVM_GET_SREGS: Final = 0x8138AE83
KVM_TRANSLATE: Final = 0xC018AE85
KVM_GET_MSRS: Final = 0xC008AE88
KVM_SET_CPUID2: Final = 0x4008AE90
KVM_GET_MP_STATE: Final = 0x8004AE98
KVM_SET_GUEST_DEBUG: Final = 0x4048AE9B

# What the engine cannot do without, and an x86 host may lack: all else that it uses was there before Linux 3.7.
REQUIRED_CAPABILITIES: Final = {
    74: "KVM_CAP_SYNC_REGS",
    81: "KVM_CAP_READONLY_MEM",
    136: "KVM_CAP_IMMEDIATE_EXIT",
}

KVM_MEM_READONLY: Final = 1 << 1

KVM_PIT_SPEAKER_DUMMY: Final = 1 << 0  # port 0x61 is answered, too
KVM_MP_STATE_HALTED: Final = 3

# Which registers the kernel leaves in struct kvm_run.
KVM_SYNC_X86_REGS: Final = 1 << 0
KVM_SYNC_X86_SREGS: Final = 1 << 1

KVM_GUESTDBG_ENABLE: Final = 1 << 0
KVM_GUESTDBG_SINGLESTEP: Final = 1 << 1
KVM_GUESTDBG_USE_HW_BP: Final = 1 << 17
DR7_G0: Final = 1 << 1  # breakpoint 0 is on, two bits higher the next; its R/W0 and LEN0 of 0 mean: on execution
DR7_FIXED: Final = 1 << 10  # always reads as 1

KVM_MAX_CPUID_ENTRIES: Final = 256  # of the kernel; older ones have fewer

# Why KVM_RUN returned.
KVM_EXIT_UNKNOWN: Final = 0
KVM_EXIT_IO: Final = 2
KVM_EXIT_DEBUG: Final = 4
KVM_EXIT_HLT: Final = 5
KVM_EXIT_MMIO: Final = 6
KVM_EXIT_IRQ_WINDOW_OPEN: Final = 7
KVM_EXIT_SHUTDOWN: Final = 8
KVM_EXIT_FAIL_ENTRY: Final = 9
KVM_EXIT_INTR: Final = 10
KVM_EXIT_SET_TPR: Final = 11
KVM_EXIT_INTERNAL_ERROR: Final = 17
KVM_EXIT_SYSTEM_EVENT: Final = 24

KVM_EXIT_IO_OUT: Final = 1

KVM_INTERNAL_ERROR_EMULATION: Final = 1
KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES: Final = 1 << 0

KVM_SYSTEM_EVENT_SHUTDOWN: Final = 1
KVM_SYSTEM_EVENT_RESET: Final = 2
KVM_SYSTEM_EVENT_CRASH: Final = 3

# Pages that KVM keeps for itself on Intel hosts which cannot run real mode natively: below the largest ROM (ROM_MAX).
IDENTITY_MAP_PADDR: Final = 0xFEFFC000  # one page
TSS_PADDR: Final = 0xFEFFD000  # three pages


class KvmRegs(Structure):
    """struct kvm_regs: general registers, RIP, RFLAGS."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags".split()  # noqa: SIM905
    )


class KvmSegment(Structure):
    """struct kvm_segment: a segment register with its hidden part; `limit` is its last byte, whatever `g` says."""

    _fields_ = (
        ("base", c_uint64),
        ("limit", c_uint32),
        ("selector", c_uint16),
        ("type", c_uint8),
        ("present", c_uint8),
        ("dpl", c_uint8),
        ("db", c_uint8),
        ("s", c_uint8),
        ("l", c_uint8),
        ("g", c_uint8),
        ("avl", c_uint8),
        ("unusable", c_uint8),
        ("padding", c_uint8),
    )


class KvmDtable(Structure):
    """struct kvm_dtable: GDTR or IDTR."""

    _fields_ = (("base", c_uint64), ("limit", c_uint16), ("padding", c_uint16 * 3))


class KvmSregs(Structure):
    """struct kvm_sregs: segments, tables, control registers."""

    _fields_ = (
        *((name, KvmSegment) for name in ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")),
        ("gdt", KvmDtable),
        ("idt", KvmDtable),
        *((name, c_uint64) for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")),
        ("interrupt_bitmap", c_uint64 * 4),
    )


class KvmUserspaceMemoryRegion(Structure):
    """struct kvm_userspace_memory_region: a slot of guest memory; addresses and size in bytes, of whole pages."""

    _fields_ = (
        ("slot", c_uint32),
        ("flags", c_uint32),
        ("guest_phys_addr", c_uint64),
        ("memory_size", c_uint64),
        ("userspace_addr", c_uint64),
    )


class KvmGuestDebug(Structure):
    """struct kvm_guest_debug: `debugreg` holds DR0 to DR7."""

    _fields_ = (("control", c_uint32), ("pad", c_uint32), ("debugreg", c_uint64 * 8))


class KvmIrqLevel(Structure):
    """struct kvm_irq_level: an interrupt line of both 8259A and the I/O APIC, and its level."""

    _fields_ = (("irq", c_uint32), ("level", c_uint32))


class KvmPitConfig(Structure):
    """struct kvm_pit_config."""

    _fields_ = (("flags", c_uint32), ("pad", c_uint32 * 15))


class KvmMpState(Structure):
    """struct kvm_mp_state: what a vCPU waits for."""

    _fields_ = (("mp_state", c_uint32),)


class KvmMsrEntry(Structure):
    """struct kvm_msr_entry."""

    _fields_ = (("index", c_uint32), ("reserved", c_uint32), ("data", c_uint64))


class KvmMsrs(Structure):
    """struct kvm_msrs with room for one entry."""

    _fields_ = (("nmsrs", c_uint32), ("pad", c_uint32), ("entries", KvmMsrEntry * 1))


class KvmCpuidEntry2(Structure):
    """struct kvm_cpuid_entry2: what CPUID answers for a leaf (`function`) and subleaf (`index`)."""

    _fields_ = (
        ("function", c_uint32),
        ("index", c_uint32),
        ("flags", c_uint32),
        ("eax", c_uint32),
        ("ebx", c_uint32),
        ("ecx", c_uint32),
        ("edx", c_uint32),
        ("padding", c_uint32 * 3),
    )


class KvmCpuid2(Structure):
    """struct kvm_cpuid2 with room for all entries that the kernel may have; `nent` are in use."""

    _fields_ = (("nent", c_uint32), ("padding", c_uint32), ("entries", KvmCpuidEntry2 * KVM_MAX_CPUID_ENTRIES))


class KvmTranslation(Structure):
    """struct kvm_translation: the physical address of a linear one."""

    _fields_ = (
        ("linear_address", c_uint64),
        ("physical_address", c_uint64),
        ("valid", c_uint8),
        ("writeable", c_uint8),
        ("usermode", c_uint8),
        ("pad", c_uint8 * 5),
    )


class ExitUnknown(Structure):
    """`hw` and `fail_entry`: the reason is the processor's own."""

    _fields_ = (("hardware_reason", c_uint64), ("cpu", c_uint32))


class ExitIo(Structure):
    """`io`: `count` elements of `size` bytes; they lie `data_offset` bytes from the start of struct kvm_run."""

    _fields_ = (
        ("direction", c_uint8),
        ("size", c_uint8),
        ("port", c_uint16),
        ("count", c_uint32),
        ("data_offset", c_uint64),
    )


class ExitDebug(Structure):
    """`debug.arch`: `pc` is linear."""

    _fields_ = (("exception", c_uint32), ("pad", c_uint32), ("pc", c_uint64), ("dr6", c_uint64), ("dr7", c_uint64))


class ExitMmio(Structure):
    """`mmio`: `len` bytes of `data`, little-endian."""

    _fields_ = (("phys_addr", c_uint64), ("data", c_uint8 * 8), ("len", c_uint32), ("is_write", c_uint8))


class ExitInternal(Structure):
    """`internal`: `ndata` words of `data` are valid."""

    _fields_ = (("suberror", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16))


class ExitEmulationFailure(Structure):
    """`emulation_failure`: how `internal` looks where the suberror is KVM_INTERNAL_ERROR_EMULATION."""

    _fields_ = (
        ("suberror", c_uint32),
        ("ndata", c_uint32),
        ("flags", c_uint64),
        ("insn_size", c_uint8),
        ("insn_bytes", c_uint8 * 15),
    )


class ExitSystemEvent(Structure):
    """`system_event`."""

    _fields_ = (("type", c_uint32), ("ndata", c_uint32), ("data", c_uint64 * 16))


class ExitUnion(Union):
    """The union in struct kvm_run: which member is valid follows from the exit reason."""

    _fields_ = (
        ("hw", ExitUnknown),
        ("fail_entry", ExitUnknown),
        ("io", ExitIo),
        ("debug", ExitDebug),
        ("mmio", ExitMmio),
        ("internal", ExitInternal),
        ("emulation_failure", ExitEmulationFailure),
        ("system_event", ExitSystemEvent),
        ("padding", c_uint8 * 256),
    )


class KvmRun(Structure):
    """struct kvm_run up to and with its union: what the kernel and the VMM tell each other at KVM_RUN."""

    _fields_ = (
        ("request_interrupt_window", c_uint8),
        ("immediate_exit", c_uint8),
        ("padding1", c_uint8 * 6),
        ("exit_reason", c_uint32),
        ("ready_for_interrupt_injection", c_uint8),
        ("if_flag", c_uint8),
        ("flags", c_uint16),
        ("cr8", c_uint64),
        ("apic_base", c_uint64),
        ("exit", ExitUnion),
    )


class KvmSyncRegs(Structure):
    """What follows in struct kvm_run: `kvm_valid_regs` says which registers the kernel is to leave there at each exit."""

    _fields_ = (
        ("kvm_valid_regs", c_uint64),
        ("kvm_dirty_regs", c_uint64),
        ("regs", KvmRegs),
        ("sregs", KvmSregs),
    )
