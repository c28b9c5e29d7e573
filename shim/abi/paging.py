"""The entries of page tables, and what the control registers say of them.

Source: Intel SDM volume 3A, 2.2.1 (EFER), 2.5 (CR4), 5.3 (32-bit paging), 5.4 (PAE), 5.5 (4-level paging).
"""

from typing import Final

CR4_PSE: Final = 1 << 4  # 32-bit paging has pages of 4 MiB
CR4_PAE: Final = 1 << 5

# The other bits of CR4 (SDM volume 3A, 2.5) and of EFER are for reports alone.
CR4_NAMES: Final = {
    1 << 0: "VME",
    1 << 1: "PVI",
    1 << 2: "TSD",
    1 << 3: "DE",
    CR4_PSE: "PSE",
    CR4_PAE: "PAE",
    1 << 6: "MCE",
    1 << 7: "PGE",
    1 << 8: "PCE",
    1 << 9: "OSFXSR",
    1 << 10: "OSXMMEXCPT",
    1 << 11: "UMIP",
    1 << 12: "LA57",
    1 << 13: "VMXE",
    1 << 14: "SMXE",
    1 << 16: "FSGSBASE",
    1 << 17: "PCIDE",
    1 << 18: "OSXSAVE",
    1 << 20: "SMEP",
    1 << 21: "SMAP",
    1 << 22: "PKE",
}

EFER_SCE: Final = 1 << 0  # SYSCALL is there
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10
EFER_NXE: Final = 1 << 11
EFER_NAMES: Final = {EFER_SCE: "SCE", EFER_LME: "LME", EFER_LMA: "LMA", EFER_NXE: "NXE"}

PTE_PRESENT: Final = 1 << 0
PTE_WRITABLE: Final = 1 << 1
PTE_USER: Final = 1 << 2
PTE_ACCESSED: Final = 1 << 5
PTE_DIRTY: Final = 1 << 6
PTE_LARGE: Final = 1 << 7  # in a directory: no table, but a page
PTE_LARGE_PAT: Final = 1 << 12  # of such a page
PTE_NO_EXECUTE: Final = 1 << 63
PTE_ADDRESS: Final = 0x000F_FFFF_FFFF_F000

# A 4 MiB page keeps bits 32-39 of its address in bits 13-20 of its entry (PSE-36).
PSE36_SHIFT: Final = 32 - 13
PSE36_MASK: Final = 0x1F_E000
PSE36_RESERVED: Final = 1 << 21

PAGE_4M_SHIFT: Final = 22  # what an entry of a directory of 32-bit paging covers

# With PAE or 4 levels an entry has 64 bits; one of the fourth level covers 512 GiB, one of the third a GiB, one of the second
# can be a page of 2 MiB.
TABLE_ENTRIES: Final = 512
PAGE_SHIFT: Final = 12
PML4_SHIFT: Final = 39
PDPT_SHIFT: Final = 30
LARGE_PAGE_SHIFT: Final = 21
LARGE_PAGE: Final = 1 << LARGE_PAGE_SHIFT  # bytes
