"""What a processor does with an exception: vectors, error codes, the gates of an IDT, the stacks in a TSS.

Source: Intel SDM volume 3A, table 7-1 (vectors), 7.10 and 7.11 (IDT and gates), 7.12 (delivery), 7.13 (error codes), 7.14
(64-bit mode), table 7-5 (double faults), 8.2.1, 8.6 and 8.7 (the TSS of 32, 16 and 64 bits); volume 3B, 21.1.4 (real mode).
"""

from typing import Final

DE: Final = 0
DB: Final = 1
BP: Final = 3
OF: Final = 4
UD: Final = 6
DF: Final = 8
TS: Final = 10
NP: Final = 11
SS: Final = 12
GP: Final = 13
PF: Final = 14
AC: Final = 17
MC: Final = 18
VE: Final = 20
CP: Final = 21

VECTOR_NAMES: Final = {
    DE: "#DE divide error",
    DB: "#DB debug",
    2: "NMI",
    BP: "#BP breakpoint",
    OF: "#OF overflow",
    5: "#BR bound",
    UD: "#UD invalid opcode",
    7: "#NM no coprocessor",
    DF: "#DF double fault",
    TS: "#TS invalid TSS",
    NP: "#NP segment not present",
    SS: "#SS stack fault",
    GP: "#GP general protection",
    PF: "#PF page fault",
    16: "#MF x87 floating point",
    AC: "#AC alignment check",
    MC: "#MC machine check",
    19: "#XM SIMD floating point",
}

HAS_ERROR_CODE: Final = frozenset({DF, TS, NP, SS, GP, PF, AC, CP})
# The saved instruction pointer is that of the instruction itself, which can be done again, for all but these.
TRAPS_AND_ABORTS: Final = frozenset({DB, 2, BP, OF, DF, MC})
CONTRIBUTORY: Final = frozenset({DE, TS, NP, SS, GP, CP})
PAGE_FAULTS: Final = frozenset({PF, VE})

# An error code that names a descriptor: its selector's index and table, and these.
ERROR_EXT: Final = 1 << 0  # it happened while an event was delivered that is no int n
ERROR_IDT: Final = 1 << 1  # the index is that of a gate
ERROR_INDEX_SHIFT: Final = 3

# That of a page fault (SDM volume 3A, 5.7).
PF_PRESENT: Final = 1 << 0
PF_WRITE: Final = 1 << 1
PF_USER: Final = 1 << 2
PF_RESERVED: Final = 1 << 3

# Gates: 8 bytes, 16 in long mode. The second doubleword has type, DPL and P as the second one of a descriptor has them.
GATE_SIZE: Final = 8
GATE64_SIZE: Final = 16
GATE_TASK: Final = 0x5
GATE_INTERRUPT16: Final = 0x6
GATE_TRAP16: Final = 0x7
GATE_INTERRUPT: Final = 0xE
GATE_TRAP: Final = 0xF
GATE_IST_MASK: Final = 0x7  # of the second doubleword, in long mode
GATE_BYTES_16: Final = 2  # what each push of a 16-bit gate takes, and of the others
GATE_BYTES_32: Final = 4
GATE_BYTES_64: Final = 8
GATE64_STACK_ALIGN: Final = 16

REAL_VECTOR_SIZE: Final = 4  # IP, CS

# Where a TSS keeps the stack of privilege level 0; those of 1 and 2 follow. SP and SS, ESP and SS, or RSP.
TSS16_SP0: Final = 2
TSS32_ESP0: Final = 4
TSS64_RSP0: Final = 4
TSS64_IST1: Final = 0x24
TSS_TYPE_32_BIT: Final = 1 << 3  # of the type field
