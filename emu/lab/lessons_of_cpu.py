"""Lessons of mistakes on the way from real mode to the kernel: descriptors, modes, control registers.

What is said of qboot and SeaBIOS was measured with those of Debian 12 (qboot's upstream commit 8ca302e); "SDM" is Intel's
Software Developer's Manual, volume 3A.
"""

from typing import Final

from .exercise import Lesson

NO_TASK: Final = Lesson(
    "The kernel boots, and yet the check says that one clause on the CPU is not met.",
    "The kernel's entry is reached, memory is as it should be, and a Linux would run. The PVH ABI lists what each register "
    "holds at the entry, though, and one of them holds what the reset has put there.",
    (
        "Compare what handoff.s promises under `Out` with what its first instructions do.",
        "It is the task register, TR: which instruction loads it, and is it there?",
        "Behind `lgdt [ram_gdtr]` TR has to be loaded with the selector of the TSS, SEL_TSS, by an ltr.",
    ),
    "The ABI asks for a 32-bit TSS with base 0 and limit 0x67 in TR. qboot and SeaBIOS leave it out, too, and nobody has "
    "noticed: neither Linux nor FreeBSD looks at it, both load one of their own. On KVM with VT-x it matters for another "
    "reason: the processor enters a guest with a busy TSS alone, and it is the host that has to make one up.",
    "A contract that nobody checks is broken in silence: a check that goes through all of it, clause by clause, finds it.",
)

SHORT_LIMIT: Final = Lesson(
    "The CPU shuts down a few instructions after it has entered protected mode.",
    "The far jump into 32-bit code works, and so do the instructions behind it, up to the first one that wants another "
    "descriptor. There the CPU raises an exception, which nobody handles.",
    (
        "Which instruction faults, and what does it read from memory? (`pvhboot trace` shows the last ones.)",
        "Compare GDTR's limit with where the descriptor of that selector ends. Who tells the CPU the limit?",
        "The limit in rom_gdtr (tables.s) is the offset of the table's last byte: GDT_SIZE - 1.",
    ),
    "A limit is the last byte that may be touched, not a size and not a count: for N descriptors it is 8 * N - 1 (SDM, "
    '"Segment Descriptor Tables"). One less, and the last descriptor is not wholly inside: a #GP with its selector. The '
    "code segment comes before it in the table, which is why the far jump still works.",
    "A limit is the offset of the last byte: 8 times the number of descriptors, less 1.",
)

CACHES: Final = Lesson(
    "It boots, but on real hardware everything would be many times slower than it should be.",
    "The kernel's entry is reached with all the right values in memory. Under an emulator nothing is to be seen; on a real "
    "CPU each load and each store would go out to memory.",
    (
        "Look at the switch to protected mode in realmode.s, and at the control register that it writes.",
        "What does CR0 hold after a reset (`pvhboot trace` shows it where it is read), and which bits of "
        "that are still set at the end?",
        "CR0 is to be written as a whole: mov eax, CR0_PE, then mov cr0, eax. An or leaves CD and NW set, as the reset sets "
        "them.",
    ),
    "A reset leaves CR0 at 0x60000010: CD and NW are set, and the caches off. The usual `mov eax, cr0; or eax, 1` is right "
    "for a program that a BIOS has started, which has cleared them long since; what runs at the reset vector has to do it "
    "itself. qboot clears both, with an and, in the same place. And the ABI wants every bit but PE clear (ET, bit 4, cannot "
    "be cleared).",
    "At the reset vector nobody has cleaned up before you: write a register as a whole, or know each bit that you keep.",
)

NOT_PRESENT: Final = Lesson(
    "The CPU shuts down at the switch to protected mode.",
    "GDTR is right, CR0.PE is set, and the far jump names the right selector. It does not arrive.",
    (
        "Which selector does the far jump load, and where is its descriptor?",
        "Take that descriptor in tables.s apart, bit by bit: what does the CPU want of a code segment before it loads it?",
        "Bit 47 is P, present. Of a flat 32-bit code segment the descriptor is DESC_CODE32.",
    ),
    "A descriptor is eight bytes in which base and limit are scattered for the sake of the 80286, so they are copied as a "
    "number from somewhere, and a digit goes wrong. 0x1b in place of 0x9b is type 11 (code, readable, accessed) without P: "
    "to load it is a #NP, and as there is no IDT, a triple fault. Build descriptors from named bits, and let something "
    "check them.",
    "The access byte of a flat code segment is 0x9b (or 0x9a): P is its highest bit.",
)

CUT_JUMP: Final = Lesson(
    "After the switch to protected mode the CPU is somewhere where the firmware is not.",
    "The last instruction of the ROM that is executed is the far jump. The CPU goes on, in 32-bit code, at an address in "
    "RAM, where there are zeros; they are instructions, too, and it executes them one after the other.",
    (
        "Compare the address at which the CPU goes on with that of the label protected_mode (in firmware.json).",
        "How many bytes has the offset of a far jump in 16-bit code? Look at its bytes in the trace: ea, then the offset.",
        "It takes a 32-bit offset: data32 ljmp SEL_CODE32, protected_mode.",
    ),
    "In 16-bit code `ea` has an offset of 16 bits and a selector. As long as CS is based at 0xffff0000 that is all that is "
    "needed; the flat segment that the jump loads begins at 0, so the label's whole address has to be in the instruction: "
    "`66 ea`. qboot's far jump has the prefix. A firmware whose code lies below 64 KiB gets along without it, which is how "
    "the mistake is made: the code is moved up, to the ROM at the end of 4 GiB, and the jump stays as it was.",
    "A far jump to a flat segment from 16-bit code needs the operand-size prefix, unless its target lies below 64 KiB.",
)

NOT_RELOADED: Final = Lesson(
    "Under Unicorn the kernel's entry is reached; on KVM the CPU shuts down on the way.",
    "In 32-bit code the firmware reads and writes all over memory. One engine lets it; the other one, and any real CPU, "
    "does not. The check of the first says what is wrong at the kernel's entry.",
    (
        "What is in CS, DS, ES and SS behind the far jump, hidden parts included? (`pvhboot trace` with --changes cs, or ds.)",
        "The far jump loads CS alone. What do the others still hold, and what is their limit?",
        "flat32.s: load SEL_DATA32 into ds, es and ss before the first access to memory.",
    ),
    "Setting CR0.PE changes nothing in the segment registers: each keeps the base and the limit that real mode has given it "
    "until it is loaded again. An access above 64 KiB is then a #GP, or a #SS through SS. Unicorn (and QEMU's TCG, from "
    "which it comes) does not check the limits of data segments, so a firmware that was only ever run there seems right. "
    'After the far jump, reload them all, says Intel (SDM, "Switching to Protected Mode").',
    "An emulator that is more lenient than the CPU hides mistakes: test on two engines.",
)

CUT_TABLE: Final = Lesson(
    "The CPU shuts down where it should enter 32-bit code, though all descriptors are right.",
    "The table in the ROM is as it should be, bit by bit; the CPU finds another one. The lgdt was written by hand, as the "
    "assembler would not take it.",
    (
        "What does GDTR hold after the lgdt, and where does the table lie (the label rom_gdt)?",
        "Which 8 bits are missing? What decides how many bits of the base lgdt loads in 16-bit code?",
        "The instruction needs the operand-size prefix, 66 (or, for the assembler: lgdtd), to load all 32 bits of the base.",
    ),
    "With a 16-bit operand size lgdt and lidt load 24 bits of the base and set the upper 8 to 0: the 80286 had no more. "
    "Below 16 MiB nobody notices, so boot sectors get along with it; a ROM that ends at 4 GiB does not. qboot's lgdt has "
    "the prefix: 2e 66 0f 01 16. Here the assembler refuses the short form, and somebody has gone around it.",
    "In 16-bit code lgdt drops the upper 8 bits of the base, unless it has the operand-size prefix.",
)
