"""The table of broken firmwares, each with one classic mistake, and what must be said of it: what the tests of the handoff
judge, and what the exercises are rows of. Those that reach no kernel are in astray.py.
"""

from typing import Final

from pvhboot.shim.machines import MICROVM, MICROVM_ACPI, Q35

from .mutant import Mutant

ENTRY: Final = 0x40000  # of the kernel that the mutants boot: below 1 MiB, where a segment without G still reaches

_LTR = "    mov eax, SEL_TSS\n    ltr ax\n"
_EBX = "    mov ebx, START_INFO_PADDR\n"
_SERIALISED = (
    "    xor eax, eax\n    cpuid                               # serialises: the kernel's code has just been written\n"
)
_JUMP = "    jmp dword ptr [ENTRY_POINTER]\n"
_FAR_JUMP = f"    ljmp SEL_CODE32, {ENTRY:#x}\n"
_NO_START_INFO = (
    ("start_info.location", "start_info.magic", "start_info.fields", "memmap.location", "memmap.count", "memmap.ram")
    + ("acpi.tables", "modules.list", "cmdline", "memory.disjoint")
)  # fmt: skip
_MTRR = "    wrmsr\n"
_COUNT = "    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], ebx\n"

_BARE_MUTANTS = (
    # Before the handoff such a CS cannot even reach this ROM; a firmware that reloads it last gets to a kernel below 1 MiB.
    Mutant("cs-limit-without-g", "handoff.s", _JUMP, "    and byte ptr [GDT_PADDR + 22], 0x7f\n" + _FAR_JUMP, ("cpu.cs",)),
    Mutant("cs-16-bit", "handoff.s", _JUMP, "    and byte ptr [GDT_PADDR + 22], 0xbf\n" + _FAR_JUMP, ("cpu.cs",)),
    Mutant(
        "es-limit-without-g",
        "handoff.s",
        _EBX,
        _EBX + "    and byte ptr [GDT_PADDR + 30], 0x7f\n    mov eax, SEL_DATA32\n    mov es, eax\n",
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
        _EBX + _SERIALISED,
        _NO_START_INFO,
    ),
    Mutant(
        "magic-wrong",
        "start_info.s",
        "], XEN_HVM_START_MAGIC_VALUE",
        "], 0x336ec587",
        ("start_info.magic",),
    ),
    Mutant("version-0", "start_info.s", "], HVM_START_INFO_VERSION_VALUE", "], 0", ("start_info.fields",)),
    Mutant(
        "memmap-count-one-too-many",
        "start_info.s",
        _COUNT,
        "    inc ebx\n" + _COUNT,
        ("memmap.count", "memmap.entries", "memmap.sorted"),
    ),
    Mutant(
        "memmap-count-one-too-few",
        "start_info.s",
        _COUNT,
        "    dec ebx\n" + _COUNT,
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
    Mutant("cmdline-dropped", "start_info.s", "CMDLINE_PADDR], esi", "CMDLINE_PADDR], 0", ("cmdline",)),
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
        "rom_gdtr:\n    .word GDT_SIZE - 2",
        fault="protected_mode",
    ),
    Mutant(
        "tss-out-of-the-gdt",
        "tables.s",
        "ram_gdtr:\n    .word GDT_SIZE - 1",
        "ram_gdtr:\n    .word 0xe",
        fault="start_info_done",
    ),
)


def _microvm(
    name: str,
    file: str,
    old: str,
    new: str,
    *clauses: str,
    panic: str = "",
    dma: bool = True,
    dirty: bool = False,
    refused: bool = False,
) -> Mutant:
    return Mutant(name, file, old, new, clauses, "", panic, MICROVM, dma, dirty, refused)


def _q35(name: str, file: str, old: str, new: str, *clauses: str, panic: str = "") -> Mutant:
    return Mutant(name, file, old, new, clauses, panic=panic, machine=Q35)


_SELECT_E820 = "    or eax, FW_CFG_READ_SELECTED\n"
_CUT = """\
    sub dword ptr [esi + E820_ENTRY_SIZE], LOW_HOLE_END
    sbb dword ptr [esi + E820_ENTRY_SIZE + 4], eax
"""
_HIGH = """\
    mov ecx, dword ptr [esi + MACHINE_HIGH_WORDS - MACHINE_HIGH]
    rep movsd
"""
_HOST_MAP = "    mov esi, E820_PADDR\n    xor edx, edx"
_LOW_TYPE = "MEMMAP_PADDR + SIZEOF_HVM_MEMMAP_ENTRY + HVM_MEMMAP_ENTRY_TYPE"  # of the range in front of 1 MiB
_MOVED = "    mov dword ptr [esi + E820_ENTRY_ADDR], LOW_HOLE_END\n"
_KEY = "    movzx eax, word ptr [esi + FW_CFG_FILE_SELECT] "
_LINE = "    mov esi, edi\ncmdline_done"
_FETCH = "    call ebp\n    mov edi, MODLIST_PADDR\n"
_RESERVED = "    mov dword ptr [edi + HVM_MODLIST_ENTRY_RESERVED + 4], eax\n"
_INITRD = "initrd_free:\n\n    mov edi, eax\n"
_ABOVE = """\
initrd_free:

# Out of the kernel's way: where RAM ends, if some of it lies behind the hole in front of 4 GiB.
    imul edi, ebx, SIZEOF_HVM_MEMMAP_ENTRY
    add edi, MEMMAP_PADDR - SIZEOF_HVM_MEMMAP_ENTRY # the last range
    cmp dword ptr [edi + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne initrd_placed
    mov eax, dword ptr [edi + HVM_MEMMAP_ENTRY_ADDR]
    add eax, dword ptr [edi + HVM_MEMMAP_ENTRY_SIZE]
    sub eax, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    and eax, 0xfffff000
    mov dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR], eax
initrd_placed:

    mov edi, eax
"""
_SIZE = "FW_CFG_NUMBER INITRD_SIZE, MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE\n"

_MICROVM_MUTANTS = (
    # What fw_cfg says in big-endian order, and what it wants so.
    _microvm("file-size-not-swapped", "e820.s", "    bswap ecx\n", "", panic="E820_COUNT"),
    _microvm("file-count-not-swapped", "e820.s", "    bswap ebx\n", "", panic="FW_CFG_FILES"),
    _microvm("file-key-not-swapped", "e820.s", _KEY, _KEY + "\n    xchg al, ah\n", panic="E820_LOW"),
    _microvm("dma-register-not-swapped", "fw_cfg_read.s", "FW_CFG_DMA_PADDR_SWAPPED", "FW_CFG_DMA_PADDR", panic="FW_CFG_DMA"),
    _microvm("dma-address-not-swapped", "fw_cfg_read.s", "mov eax, edi\n    bswap eax\n", "mov eax, edi\n", panic="NO_E820"),
    # The protocol.
    _microvm("dma-never-started", "fw_cfg_read.s", "edx, FW_CFG_DMA_LOW_PORT", "edx, FW_CFG_DMA_PORT", panic="FW_CFG_DMA"),
    _microvm("dma-error-ignored", "fw_cfg_read.s", "jnz fw_cfg_dma_failed", "jnz 2f", "memory.payload", refused=True),
    _microvm("pio-moves-the-pointer", "fw_cfg_read.s", "    pop edi\n", "    pop eax\n", panic="NO_FW_CFG", dma=False),
    _microvm("file-not-selected", "e820.s", _SELECT_E820, "    mov eax, FW_CFG_READ_ON\n", panic="E820_LOW"),
    # The memory map.
    _microvm(
        "memmap-count-one-too-many",
        "e820.s",
        "    mov ebx, eax\n",
        "    lea ebx, [eax + 1]\n",
        *("memmap.count", "memmap.entries", "memmap.sorted"),
    ),
    _microvm("memmap-unsorted", "e820.s", "e820_sort:\n", "    jmp e820_sorted\ne820_sort:\n", "memmap.sorted", "memmap.plan"),
    _microvm(
        "low-rom-as-ram", "e820.s", _HOST_MAP, f"    mov dword ptr [{_LOW_TYPE}], 1\n{_HOST_MAP}", "memmap.ram", "memmap.plan"
    ),
    _microvm("rom-left-out", "e820.s", _HIGH, "", "memmap.count", "memmap.plan"),
    _microvm("ram-from-0-left-there", "e820.s", _MOVED, "", panic="E820_OVERLAP"),
    _microvm("ram-from-0-not-cut", "e820.s", _CUT, "", "memmap.ram", "memmap.plan"),
    # The ROM can be written here, so nobody sees a store to it: only what it has changed.
    _microvm("store-to-rom", "handoff.s", _EBX, "    mov dword ptr [rom_gdt], 1\n" + _EBX, "rom.unwritten"),
    _microvm("store-to-low-rom", "handoff.s", _EBX, "    mov dword ptr [0xf0000], 1\n" + _EBX, "rom.unwritten"),
    # Command line and initrd.
    _microvm("cmdline-one-too-far", "fw_cfg_kernel.s", _LINE, "    lea esi, [edi + 1]\ncmdline_done", "cmdline"),
    _microvm("cmdline-size-as-its-address", "fw_cfg_kernel.s", _LINE, "cmdline_done", "cmdline"),
    _microvm(
        "initrd-size-forgotten", "fw_cfg_kernel.s", _SIZE, "FW_CFG_NUMBER INITRD_SIZE, FW_CFG_WORD_PADDR\n", panic="INITRD_RAM"
    ),
    _microvm("initrd-not-told", "fw_cfg_kernel.s", "mov edx, 1\ninitrd_done", "xor edx, edx\ninitrd_done", "modules.list"),
    _microvm("initrd-not-fetched", "fw_cfg_kernel.s", _FETCH, "    mov edi, MODLIST_PADDR\n", "memory.payload"),
    _microvm(
        "initrd-a-byte-short",
        "fw_cfg_kernel.s",
        "    bswap ecx\n" + _FETCH,
        "    dec ecx\n    bswap ecx\n" + _FETCH,
        "memory.payload",
    ),
    _microvm(
        "initrd-over-the-kernel",
        "fw_cfg_kernel.s",
        _INITRD,
        "initrd_free:\n\n    mov edi, dword ptr [KERNEL_ADDR_PADDR]\n",
        "memory.payload",
    ),
    _microvm("initrd-above-4-gib-cut", "fw_cfg_kernel.s", _INITRD, _ABOVE, "modules.entries", "memory.payload"),
    _microvm("modlist-rest-not-cleared", "fw_cfg_kernel.s", _RESERVED, "", "modules.entries", dirty=True),
)

_TABLES = """\
    mov ecx, eax
    sub ecx, LOW_HOLE_END               # what is left of the RAM
    xchg ecx, dword ptr [ACPI_RAM + HVM_MEMMAP_ENTRY_SIZE]
"""
_NOT_CUT = "    mov ecx, dword ptr [ACPI_RAM + HVM_MEMMAP_ENTRY_SIZE]\n"

_MICROVM_ACPI_MUTANTS = (
    Mutant(
        "tables-in-the-ram-as-well",
        "acpi.s",
        _TABLES,
        _NOT_CUT,
        ("memmap.count", "memmap.disjoint", "memmap.ram", "memmap.plan"),
        machine=MICROVM_ACPI,
    ),
)

_STORES = "    call config_stores\n"

_Q35_MUTANTS = (
    # The chipset as it is after a reset: there is no memory in front of 1 MiB for tables, and DMA says so.
    _q35("pam-left-as-it-was", "chipset.s", _STORES, "", panic="FW_CFG_DMA"),
    # The memory map.
    _q35("ecam-left-out", "e820.s", _HIGH, "    mov ecx, SIZEOF_HVM_MEMMAP_ENTRY / 4\n    add esi, 24\n    rep movsd\n",
         "memmap.count", "memmap.plan"),
    _q35("video-memory-as-ram", "e820.s", _HOST_MAP, f"    mov dword ptr [MEMMAP_PADDR + 8], 0xf0000\n{_HOST_MAP}",
         "memmap.disjoint", "memmap.ram", "memmap.plan"),
    _q35("rsdp-not-told", "start_info.s", "HVM_START_INFO_RSDP_PADDR], eax\n.endif", "HVM_START_INFO_RSDP_PADDR], 0\n.endif",
         "acpi.tables"),
)  # fmt: skip

MUTANTS: Final = _BARE_MUTANTS + _MICROVM_MUTANTS + _MICROVM_ACPI_MUTANTS + _Q35_MUTANTS
