"""The chapters on the processor: from the reset to flat 32-bit code, and what the ABI asks for at the end.

The sections of Intel's SDM are those of its editions since December 2022.
"""

from typing import Final

from . import division as names
from .outline import Outline, When

CPU_CHAPTERS: Final = (
    Outline(
        names.RESET,
        "Where the first instruction comes from",
        (
            "A processor that leaves its reset has no program. It fetches the first instruction from a fixed place, the "
            "physical address {vector:#x}, which is {below_4g} bytes below 4 GiB, and the board must have put something there "
            "that is not lost when the power is off: a ROM. Here it has {rom_size} and spans {rom_start:#x} to {rom_last:#x}. "
            "So the first instruction is among the last {below_4g} bytes of the ROM, and all that fits there is a jump to "
            "where the rest is.",
            "The processor is in real mode, as if it were an 8086 of 1978. There, a segment register holds a sixteenth of the "
            "address at which a segment begins: CS {cs:#06x} and IP {ip:#06x} would make {cs:#x} × 16 + {ip:#x}, which is "
            "{naive:#x}, just below 1 MiB. That is not where it fetches. Each segment register has a hidden part with the base "
            "that is really added, and it is when the register is loaded that the hidden base is set to the sixteenfold. The "
            "reset is no load. It sets both parts, the visible one to {cs:#06x} and the hidden base to {cs_base:#x}; base plus "
            "IP is {vector:#x}.",
            "That lasts until CS is loaded for the first time. A far jump in real mode, with the same CS, would set the base "
            "to {cs_sixteen:#x}, and the ROM below 4 GiB would be out of reach. A near jump leaves CS alone, and an offset of "
            "16 bits reaches all of the last 64 KiB.",
            When(
                "low_rom",
                "This board shows the end of the ROM a second time below 1 MiB, from {low_rom_start:#x} to {low_rom_last:#x}: "
                "for a firmware that does load CS in real mode, and then goes on there with the same bytes.",
            ),
            When("low_rom", "This board shows the ROM at no other place: below 1 MiB there is RAM.", unless=True),
            When("copy_used", "Of the {instructions_text} that follow, {low_instructions} are fetched from that copy."),
        ),
        (
            "Intel SDM volume 3A, 10.1.1 and table 10-1 (the state after a reset), 10.1.4 (the first instruction)",
            "Intel SDM volume 3A, 3.4.3 (segment registers and their hidden part)",
        ),
        exhibits=("reset state", "layout"),
    ),
    Outline(
        names.A20,
        "A gate that stands open",
        (
            "The 8086 had twenty address lines, A0 to A19. Beyond 1 MiB its addresses began at 0 again, and some programs made "
            "use of that. The 80286 had more lines, and with them those programs broke. So IBM put a gate into line A20 of the "
            "PC AT, worked by a spare pin of the keyboard controller. While it is closed, bit 20 of every address is 0: "
            "0x100000 is the same byte as 0. The BIOS of a PC closed the gate before it started anything, and for decades a "
            "boot loader's first care was to open it.",
            When(
                "kernel_needs_a20",
                "It would matter here: the kernel has been put at {kernel_start:#x} to {kernel_last:#x}, and bit 20 is 1 in "
                "addresses of it.",
            ),
            When(
                "a20_touched",
                "But the gate is open after the reset: bit 20 is 1 in {vector:#x}, too, and from there the first instruction "
                "has come. So there is nothing to do, and this firmware does nothing: in all that is told here, no access goes "
                "to the keyboard controller (ports {i8042_data:#x} and {i8042_command:#x}) or to its faster successor, port "
                "{port_92:#x}.",
                unless=True,
            ),
            When(
                "a20_touched",
                "But the gate is open after the reset: bit 20 is 1 in {vector:#x}, too, and from there the first instruction "
                "has come. This firmware goes to a port of the gate all the same: {a20_access} comes first.",
            ),
        ),
        ("Intel SDM volume 3B, 21.1.1 (addresses in real-address mode, and A20M#)", "IBM PC AT Technical Reference (gate A20)"),
    ),
    Outline(
        names.GDT,
        "The GDT, bit by bit",
        (
            "In protected mode a segment register holds a selector, which is no part of an address: it is an index into a "
            "table, the global descriptor table or GDT. Each entry, a descriptor, has 8 bytes that say where a segment begins "
            "(its base), where it ends (its limit, the offset of the last byte), and what may be done with it. The index is in "
            "the upper 13 bits of a selector; the lower 3 say which table is meant, and with what privilege. While these are "
            "0, a selector is also the offset of its descriptor: 0x10 is that with the index 2.",
            "Where the table lies the processor knows from the register GDTR, and lgdt loads that: a limit of 16 bits and a "
            "base of 32.",
            When(
                "has_gdt",
                "Here the table begins at {gdt_base:#x}{gdt_where}, and its limit is {gdt_limit:#x}. That is the offset of the "
                "last byte, one less than the size: {gdt_size}.",
            ),
            "The fields of a descriptor lie in pieces, for a reason of history. The 80286 had bases of 24 bits and limits of "
            "16, in 6 bytes, and wanted 0 in the last 2. That is where the 80386 put the rest of base and limit.",
            When(
                "flat",
                "32-bit code and data begin at 0 and reach to {flat_limit:#x}. This is the flat model: 32-bit code cannot do "
                "without segments, but with these an offset is the address, and one can forget them. The ABI asks for it, and "
                "a kernel relies on it.",
            ),
            When(
                "accessed",
                "The processor marks a descriptor that it loads as accessed, by a store into the table. The ROM cannot take "
                "that store, so here the bit is 1 from the start.",
            ),
            When(
                "gdt_by_cs",
                "lgdt reads limit and base from the ROM, and through CS: DS still reaches the first 64 KiB only.",
            ),
            When(
                "lgdt_wide",
                "There are two forms of it in 16-bit code. This is the one with 32-bit operands, which loads all of the base; "
                "the other one loads 24 bits.",
            ),
            When(
                "lgdt_narrow",
                "There are two forms of it in 16-bit code. This is the one with 16-bit operands, which loads 24 bits of the "
                "base, and leaves 0 in the 8 above them.",
            ),
        ),
        (
            "Intel SDM volume 3A, 2.4.1 (GDTR), 3.2.1 (the flat model), 3.4.2 (selectors)",
            "Intel SDM volume 3A, 3.4.5 and figure 3-8 (descriptors), table 3-1 (types)",
        ),
        exhibits=("gdt",),
    ),
    Outline(
        names.PROTECTED,
        "CR0.PE and the far jump",
        (
            "Protected mode is one bit: PE in the control register CR0. But setting it moves nothing. The hidden part of CS is "
            "what it was, base {mode_cs_base:#x} and 16-bit code, and so the next instruction comes from where it would have "
            "come from anyway. Only from now on, whoever loads a segment register has its selector looked up in the GDT.",
            When(
                "new_cs",
                "The far jump is that load. Selector {new_cs:#x} brings the hidden part with it: base {new_cs_base:#x}, limit "
                "{new_cs_limit:#x}, 32-bit. With the very next instruction, at {protected_at:#x}, the processor decodes 32-bit "
                "code, in which the same bytes mean other instructions than in 16-bit code.",
            ),
            When(
                "jump_wide",
                "The jump itself is 16-bit code still, and is told by a prefix that its offset has 32 bits. With 16 of them it "
                "would go to {cut_target:#x}.",
            ),
            When(
                "caches_on_too",
                "The reset has set two more bits of CR0, CD (cache disable) and NW (not write-through), and whoever only adds "
                "PE keeps them. The ABI wants every bit of CR0 but PE to be 0; ET is 1 whatever one writes. So the same store "
                "does both: protected mode on, CD and NW off.",
            ),
            When(
                "caches_left_off",
                "CD and NW are 1 since the reset, and are still 1 now: the caches are off until somebody clears them.",
            ),
            "Interrupts are off since the reset. There is no table of handlers yet: an exception could not be delivered, nor "
            "the double fault that comes of it, and at that the processor shuts down. That is a triple fault.",
        ),
        (
            "Intel SDM volume 3A, 2.5 (CR0), 10.9.1 (switching to protected mode)",
            "Intel SDM volume 3A, 12.5.1 and table 12-5 (what CD and NW do)",
            "Xen docs/misc/pvh.pandoc, machine state (CR0 at the entry)",
        ),
    ),
    Outline(
        names.FLAT,
        "Flat segments and a stack",
        (
            "The far jump has loaded CS alone. The other segment registers hold what the reset left in their hidden parts: "
            "base 0, limit {reset_limit:#x}. A load from 1 MiB through DS would fault.",
            When(
                "flat_data",
                "So DS, ES and SS get the selector {ds:#x}, the flat data segment: DS for nearly all loads and stores, ES for "
                "where string instructions write, SS for the stack. FS and GS are left alone: the ABI says nothing of them.",
            ),
            When("flat_data", "DS, ES and SS need the flat data segment. Here not all three of them get it.", unless=True),
            When(
                "has_stack",
                "A stack makes it possible to call. ESP becomes {stack_end:#x}, the end of {stack_size} of RAM that nobody "
                "else uses, and each push goes downwards from there.",
            ),
            "The flag DF says whether string instructions go upwards or downwards. Reset leaves it at 0, upwards; cld makes "
            "sure.",
        ),
        ("Intel SDM volume 3A, 3.2.1 (the flat model), 10.9.1 (the segment registers after the switch)",),
        registers={"esp": "the top of the firmware's stack"},
    ),
    Outline(
        names.TSS,
        "The task register, and a segment that nobody uses",
        (
            "The ABI asks for one more thing of the CPU that looks pointless: the task register TR must hold a 32-bit TSS with "
            "base 0 and limit {tss_limit:#x}. A TSS, task state segment, is memory into which the 80386 could save all "
            "registers when it switched from one task to another. The kernels of today switch by other means, and nobody reads "
            "the bytes at 0 that this one claims.",
            "The ABI does not say why. But Intel's virtualisation (VMX) refuses to enter a guest whose TR holds no busy TSS: "
            "Xen, which makes the first state of its guests, has to put one there, and the ABI writes down what there is then. "
            "A kernel that is entered so may rely on it.",
            When(
                "tr_loaded",
                "ltr loads TR by the selector {tr:#x}, and marks the TSS as busy, so that nobody enters its task twice: bit 41 "
                "of the descriptor goes from 0 to 1, by a store into the GDT.",
            ),
            When(
                "gdt_moved",
                "The ROM cannot take such a store. So the table has moved before: {gdt_bytes} bytes from the ROM to "
                "{ram_gdt:#x} in RAM, and GDTR with it.",
            ),
            When("tr_loaded", "This firmware does not load it: TR is as the reset has left it.", unless=True),
        ),
        (
            "Xen docs/misc/pvh.pandoc, machine state (TR at the entry)",
            "Intel SDM volume 3A, 8.2.1 to 8.2.4 (TSS, its descriptor, the task register)",
            "Intel SDM volume 3C, 27.3.1.2 (checks on the guest's segment registers)",
        ),
        exhibits=("tss",),
    ),
    Outline(
        names.MTRR,
        "What may be cached",
        (
            "That CD is 0 in CR0 is half of what it takes to use the caches. The other half are the MTRRs, the memory type "
            "range registers: what kind of memory lies at which physical addresses. RAM should be write-back, which is cached "
            "for reads and writes; the registers of devices must not be cached at all. After the reset the MTRRs are off, and "
            "while they are off all memory counts as uncached. On real hardware every single access would then go to RAM, some "
            "hundred times slower than a cache.",
            "Not every processor has MTRRs: bit 12 of EDX of CPUID leaf 1 says so, and is asked first.",
            When(
                "has_mtrr",
                "IA32_MTRR_DEF_TYPE (model-specific register {mtrr_msr:#x}) gets {mtrr_value:#x}: bit 11 turns the MTRRs on, "
                "and 6 is write-back, for all that no range says otherwise of. A board with real devices would go on to list "
                "where those are. In a virtual machine an access to a device leaves the guest before any cache could matter.",
            ),
            When("has_mtrr", "Here nothing is written to them.", unless=True),
        ),
        (
            "Intel SDM volume 3A, 12.11 and 12.11.2.1 (MTRRs, IA32_MTRR_DEF_TYPE)",
            "Intel SDM volume 3A, table 12-5 (CR0.CD), volume 2A (CPUID leaf 1)",
        ),
        exhibits=("mtrr",),
    ),
)
