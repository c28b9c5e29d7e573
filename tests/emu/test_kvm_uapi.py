"""The structures against the sizes in the ioctl numbers and literal offsets from the headers. Needs no KVM."""

from ctypes import sizeof

import pytest
from pvhboot.emu.engines.kvm import uapi


@pytest.mark.parametrize(
    ("request_number", "structure", "size"),
    [
        (uapi.KVM_GET_REGS, uapi.KvmRegs, 144),
        (uapi.KVM_GET_SREGS, uapi.KvmSregs, 312),
        (uapi.KVM_SET_USER_MEMORY_REGION, uapi.KvmUserspaceMemoryRegion, 32),
        (uapi.KVM_SET_GUEST_DEBUG, uapi.KvmGuestDebug, 72),
        (uapi.KVM_TRANSLATE, uapi.KvmTranslation, 24),
        (uapi.KVM_IRQ_LINE, uapi.KvmIrqLevel, 8),
        (uapi.KVM_CREATE_PIT2, uapi.KvmPitConfig, 64),
        (uapi.KVM_GET_MP_STATE, uapi.KvmMpState, 4),
    ],
)
def test_a_structure_has_the_size_in_its_ioctl_number(request_number, structure, size):
    assert sizeof(structure) == request_number >> 16 & 0x3FFF == size


@pytest.mark.parametrize(
    ("request_number", "field"),
    [
        (uapi.KVM_GET_MSRS, uapi.KvmMsrs.entries),
        (uapi.KVM_GET_SUPPORTED_CPUID, uapi.KvmCpuid2.entries),
        (uapi.KVM_SET_CPUID2, uapi.KvmCpuid2.entries),
    ],
)
def test_the_ioctl_number_of_an_open_ended_structure_has_the_size_of_its_head(request_number, field):
    assert field.offset == request_number >> 16 & 0x3FFF == 8


@pytest.mark.parametrize(
    ("request_number", "literal"),
    [
        (uapi.KVM_GET_API_VERSION, 0xAE00),
        (uapi.KVM_CREATE_VM, 0xAE01),
        (uapi.KVM_CHECK_EXTENSION, 0xAE03),
        (uapi.KVM_GET_VCPU_MMAP_SIZE, 0xAE04),
        (uapi.KVM_GET_SUPPORTED_CPUID, 0xC008AE05),
        (uapi.KVM_CREATE_VCPU, 0xAE41),
        (uapi.KVM_SET_USER_MEMORY_REGION, 0x4020AE46),
        (uapi.KVM_SET_TSS_ADDR, 0xAE47),
        (uapi.KVM_SET_IDENTITY_MAP_ADDR, 0x4008AE48),
        (uapi.KVM_RUN, 0xAE80),
        (uapi.KVM_GET_REGS, 0x8090AE81),
        (uapi.KVM_GET_SREGS, 0x8138AE83),
        (uapi.KVM_TRANSLATE, 0xC018AE85),
        (uapi.KVM_GET_MSRS, 0xC008AE88),
        (uapi.KVM_SET_CPUID2, 0x4008AE90),
        (uapi.KVM_SET_GUEST_DEBUG, 0x4048AE9B),
        (uapi.KVM_CREATE_IRQCHIP, 0xAE60),
        (uapi.KVM_IRQ_LINE, 0x4008AE61),
        (uapi.KVM_CREATE_PIT2, 0x4040AE77),
        (uapi.KVM_GET_MP_STATE, 0x8004AE98),
    ],
)
def test_ioctl_numbers(request_number, literal):
    assert request_number == literal


@pytest.mark.parametrize(("structure", "size"), [(uapi.KvmSegment, 24), (uapi.KvmDtable, 16), (uapi.KvmMsrEntry, 16)])
def test_parts_have_their_size(structure, size):
    assert sizeof(structure) == size


def test_a_cpuid_entry_has_40_bytes():
    assert sizeof(uapi.KvmCpuidEntry2) == 40
    assert sizeof(uapi.KvmCpuid2) == 8 + 40 * 256


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        (uapi.KvmRegs.rsp, 48),
        (uapi.KvmRegs.rip, 128),
        (uapi.KvmRegs.rflags, 136),
        (uapi.KvmSegment.selector, 12),
        (uapi.KvmSegment.db, 17),
        (uapi.KvmSegment.unusable, 22),
        (uapi.KvmSregs.ss, 120),
        (uapi.KvmSregs.tr, 144),
        (uapi.KvmSregs.gdt, 192),
        (uapi.KvmSregs.cr0, 224),
        (uapi.KvmSregs.efer, 264),
        (uapi.KvmGuestDebug.debugreg, 8),
        (uapi.KvmRun.immediate_exit, 1),
        (uapi.KvmRun.exit_reason, 8),
        (uapi.KvmRun.if_flag, 13),
        (uapi.KvmRun.cr8, 16),
        (uapi.KvmRun.exit, 32),
    ],
)
def test_offsets(field, offset):
    assert field.offset == offset


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        (uapi.ExitIo.port, 34),
        (uapi.ExitIo.count, 36),
        (uapi.ExitIo.data_offset, 40),
        (uapi.ExitMmio.data, 40),
        (uapi.ExitMmio.len, 48),
        (uapi.ExitMmio.is_write, 52),
        (uapi.ExitDebug.pc, 40),
        (uapi.ExitInternal.data, 40),
        (uapi.ExitEmulationFailure.insn_size, 48),
        (uapi.ExitEmulationFailure.insn_bytes, 49),
        (uapi.ExitSystemEvent.data, 40),
        (uapi.ExitUnknown.cpu, 40),
    ],
)
def test_offsets_of_the_union_from_the_start_of_kvm_run(field, offset):
    assert uapi.KvmRun.exit.offset + field.offset == offset


def test_the_union_ends_where_the_kernel_continues():
    assert sizeof(uapi.KvmRun) == 288


@pytest.mark.parametrize(("field", "offset"), [("kvm_valid_regs", 288), ("kvm_dirty_regs", 296), ("regs", 304), ("sregs", 448)])
def test_offsets_of_the_registers_in_kvm_run(field, offset):
    assert sizeof(uapi.KvmRun) + getattr(uapi.KvmSyncRegs, field).offset == offset
