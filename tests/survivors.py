"""The mutants of pvhboot's firmwares that no scenario notices (tests/mutation.py), and why none can.

A change is named by its operator and its number among those that this operator makes of the instruction (emu/vary/mutants.py),
from 0: the first of a constant is one more, the next one less, then 0, then its highest bit flipped; what is the same as
another or as the original is left out. tests/emu/test_mutation_score.py fails for a survivor that is not here, and for one here
that is noticed.
"""

from typing import NamedTuple


class Survivor(NamedTuple):
    """Instructions by the label before them and their source. `changes` are those that nobody notices, `why` the reason,
    `firmwares` where."""

    label: str
    text: str
    changes: tuple[str, ...]
    why: str
    firmwares: tuple[str, ...] = ("bare", "microvm")


_BARE, _MICROVM = ("bare",), ("microvm",)
_SELECTOR = "a selector has 16 bits: the upper half of the register says nothing"
_DIRECTION = "the direction flag is clear after a reset, and nothing sets it"
_CPUID = "it takes a CPU without MTRRs, or one whose CPUID says otherwise, and Unicorn's is one only"
_NEXT = "what it jumps to comes next"
_INTERRUPTS = "interrupts are off after a reset, and nothing lets them on"
_CONTROL = "fw_cfg does not look at that bit, unless an item is selected or written to"
_SHIFT = "a processor looks at the lowest five bits of a shift's count"
_PORT = "a port has 16 bits"
_OVER_ZEROS = "the entry that was there before, the hole in front of 1 MiB, has 0 there"
_FIRST = "the processor that Unicorn has has the APIC id 0"
_BESIDE = "what is cleared too much is written later, what is not is 0 already"
_AT_ONCE = "under Unicorn the other processors are a device, which has answered before it is asked"
_TWICE = "its caller here has made sure of that already"
_NO_ACPI = "without ACPI there is no RSDP to tell of: it is 0, as all around"
_ROUNDED = "the division by the size of an entry drops it"
_FIELDS = (
    *("FLAGS", "MODLIST_PADDR", "MODLIST_PADDR + 4", "CMDLINE_PADDR + 4", "RSDP_PADDR", "RSDP_PADDR + 4"),
    *("MEMMAP_PADDR + 4", "RESERVED"),
)

SURVIVORS = (
    Survivor("protected_mode", "mov eax, SEL_DATA32", ("constant 3",), _SELECTOR),
    Survivor("protected_mode", "cld", ("drop 0",), _DIRECTION),
    Survivor(
        "protected_mode",
        "cmp ecx, PARAMS_MAX_SIZE",
        ("constant 0", "constant 1", "constant 3"),
        "it keeps the sum below from wrapping: strings that are longer than the room by less are too long for that, too",
        _BARE,
    ),
    Survivor("strings_done", "xor eax, eax", ("drop 0", "register 0", "register 1"), "eax and ecx are 0 here already", _BARE),
    *(
        Survivor("strings_done", f"mov dword ptr [edi + HVM_START_INFO_{field}], eax", ("register 0",), "ecx is 0, too", _BARE)
        for field in _FIELDS
    ),
    Survivor("start_info_done", "mov eax, SEL_TSS", ("constant 3",), _SELECTOR),
    Survivor("start_info_done", "mov eax, CPUID_FEATURES_LEAF", ("constant 0",), _CPUID),
    Survivor("start_info_done", "test edx, CPUID_1_EDX_MTRR", ("constant 0", "constant 1", "constant 3"), _CPUID),
    Survivor("start_info_done", "jz handoff_mtrr_done", ("drop 0",), _CPUID),
    Survivor("modlist_bad_string", "jmp panic", ("drop 0",), _NEXT, _BARE),
    Survivor("panic", "cld", ("drop 0",), _DIRECTION),
    Survivor("panic", "mov edi, offset panic_end", ("constant 0",), f"it passes over a cli, and {_INTERRUPTS}"),
    Survivor("tell", "jmp edi", ("drop 0",), "a build that is not verbose tells of panics alone, and their end comes next"),
    Survivor("panic_end", "cli", ("drop 0",), _INTERRUPTS),
    Survivor(
        "start_info_done", "mov ecx, GDT_SIZE / 4", ("constant 0",), "a word more is copied, which nobody reads", _MICROVM
    ),
    # fw_cfg.
    Survivor("protected_mode", "mov eax, FW_CFG_READ_SIGNATURE", ("constant 3",), _CONTROL, _MICROVM),
    Survivor(
        "protected_mode", "mov edi, FW_CFG_WORD_PADDR", ("constant 0", "constant 1"), "it is read where it was put", _MICROVM
    ),
    Survivor("e820_next_file", "mov eax, FW_CFG_READ_ON", ("constant 0", "constant 3"), _CONTROL, _MICROVM),
    Survivor("initrd_done", "mov eax, FW_CFG_READ_NB_CPUS", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("bzimage", "mov eax, FW_CFG_READ_SETUP_DATA", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("bzimage_header", "mov eax, FW_CFG_READ_KERNEL_DATA", ("constant 3",), _CONTROL, _MICROVM),
    Survivor(
        "fw_cfg_read_pio",
        "test al, FW_CFG_DMA_CTL_SELECT",
        ("constant 0", "constant 3"),
        "the lowest bit and the highest are 0 in what is asked for",
        _MICROVM,
    ),
    Survivor("fw_cfg_read_pio", "shr eax, FW_CFG_DMA_CTL_KEY_SHIFT", ("constant 3",), _SHIFT, _MICROVM),
    Survivor("fw_cfg_read_pio", "mov edx, FW_CFG_PORT", ("constant 3",), _PORT, _MICROVM),
    Survivor("fw_cfg_read_pio", "mov edx, FW_CFG_DATA_PORT", ("constant 3",), _PORT, _MICROVM),
    Survivor("initrd_over_kernel", "jmp panic", ("drop 0",), _NEXT, _MICROVM),
    # The memory map.
    Survivor(
        "e820_sort",
        "mov ecx, SIZEOF_HVM_MEMMAP_ENTRY / 4",
        ("constant 1",),
        "the word that is not exchanged then is the lowest, counted from 1: the highest is 0 in all entries",
        _MICROVM,
    ),
    Survivor("memmap_insert", "push ecx", ("register 0",), "its callers here do not need what ecx was", _MICROVM),
    Survivor("memmap_insert", "push esi", ("register 0",), "its callers here do not need what esi was", _MICROVM),
    Survivor("memmap_insert", "pop ecx", ("register 0",), "its callers here do not need what ecx was", _MICROVM),
    Survivor(
        "memmap_insert",
        "lea esi, [ecx + MEMMAP_PADDR]",
        ("displacement 0", "displacement 1"),
        "a word more is moved, or the lowest byte of an address is not, which is 0 in what comes first",
        _MICROVM,
    ),
    Survivor("memmap_insert", "shr ecx, 2", ("constant 3",), _SHIFT, _MICROVM),
    Survivor(
        "memmap_insert",
        "sub esi, 4",
        ("constant 1",),
        "the lowest byte of an address is not moved, which is 0 in what comes first",
        _MICROVM,
    ),
    *(
        Survivor("memmap_insert", f"mov dword ptr [edi + HVM_MEMMAP_ENTRY_{field}], ecx", changes, _OVER_ZEROS, _MICROVM)
        for field, changes in (
            ("ADDR + 4", ("drop 0", "displacement 0", "displacement 1")),
            ("SIZE + 4", ("drop 0", "displacement 0", "displacement 1")),
            ("RESERVED", ("drop 0", "displacement 0", "register 1")),
        )
    ),
    Survivor("mp_tail", "pop ecx", ("register 0",), "it takes away what was pushed: the register is free", _MICROVM),
    # The MP table.
    Survivor("mp_write", "shr ebx, CPUID_1_EBX_APIC_ID_SHIFT", ("constant 0", "constant 1", "constant 3"), _FIRST, _MICROVM),
    Survivor("mp_processor", "shl eax, 8", ("constant 3",), _SHIFT, _MICROVM),
    Survivor("mp_processor", "cmp ecx, ebx", ("drop 0", "register 1"), _FIRST, _MICROVM),
    Survivor(
        "mp_processor_next",
        "cmp ecx, APIC_IDS",
        ("drop 0", "constant 0", "constant 2", "constant 3", "register 0"),
        "the loop ends when all are found, too: behind the ids lies their number, which is no 0",
        _MICROVM,
    ),
    Survivor("mp_processor_next", "jne mp_processor", ("always 0",), "the loop ends when all are found, too", _MICROVM),
    Survivor("mp_tail", "mov ecx, SIZEOF_MP_FLOATING", ("constant 1",), "the last byte is 0", _MICROVM),
    Survivor("sum_bytes", "and ecx, 63", ("constant 1",), "all sums here are of an even number of bytes", _MICROVM),
    Survivor("sum_bytes", "shr edx, 6", ("constant 3",), _SHIFT, _MICROVM),
    Survivor("sum_bytes", "xor eax, eax", ("drop 0",), "eax is the address, whose lowest byte is 0 here", _MICROVM),
    # The processors.
    Survivor("cpus_find", "push ebx", ("register 0",), "its caller here needs neither", _MICROVM),
    Survivor("cpus_found", "pop ebx", ("register 0",), "its caller here needs neither", _MICROVM),
    Survivor("cpus_find", "mov edi, CPU_PRESENT", ("constant 0", "constant 1"), _BESIDE, _MICROVM),
    Survivor("cpus_find", "mov ecx, APIC_IDS / 4 + 1", ("constant 0", "constant 1"), _BESIDE, _MICROVM),
    Survivor("cpus_find", "mov eax, CPUID_FEATURES_LEAF", ("constant 0", "constant 2"), _FIRST, _MICROVM),
    Survivor("cpus_find", "cpuid", ("drop 0",), _FIRST, _MICROVM),
    Survivor("cpus_find", "shr ebx, CPUID_1_EBX_APIC_ID_SHIFT", ("constant 0", "constant 1", "constant 3"), _FIRST, _MICROVM),
    Survivor("cpus_find", "inc dword ptr [CPU_COUNT]", ("displacement 0",), _AT_ONCE, _MICROVM),
    Survivor("cpus_find", "cmp edx, 1", ("drop 0", "constant 1"), _TWICE, _MICROVM),
    Survivor("cpus_find", "jbe cpus_found", ("drop 0",), _TWICE, _MICROVM),
    Survivor(
        "cpus_find", "mov ecx, ap_end - ap_start", ("constant 0",), "a byte more is copied, which is never executed", _MICROVM
    ),
    Survivor(
        "cpus_find",
        "mov ecx, CPU_POLLS",
        ("drop 0", "constant 0", "constant 1", "constant 2", "constant 3", "register 0"),
        _AT_ONCE,
        _MICROVM,
    ),
    Survivor("cpus_wait", "pause", ("drop 0",), "it is a hint to the processor", _MICROVM),
    Survivor("cpus_wait", "cmp dword ptr [CPU_COUNT], edx", ("drop 0", "register 0"), _AT_ONCE, _MICROVM),
    Survivor("cpus_wait", "jae cpus_found", ("always 0",), _AT_ONCE, _MICROVM),
    Survivor("cpus_found", "movzx eax, al", ("drop 0", "register 0"), "sum_bytes leaves the rest of eax 0", _MICROVM),
    # A bzImage.
    Survivor(
        "bzimage", "cmp edx, BOOT_HEADER_MAX - BOOT_HEADER", ("constant 1",), "of two that are equal it takes either", _MICROVM
    ),
    Survivor(
        "setup_data_there", "cmp eax, LOW_HOLE_END", ("constant 1",), "that byte is the ROM's, and refused, too", _MICROVM
    ),
    Survivor(
        "linux_cmdline",
        "mov eax, dword ptr [ebx + HVM_START_INFO_RSDP_PADDR]",
        ("displacement 0", "displacement 1"),
        _NO_ACPI,
        _MICROVM,
    ),
    Survivor(
        "linux_cmdline",
        "mov dword ptr [ebp + BOOT_ACPI_RSDP_ADDR], eax",
        ("drop 0", "displacement 0", "displacement 1", "register 0"),
        _NO_ACPI,
        _MICROVM,
    ),
    Survivor("cmdline_done", "cmp eax, LOW_HOLE_END", ("constant 1",), "that byte is the ROM's, and refused, too", _MICROVM),
    Survivor("e820_entry", "sbb dword ptr [esi + E820_ENTRY_SIZE + 4], eax", ("register 0",), "ecx is 0, too", _MICROVM),
    Survivor("e820_sorted", "lea eax, [edi - MEMMAP_PADDR]", ("displacement 0",), _ROUNDED, _MICROVM),
    Survivor("e820_sorted", "lea eax, [edi - MEMMAP_PADDR]", ("displacement 1",), _ROUNDED, _MICROVM),
    Survivor("e820_sorted", "lea eax, [edi - MEMMAP_PADDR]", ("register 1",), "esi is the end of the map, too", _MICROVM),
    Survivor("fw_cfg_dma_wait", "mov edx, FW_CFG_DMA_PORT", ("constant 3",), _PORT, _MICROVM),
    Survivor(
        "fw_cfg_dma_wait",
        "test al, FW_CFG_DMA_CTL_ERROR",
        ("constant 2",),
        "that bit means nothing, and no host sets it",
        _MICROVM,
    ),
    Survivor(
        "fw_cfg_read_dma",
        "cmp dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_CONTROL], 0",
        ("displacement 0",),
        "the bytes that say something are looked at all the same",
        _MICROVM,
    ),
    Survivor("fw_cfg_read_dma", "mov edx, FW_CFG_DMA_LOW_PORT", ("constant 3",), _PORT, _MICROVM),
    Survivor("kernel_loaded", "mov edi, FW_CFG_WORD_PADDR", ("constant 1",), "it is read where it was put", _MICROVM),
    Survivor("protected_mode", "mov edx, FW_CFG_DMA_PORT", ("constant 3",), _PORT, _MICROVM),
    Survivor(
        "ram_range",
        "cmp eax, edi",
        ("register 1",),
        "what ends behind the range is refused, too: the next one begins above it, and the last one is the ROM",
        _MICROVM,
    ),
    Survivor("e820_found", "or eax, FW_CFG_READ_SELECTED", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("cmdline_done", "mov eax, FW_CFG_READ_INITRD_ADDR", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("cmdline_done", "mov eax, FW_CFG_READ_INITRD_SIZE", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("e820_sorted", "mov eax, FW_CFG_READ_KERNEL_ADDR", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("e820_sorted", "mov eax, FW_CFG_READ_KERNEL_ENTRY", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("e820_sorted", "mov eax, FW_CFG_READ_KERNEL_SIZE", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("fw_cfg_found", "mov eax, FW_CFG_READ_FILE_DIR", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("initrd_free", "mov eax, FW_CFG_READ_INITRD_DATA", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("kernel_loaded", "mov eax, FW_CFG_READ_CMDLINE_DATA", ("constant 3",), _CONTROL, _MICROVM),
    Survivor("kernel_loaded", "mov eax, FW_CFG_READ_CMDLINE_SIZE", ("constant 3",), _CONTROL, _MICROVM),
)
