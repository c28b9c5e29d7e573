"""The Xen x86/HVM direct boot ABI: what the kernel finds in %ebx, and the ELF notes that ask for it.

Sources: Xen docs/misc/pvh.pandoc (the machine state), xen/include/public/arch-x86/hvm/start_info.h (the structures),
xen/include/public/elfnote.h (the notes).
"""

from typing import Final, NamedTuple

from .layout import Layout

XEN_HVM_START_MAGIC_VALUE: Final = 0x336EC578  # start_info.h: "xEn3" with the top bit of the E set
HVM_START_INFO_VERSION: Final = 1  # version 1 is the first with a memory map

# start_info.h, XEN_HVM_MEMMAP_TYPE_*: the values of the ACPI specification's address range types.
MEMMAP_TYPE_RAM: Final = 1
MEMMAP_TYPE_RESERVED: Final = 2
MEMMAP_TYPE_ACPI: Final = 3
MEMMAP_TYPE_NVS: Final = 4
MEMMAP_TYPE_UNUSABLE: Final = 5
MEMMAP_TYPE_DISABLED: Final = 6
MEMMAP_TYPE_PMEM: Final = 7

MEMMAP_TYPE_NAMES: Final = {
    MEMMAP_TYPE_RAM: "RAM",
    MEMMAP_TYPE_RESERVED: "reserved",
    MEMMAP_TYPE_ACPI: "ACPI",
    MEMMAP_TYPE_NVS: "NVS",
    MEMMAP_TYPE_UNUSABLE: "unusable",
    MEMMAP_TYPE_DISABLED: "disabled",
    MEMMAP_TYPE_PMEM: "PMEM",
}

# Linux copies the map into boot_params.e820_table with a u8 count and 128 places, and adds one entry of its own
# (arch/x86/platform/pvh/enlighten.c): one more entry than this and it writes past the table.
MEMMAP_MAX_ENTRIES: Final = 126

# Linux maps the first GiB only in its early page tables (arch/x86/platform/pvh/head.S), and FreeBSD likewise:
# start_info and all it points to lie below, in bytes.
BOOT_STRUCTURES_END: Final = 1 << 30

# elfnote.h. The name of every Xen note, with its terminator.
NOTE_NAME: Final = b"Xen\0"
XEN_ELFNOTE_INFO: Final = 0
XEN_ELFNOTE_ENTRY: Final = 1
XEN_ELFNOTE_HYPERCALL_PAGE: Final = 2
XEN_ELFNOTE_VIRT_BASE: Final = 3
XEN_ELFNOTE_PADDR_OFFSET: Final = 4
XEN_ELFNOTE_XEN_VERSION: Final = 5
XEN_ELFNOTE_GUEST_OS: Final = 6
XEN_ELFNOTE_GUEST_VERSION: Final = 7
XEN_ELFNOTE_LOADER: Final = 8
XEN_ELFNOTE_PAE_MODE: Final = 9
XEN_ELFNOTE_FEATURES: Final = 10
XEN_ELFNOTE_BSD_SYMTAB: Final = 11
XEN_ELFNOTE_HV_START_LOW: Final = 12
XEN_ELFNOTE_L1_MFN_VALID: Final = 13
XEN_ELFNOTE_SUSPEND_CANCEL: Final = 14
XEN_ELFNOTE_INIT_P2M: Final = 15
XEN_ELFNOTE_MOD_START_PFN: Final = 16
XEN_ELFNOTE_SUPPORTED_FEATURES: Final = 17
XEN_ELFNOTE_PHYS32_ENTRY: Final = 18
XEN_ELFNOTE_PHYS32_RELOC: Final = 19

# elfnote.h, XEN_ELFNOTE_PHYS32_RELOC: what holds where its descriptor does not say. The alignment is that of the PT_LOAD with
# the largest, unless none has as much as a page.
PHYS32_RELOC_ALIGN: Final = 0x200000
PHYS32_RELOC_MIN: Final = 0
PHYS32_RELOC_MAX: Final = 0xFFFFFFFF  # of the last byte

XEN_ELFNOTE_NAMES: Final = {
    XEN_ELFNOTE_INFO: "INFO",
    XEN_ELFNOTE_ENTRY: "ENTRY",
    XEN_ELFNOTE_HYPERCALL_PAGE: "HYPERCALL_PAGE",
    XEN_ELFNOTE_VIRT_BASE: "VIRT_BASE",
    XEN_ELFNOTE_PADDR_OFFSET: "PADDR_OFFSET",
    XEN_ELFNOTE_XEN_VERSION: "XEN_VERSION",
    XEN_ELFNOTE_GUEST_OS: "GUEST_OS",
    XEN_ELFNOTE_GUEST_VERSION: "GUEST_VERSION",
    XEN_ELFNOTE_LOADER: "LOADER",
    XEN_ELFNOTE_PAE_MODE: "PAE_MODE",
    XEN_ELFNOTE_FEATURES: "FEATURES",
    XEN_ELFNOTE_BSD_SYMTAB: "BSD_SYMTAB",
    XEN_ELFNOTE_HV_START_LOW: "HV_START_LOW",
    XEN_ELFNOTE_L1_MFN_VALID: "L1_MFN_VALID",
    XEN_ELFNOTE_SUSPEND_CANCEL: "SUSPEND_CANCEL",
    XEN_ELFNOTE_INIT_P2M: "INIT_P2M",
    XEN_ELFNOTE_MOD_START_PFN: "MOD_START_PFN",
    XEN_ELFNOTE_SUPPORTED_FEATURES: "SUPPORTED_FEATURES",
    XEN_ELFNOTE_PHYS32_ENTRY: "PHYS32_ENTRY",
    XEN_ELFNOTE_PHYS32_RELOC: "PHYS32_RELOC",
}


class Relocation(NamedTuple):
    """What a PHYS32_RELOC note says: all of the kernel lies from the physical address `min` to `max`, the last byte included,
    and its lowest segment begins at a multiple of `align`."""

    align: int
    min: int
    max: int


class StartInfo(NamedTuple):
    """struct hvm_start_info, version 1: 56 bytes. Addresses are physical; 0 means "not present"."""

    magic: int
    version: int
    flags: int
    nr_modules: int
    modlist_paddr: int
    cmdline_paddr: int
    rsdp_paddr: int
    memmap_paddr: int
    memmap_entries: int
    reserved: int


class ModlistEntry(NamedTuple):
    """struct hvm_modlist_entry: 32 bytes. `size` is in bytes; a cmdline_paddr of 0 means that there is none."""

    paddr: int
    size: int
    cmdline_paddr: int
    reserved: int


class MemmapEntry(NamedTuple):
    """struct hvm_memmap_table_entry: 24 bytes. `addr` is physical, `size` in bytes, `type` a MEMMAP_TYPE_*."""

    addr: int
    size: int
    type: int
    reserved: int = 0

    @property
    def end(self) -> int:
        """The first physical address after the range."""
        return self.addr + self.size


HVM_START_INFO: Final = Layout(StartInfo, "IIIIQQQQII", "HVM_START_INFO")
HVM_MODLIST_ENTRY: Final = Layout(ModlistEntry, "QQQQ", "HVM_MODLIST_ENTRY")
HVM_MEMMAP_ENTRY: Final = Layout(MemmapEntry, "QQII", "HVM_MEMMAP_ENTRY")

# pvh.pandoc, "Machine state": the task register holds a 32-bit TSS with base 0 and this limit (its last byte).
TSS_LIMIT: Final = 0x67
