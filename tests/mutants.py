"""Broken firmwares, each with one classic mistake, and what must be said of it. One table, for whoever needs it.

A mutant replaces a piece of one of the firmware's source files. `clauses` are all clauses that the check must name, in its
order; `fault` is the label at or behind which the run must end in a fault instead.
"""

from typing import NamedTuple

from pvhboot.shim.image import asm_source


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    clauses: tuple[str, ...] = ()
    fault: str = ""

    def sources(self) -> dict[str, str]:
        """What `build` takes as `sources`; fails if the firmware no longer has the piece, exactly once."""
        text = asm_source(self.file)
        assert text.count(self.old) == 1, f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}"
        return {self.file: text.replace(self.old, self.new)}


ENTRY = 0x40000  # of the kernel that the mutants boot: below 1 MiB, where a segment without G still reaches

_LTR = "    mov eax, SEL_TSS\n    ltr ax\n"
_EBX = "    mov ebx, START_INFO_PADDR\n"
_JUMP = "    jmp dword ptr [PARAMS_PADDR + PARAMS_HEADER_ENTRY]\n"
_FAR_JUMP = f"    ljmp SEL_CODE32, {ENTRY:#x}\n"
_NO_START_INFO = (
    ("start_info.location", "start_info.magic", "start_info.fields", "memmap.location", "memmap.count", "memmap.ram")
    + ("modules.list", "cmdline", "memory.disjoint")
)  # fmt: skip
_MTRR = "    wrmsr\n"

MUTANTS = (
    # Before the handoff such a CS cannot even reach this ROM; a firmware that reloads it last gets to a kernel below 1 MiB.
    Mutant("cs-limit-without-g", "handoff.s", _JUMP, "    and byte ptr [GDT_PADDR + 14], 0x7f\n" + _FAR_JUMP, ("cpu.cs",)),
    Mutant("cs-16-bit", "handoff.s", _JUMP, "    and byte ptr [GDT_PADDR + 14], 0xbf\n" + _FAR_JUMP, ("cpu.cs",)),
    Mutant(
        "es-limit-without-g",
        "handoff.s",
        _EBX,
        _EBX + "    and byte ptr [GDT_PADDR + 22], 0x7f\n    mov eax, SEL_DATA32\n    mov es, eax\n",
        ("cpu.es",),
    ),
    Mutant("cs-not-readable", "tables.s", ".quad DESC_CODE32", ".quad DESC_CODE32 & ~(1 << 41)", ("cpu.cs",)),
    Mutant("tr-missing", "handoff.s", _LTR, "", ("cpu.tr",)),
    Mutant("tss-limit-one-short", "tables.s", ".quad DESC_TSS", ".quad DESC_TSS - 1", ("cpu.tr",)),
    Mutant("cd-nw-left-set", "realmode.s", "    mov eax, CR0_PE\n", "    mov eax, cr0\n    or eax, CR0_PE\n", ("cpu.cr0",)),
    Mutant("cr4-pse", "handoff.s", _EBX, "    mov eax, 0x10\n    mov cr4, eax\n" + _EBX, ("cpu.cr4",)),
    Mutant("interrupts-on", "handoff.s", _EBX, _EBX + "    sti\n", ("cpu.eflags",)),
    Mutant("mtrr-left-uncached", "handoff.s", _MTRR, "", ("cpu.mtrr",)),
    Mutant(
        "ebx-clobbered",
        "handoff.s",
        _EBX,
        _EBX + "    mov ebx, 0x2badb000\n",
        _NO_START_INFO,
    ),
    Mutant(
        "magic-wrong",
        "start_info.s",
        "], XEN_HVM_START_MAGIC_VALUE",
        "], XEN_HVM_START_MAGIC_VALUE + 1",
        ("start_info.magic",),
    ),
    Mutant("version-0", "start_info.s", "], HVM_START_INFO_VERSION_VALUE", "], 0", ("start_info.fields",)),
    Mutant(
        "memmap-count-one-too-many",
        "start_info.s",
        "    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], eax\n",
        "    inc eax\n    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], eax\n",
        ("memmap.count", "memmap.entries", "memmap.sorted"),
    ),
    Mutant(
        "memmap-count-one-too-few",
        "start_info.s",
        "    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], eax\n",
        "    dec eax\n    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], eax\n",
        ("memmap.count",),
    ),
    Mutant(
        "start-info-at-0",
        "handoff.s",
        _EBX,
        "    mov esi, START_INFO_PADDR\n    xor edi, edi\n    mov ecx, SIZEOF_HVM_START_INFO / 4\n"
        "    rep movsd\n    xor ebx, ebx\n",
        ("start_info.location",),
    ),
    Mutant(
        "start-info-in-rom",
        "handoff.s",
        _EBX,
        "    mov ebx, offset rom_gdt\n",
        _NO_START_INFO,
    ),
    Mutant("store-to-rom", "handoff.s", _EBX, "    mov dword ptr [rom_gdt], 1\n" + _EBX, ("rom.unwritten",)),
    Mutant("cmdline-dropped", "start_info.s", "], STRINGS_PADDR\nstart_info_done", "], 0\nstart_info_done", ("cmdline",)),
    Mutant(
        "kernel-overwritten",
        "handoff.s",
        _EBX,
        "    inc dword ptr [0x40004]\n" + _EBX,
        ("memory.payload",),
    ),
    Mutant(
        "gdt-one-byte-short",
        "tables.s",
        "rom_gdtr:\n    .word GDT_SIZE - 1",
        "rom_gdtr:\n    .word 0x16",
        fault="protected_mode",
    ),
    Mutant(
        "tss-out-of-the-gdt",
        "tables.s",
        "ram_gdtr:\n    .word GDT_SIZE - 1",
        "ram_gdtr:\n    .word 0x1e",
        fault="start_info_done",
    ),
)
