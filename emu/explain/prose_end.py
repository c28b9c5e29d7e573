"""The last chapters: the jump, the kernel, and the judgement; and those of a firmware without sources."""

from typing import Final

from . import division as names
from .outline import Outline, When

LAST_CHAPTERS: Final = (
    Outline(
        names.HANDOFF,
        "What %ebx is, and the jump",
        (
            When(
                "at_handoff",
                "All that the firmware has to tell, it tells by one register: EBX holds the physical address of start_info. "
                "The other general registers mean nothing. The rest of the contract is about the state of the processor: "
                "32-bit protected mode, paging off, CR4 0, interrupts off, flat CS, DS, ES and SS, and a TSS in TR.",
            ),
            When("ebx_leads", "Here EBX is {ebx:#x}, and there start_info lies."),
            When("ebx_astray", "Here EBX is {ebx:#x}. The check of the last chapter says what is wrong with that."),
            When(
                "at_handoff",
                "Where to jump the kernel's file says: an ELF note of the type PHYS32_ENTRY, in which the host has found "
                "{entry:#x}. Nobody ever returns from there, so that a jmp is enough.",
            ),
            When(
                "at_handoff",
                "Here the firmware would enter the kernel, with the address of start_info in EBX. But the kernel's entry, "
                "{entry:#x}, was never reached.",
                unless=True,
            ),
        ),
        (
            "Xen docs/misc/pvh.pandoc, machine state",
            "Xen xen/include/public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY)",
        ),
        registers={"ebx": "where the kernel looks for start_info"},
        exhibits=("handoff",),
    ),
    Outline(
        names.ENTRY,
        "The kernel's first instructions",
        (
            "From here on everything is the kernel's; what it did first stands below, {kernel_shown}.",
            When("kernel_ended", "Then the run has ended: {end}."),
            When(
                "guest",
                "This kernel is pvhboot's own, a conformance guest: it writes each register down before it changes it, then it "
                "checks that and prints it.",
            ),
            "A 64-bit Linux goes on like this: its entry for PVH (pvh_start_xen) loads a GDT of its own, since nobody promises "
            "that the firmware's stays; it copies start_info, turns on paging with page tables that are part of its image, and "
            "with that long mode. Then it rewrites what it was told into boot_params, the form in which other loaders tell it, "
            "and goes on with the same code as after those.",
        ),
        ("Linux arch/x86/platform/pvh/head.S (pvh_start_xen) and enlighten.c (boot_params)",),
        exhibits=("entry",),
    ),
    Outline(
        names.CHECK,
        "What the check says",
        (
            "At the kernel's entry pvhboot has compared the machine with the ABI, clause by clause: the registers, the "
            "segments, start_info and what it leads to, and whether kernel and modules are as they were loaded.",
            When("clean", "{clauses_met}: the handoff is clean, and a kernel that wants no more than the ABI can start."),
            When("clean", "{clauses_met}. What is not met stands below, with the likely cause.", unless=True),
        ),
        (
            "pvhboot docs/check.md (all clauses, and what each kernel needs of them)",
            "Xen docs/misc/pvh.pandoc; xen/include/public/arch-x86/hvm/start_info.h",
        ),
        exhibits=("check", "causes"),
    ),
    Outline(
        names.END,
        "Where it ended",
        (
            "The kernel was never entered. The run ended after {instructions_text}: {end}.",
            When("panic", "The firmware has stopped by itself, and has said why: {panic}."),
            When("cut", "If it was on its way, and not in a loop, --max-instructions or --timeout lets it go on for longer."),
        ),
        ("pvhboot docs/limits.md (how runs end), docs/causes.md (likely causes)",),
        exhibits=("causes", "end state"),
    ),
)

# Of a firmware of which only the bytes are known.
FOREIGN_CHAPTERS: Final = (
    Outline(
        names.SETUP,
        "In 32-bit code, before it asks the host",
        (
            "Nothing is known of this firmware but its bytes, so from here on it is told by what it does: which devices it "
            "speaks to, what it writes to memory, what it changes in the processor. Instructions that do none of it are "
            "counted only.",
            When("fw_cfg_used", "This chapter ends where it first speaks to fw_cfg, by which QEMU tells what to boot."),
        ),
        ("Intel SDM volume 3A, 10.9.1 (what follows the switch to protected mode)",),
    ),
)
