"""The parts of the x86 architecture that a boot touches: descriptors from named bits, control bits, the reset state.

Sources: Intel SDM volume 3A, 2.3 (EFLAGS), 2.5 (CR0), 3.4.5 and 3.5 (descriptors), 8.2.1 (the 32-bit TSS),
10.1.1 and table 10-1 (the state after reset), 12.11.2.1 (IA32_MTRR_DEF_TYPE).
"""

from typing import Final, NamedTuple

# Control register 0.
CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_EM: Final = 1 << 2
CR0_TS: Final = 1 << 3
CR0_ET: Final = 1 << 4  # hard-wired to 1 since the Pentium
CR0_NE: Final = 1 << 5
CR0_WP: Final = 1 << 16
CR0_AM: Final = 1 << 18
CR0_NW: Final = 1 << 29
CR0_CD: Final = 1 << 30
CR0_PG: Final = 1 << 31

CR0_NAMES: Final = {
    CR0_PE: "PE",
    CR0_MP: "MP",
    CR0_EM: "EM",
    CR0_TS: "TS",
    CR0_ET: "ET",
    CR0_NE: "NE",
    CR0_WP: "WP",
    CR0_AM: "AM",
    CR0_NW: "NW",
    CR0_CD: "CD",
    CR0_PG: "PG",
}

# Prefixes of instructions, in front of the opcode. Source: Intel SDM volume 2A, 2.1.1.
OPERAND_SIZE_PREFIX: Final = 0x66
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, OPERAND_SIZE_PREFIX, 0x67, 0xF0, 0xF2, 0xF3))

EFLAGS_CF: Final = 1 << 0
EFLAGS_FIXED: Final = 1 << 1  # always reads as 1
EFLAGS_PF: Final = 1 << 2
EFLAGS_AF: Final = 1 << 4
EFLAGS_ZF: Final = 1 << 6
EFLAGS_SF: Final = 1 << 7
EFLAGS_TF: Final = 1 << 8
EFLAGS_IF: Final = 1 << 9
EFLAGS_DF: Final = 1 << 10
EFLAGS_OF: Final = 1 << 11
EFLAGS_NT: Final = 1 << 14
EFLAGS_RF: Final = 1 << 16
EFLAGS_VM: Final = 1 << 17
EFLAGS_AC: Final = 1 << 18
EFLAGS_NAMES: Final = {
    EFLAGS_CF: "CF",
    EFLAGS_PF: "PF",
    EFLAGS_AF: "AF",
    EFLAGS_ZF: "ZF",
    EFLAGS_SF: "SF",
    EFLAGS_TF: "TF",
    EFLAGS_IF: "IF",
    EFLAGS_DF: "DF",
    EFLAGS_OF: "OF",
    EFLAGS_NT: "NT",
    EFLAGS_RF: "RF",
    EFLAGS_VM: "VM",
    EFLAGS_AC: "AC",
}
EFLAGS_ARITHMETIC: Final = EFLAGS_CF | EFLAGS_PF | EFLAGS_AF | EFLAGS_ZF | EFLAGS_SF | EFLAGS_OF

# Segment descriptors, SDM figures 3-8 and 8-3: the type field, then the attribute bits at their place in the 8 bytes.
TYPE_ACCESSED: Final = 1 << 0
TYPE_WRITABLE: Final = 1 << 1  # of a data segment
TYPE_READABLE: Final = 1 << 1  # of a code segment
TYPE_CONFORMING: Final = 1 << 2  # of a code segment
TYPE_EXPAND_DOWN: Final = 1 << 2  # of a data segment
TYPE_CODE: Final = 1 << 3
TYPE_TSS32_AVAILABLE: Final = 0x9
TYPE_TSS32_BUSY: Final = 0xB
TYPE_TSS_BUSY_BIT: Final = 1 << 1

# A selector: its index counts descriptors, so that without these bits it is their offset in the table.
SELECTOR_RPL: Final = 3  # the requested privilege level
SELECTOR_LDT: Final = 1 << 2  # of the LDT, not of the GDT
SELECTOR_INDEX_SHIFT: Final = 3

DESC_TYPE_SHIFT: Final = 40
DESC_S: Final = 1 << 44  # code or data, as against system
DESC_DPL_SHIFT: Final = 45
DESC_P: Final = 1 << 47  # present
DESC_L: Final = 1 << 53  # 64-bit code
DESC_DB: Final = 1 << 54  # 32-bit
DESC_G: Final = 1 << 55  # the limit counts 4 KiB pages
DESC_SIZE: Final = 8  # bytes

PAGE_SIZE: Final = 0x1000  # bytes
IO_PORTS: Final = 1 << 16  # SDM volume 1, 19.3
REAL_SEGMENT: Final = 1 << 16  # bytes that an offset of 16 bits reaches
HLT: Final = b"\xf4"  # the instruction
CPUID: Final = b"\x0f\xa2"
RDTSC: Final = b"\x0f\x31"
SYSCALL: Final = b"\x0f\x05"
INSTRUCTION_MAX: Final = 15  # bytes; a longer one is #GP: SDM volume 2A, 2.3.11
FLAT_LIMIT: Final = 0xFFFFFFFF


def descriptor(base: int, limit: int, kind: int, bits: int) -> int:
    """A segment descriptor as a 64-bit number.

    `limit` is in bytes, or in 4 KiB pages where `bits` has DESC_G; `kind` is the type field, `bits` the DESC_* attributes.
    """
    if not 0 <= limit <= 0xFFFFF or not 0 <= base <= 0xFFFFFFFF:
        raise ValueError(f"base {base:#x} or limit {limit:#x} does not fit a descriptor")
    return (
        (limit & 0xFFFF) | (base & 0xFFFFFF) << 16 | kind << DESC_TYPE_SHIFT | bits | (limit >> 16) << 48 | (base >> 24) << 56
    )


SEGMENT_NAMES: Final = ("cs", "ds", "es", "ss", "fs", "gs")


class Segment(NamedTuple):
    """A segment register with its hidden part: `base` and `limit` (its last byte) in bytes, `type` the type field."""

    selector: int
    base: int
    limit: int
    type: int
    s: bool
    present: bool
    db: bool
    long: bool
    g: bool


ATTRIBUTE_SHIFT: Final = 32  # QEMU keeps a segment's attributes where the descriptor's upper half has them


def segment_from_attributes(selector: int, base: int, limit: int, attributes: int) -> Segment:
    """A segment register from QEMU's form of its hidden part: `attributes` is the upper half of a descriptor."""
    bits = attributes << ATTRIBUTE_SHIFT
    return Segment(
        selector & 0xFFFF,
        base,
        limit,
        bits >> DESC_TYPE_SHIFT & 0xF,
        bool(bits & DESC_S),
        bool(bits & DESC_P),
        bool(bits & DESC_DB),
        bool(bits & DESC_L),
        bool(bits & DESC_G),
    )


# The legacy MTRRs: CPUID.01H:EDX says whether there are any.
CPUID_FEATURES_LEAF: Final = 1
CPUID_1_EDX_TSC: Final = 1 << 4
CPUID_1_EDX_MTRR: Final = 1 << 12
CPUID_1_ECX_RDRAND: Final = 1 << 30

# CPUID.01H:EBX has the number of logical processors of the package and the local APIC's ID in its upper two bytes; of the
# leaves for extended topology EDX is the ID (SDM volume 2A, "CPUID").
CPUID_1_EBX_ID: Final = 0xFF << 24
CPUID_1_EBX_COUNT: Final = 0xFF << 16
CPUID_1_EBX_COUNT_ONE: Final = 1 << 16
CPUID_TOPOLOGY_LEAVES: Final = (0x0B, 0x1F)
MSR_EFER: Final = 0xC0000080
# SYSCALL: its selectors, with its entry in legacy mode in the lower half; its entries from 64-bit and from compatibility mode;
# the flags that it clears (SDM volume 3A, 6.8.8; AMD64 volume 2, 6.1.1).
MSR_STAR: Final = 0xC0000081
MSR_LSTAR: Final = 0xC0000082
MSR_CSTAR: Final = 0xC0000083
MSR_FMASK: Final = 0xC0000084
STAR_SYSCALL_SHIFT: Final = 32  # CS; SS is the descriptor behind it
MSR_MTRR_DEF_TYPE: Final = 0x2FF
# Those that a piece of firmware could change to lasting effect, by the names of the SDM.
KEPT_MSRS: Final = {"IA32_MTRR_DEF_TYPE": MSR_MTRR_DEF_TYPE, "IA32_PAT": 0x277, "IA32_EFER": MSR_EFER, "IA32_APIC_BASE": 0x1B}
# The ranges' bases and masks, and the fixed ranges: SDM volume 4, table 2-2 (eight ranges, as QEMU and Unicorn have).
MTRRS: Final = (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270))
MTRR_DEF_TYPE_ENABLE: Final = 1 << 11
MTRR_DEF_TYPE_FIXED: Final = 1 << 10  # the fixed ranges count, too
MTRR_TYPE_WRITE_BACK: Final = 6
# What a handoff leaves there: MTRRs on, no ranges (the fixed ones off), everything write-back.
MTRR_DEF_TYPE_WRITE_BACK: Final = MTRR_DEF_TYPE_ENABLE | MTRR_TYPE_WRITE_BACK

# The processor after a reset (SDM table 10-1). Execution starts at CS base + IP, 16 bytes below 4 GiB.
RESET_CS_SELECTOR: Final = 0xF000
RESET_CS_BASE: Final = 0xFFFF0000
RESET_IP: Final = 0xFFF0
RESET_VECTOR: Final = RESET_CS_BASE + RESET_IP
RESET_CR0: Final = CR0_CD | CR0_NW | CR0_ET
RESET_EFLAGS: Final = EFLAGS_FIXED
RESET_EDX: Final = 0x600  # family 6, the signature that KVM and QEMU leave there; stepping and model vary

RESET_CS: Final = Segment(
    RESET_CS_SELECTOR, RESET_CS_BASE, 0xFFFF, TYPE_CODE | TYPE_READABLE | TYPE_ACCESSED, True, True, False, False, False
)
RESET_DATA: Final = Segment(0, 0, 0xFFFF, TYPE_WRITABLE | TYPE_ACCESSED, True, True, False, False, False)
RESET_TR: Final = Segment(0, 0, 0xFFFF, TYPE_TSS32_BUSY, False, True, False, False, False)
RESET_LDTR: Final = Segment(0, 0, 0xFFFF, 0x2, False, True, False, False, False)
RESET_TABLE_LIMIT: Final = 0xFFFF  # of GDTR and IDTR, whose base is 0

# The x86 physical address space that our machines use.
ADDRESS_4G: Final = 1 << 32
