"""Every structure and constant of shim/abi against literal numbers of the specifications.

Generator and checker share these definitions, so a wrong one would agree with itself: the numbers here are written out
on purpose, and taken from no definition of ours.
"""

import struct

import pytest
from pvhboot.shim import defs, image, machines
from pvhboot.shim.abi import (
    acpi,
    acpi_loader,
    apic,
    boot_params,
    chipset,
    e820,
    elf,
    elf_layouts,
    firmware,
    fw_cfg,
    interrupts,
    mptable,
    multiboot,
    paging,
    pam,
    params,
    pci,
    pic,
    pit,
    pm,
    pvh,
    rtc,
    smbios,
    x86,
)
from pvhboot.shim.abi.layout import Layout

_ELF_IDENT = {
    "ei_mag": (0, 4),
    "ei_class": (4, 1),
    "ei_data": (5, 1),
    "ei_version": (6, 1),
    "ei_osabi": (7, 1),
    "ei_pad": (8, 8),
}

# (structure, size, {field: (offset, size)}), in bytes.
LAYOUTS = [
    (
        pvh.HVM_START_INFO,
        56,
        {
            "magic": (0, 4),
            "version": (4, 4),
            "flags": (8, 4),
            "nr_modules": (12, 4),
            "modlist_paddr": (16, 8),
            "cmdline_paddr": (24, 8),
            "rsdp_paddr": (32, 8),
            "memmap_paddr": (40, 8),
            "memmap_entries": (48, 4),
            "reserved": (52, 4),
        },
    ),
    (pvh.HVM_MODLIST_ENTRY, 32, {"paddr": (0, 8), "size": (8, 8), "cmdline_paddr": (16, 8), "reserved": (24, 8)}),
    (pvh.HVM_MEMMAP_ENTRY, 24, {"addr": (0, 8), "size": (8, 8), "type": (16, 4), "reserved": (20, 4)}),
    (e820.E820_ENTRY, 20, {"addr": (0, 8), "size": (8, 8), "type": (16, 4)}),
    (
        params.PARAMS_HEADER,
        32,
        {
            "magic": (0, 4),
            "version": (4, 4),
            "size": (8, 4),
            "entry": (12, 4),
            "e820_entries": (16, 4),
            "modules": (20, 4),
            "strings_size": (24, 4),
            "reserved": (28, 4),
        },
    ),
    (params.PARAMS_MODULE, 24, {"paddr": (0, 8), "size": (8, 8), "cmdline": (16, 4), "reserved": (20, 4)}),
    (fw_cfg.FW_CFG_FILE, 64, {"size": (0, 4), "select": (4, 2), "reserved": (6, 2), "name": (8, 56)}),
    (fw_cfg.FW_CFG_DMA, 16, {"control": (0, 4), "length": (4, 4), "address": (8, 8)}),
    (
        acpi_loader.ALLOCATE,
        128,
        {"command": (0, 4), "file": (4, 56), "align": (60, 4), "zone": (64, 1), "padding": (65, 63)},
    ),
    (
        acpi_loader.ADD_POINTER,
        128,
        {"command": (0, 4), "dest": (4, 56), "src": (60, 56), "offset": (116, 4), "size": (120, 1), "padding": (121, 7)},
    ),
    (
        acpi_loader.ADD_CHECKSUM,
        128,
        {"command": (0, 4), "file": (4, 56), "offset": (60, 4), "start": (64, 4), "length": (68, 4), "padding": (72, 56)},
    ),
    (
        acpi_loader.WRITE_POINTER,
        128,
        {
            "command": (0, 4),
            "dest": (4, 56),
            "src": (60, 56),
            "dst_offset": (116, 4),
            "src_offset": (120, 4),
            "size": (124, 1),
            "padding": (125, 3),
        },
    ),
    (
        acpi.RSDP,
        36,
        {
            "signature": (0, 8),
            "checksum": (8, 1),
            "oem_id": (9, 6),
            "revision": (15, 1),
            "rsdt_address": (16, 4),
            "length": (20, 4),
            "xsdt_address": (24, 8),
            "extended_checksum": (32, 1),
            "reserved": (33, 3),
        },
    ),
    (
        acpi.SDT_HEADER,
        36,
        {
            "signature": (0, 4),
            "length": (4, 4),
            "revision": (8, 1),
            "checksum": (9, 1),
            "oem_id": (10, 6),
            "oem_table_id": (16, 8),
            "oem_revision": (24, 4),
            "creator_id": (28, 4),
            "creator_revision": (32, 4),
        },
    ),
    (boot_params.SETUP_DATA_HEAD, 16, {"next": (0, 8), "type": (8, 4), "len": (12, 4)}),
    (
        mptable.MP_FLOATING,
        16,
        {"signature": (0, 4), "table": (4, 4), "length": (8, 1), "revision": (9, 1), "checksum": (10, 1), "features": (11, 5)},
    ),
    (
        mptable.MP_TABLE,
        44,
        {
            "signature": (0, 4),
            "length": (4, 2),
            "revision": (6, 1),
            "checksum": (7, 1),
            "oem": (8, 8),
            "product": (16, 12),
            "oem_table": (28, 4),
            "oem_size": (32, 2),
            "entries": (34, 2),
            "local_apic": (36, 4),
            "extended_length": (40, 2),
            "extended_checksum": (42, 1),
            "reserved": (43, 1),
        },
    ),
    (
        mptable.MP_PROCESSOR_ENTRY,
        20,
        {
            "type": (0, 1),
            "apic_id": (1, 1),
            "apic_version": (2, 1),
            "flags": (3, 1),
            "signature": (4, 4),
            "features": (8, 4),
            "reserved": (12, 8),
        },
    ),
    (mptable.MP_BUS_ENTRY, 8, {"type": (0, 1), "bus": (1, 1), "name": (2, 6)}),
    (
        mptable.MP_IO_APIC_ENTRY,
        8,
        {"type": (0, 1), "apic_id": (1, 1), "version": (2, 1), "flags": (3, 1), "paddr": (4, 4)},
    ),
    (
        mptable.MP_INTERRUPT_ENTRY,
        8,
        {
            "type": (0, 1),
            "kind": (1, 1),
            "flags": (2, 2),
            "source_bus": (4, 1),
            "source_irq": (5, 1),
            "apic_id": (6, 1),
            "pin": (7, 1),
        },
    ),
    (
        smbios.SMBIOS_21,
        31,
        {
            "anchor": (0, 4),
            "checksum": (4, 1),
            "length": (5, 1),
            "major": (6, 1),
            "minor": (7, 1),
            "max_structure_size": (8, 2),
            "revision": (10, 1),
            "formatted": (11, 5),
            "dmi_anchor": (16, 5),
            "dmi_checksum": (21, 1),
            "table_length": (22, 2),
            "table_address": (24, 4),
            "structures": (28, 2),
            "bcd_revision": (30, 1),
        },
    ),
    (
        smbios.SMBIOS_30,
        24,
        {
            "anchor": (0, 5),
            "checksum": (5, 1),
            "length": (6, 1),
            "major": (7, 1),
            "minor": (8, 1),
            "docrev": (9, 1),
            "revision": (10, 1),
            "reserved": (11, 1),
            "max_table_size": (12, 4),
            "table_address": (16, 8),
        },
    ),
    # System V ABI, "Object Files".
    (
        elf_layouts.LAYOUTS[32].header,
        52,
        _ELF_IDENT
        | {"e_type": (16, 2), "e_machine": (18, 2), "e_version": (20, 4), "e_entry": (24, 4), "e_phoff": (28, 4)}
        | {"e_shoff": (32, 4), "e_flags": (36, 4), "e_ehsize": (40, 2), "e_phentsize": (42, 2), "e_phnum": (44, 2)}
        | {"e_shentsize": (46, 2), "e_shnum": (48, 2), "e_shstrndx": (50, 2)},
    ),
    (
        elf_layouts.LAYOUTS[64].header,
        64,
        _ELF_IDENT
        | {"e_type": (16, 2), "e_machine": (18, 2), "e_version": (20, 4), "e_entry": (24, 8), "e_phoff": (32, 8)}
        | {"e_shoff": (40, 8), "e_flags": (48, 4), "e_ehsize": (52, 2), "e_phentsize": (54, 2), "e_phnum": (56, 2)}
        | {"e_shentsize": (58, 2), "e_shnum": (60, 2), "e_shstrndx": (62, 2)},
    ),
    (
        elf_layouts.LAYOUTS[32].program_header,
        32,
        {"p_type": (0, 4), "p_offset": (4, 4), "p_vaddr": (8, 4), "p_paddr": (12, 4), "p_filesz": (16, 4)}
        | {"p_memsz": (20, 4), "p_flags": (24, 4), "p_align": (28, 4)},
    ),
    (
        elf_layouts.LAYOUTS[64].program_header,
        56,
        {"p_type": (0, 4), "p_flags": (4, 4), "p_offset": (8, 8), "p_vaddr": (16, 8), "p_paddr": (24, 8)}
        | {"p_filesz": (32, 8), "p_memsz": (40, 8), "p_align": (48, 8)},
    ),
    (
        elf_layouts.LAYOUTS[32].section_header,
        40,
        {"sh_name": (0, 4), "sh_type": (4, 4), "sh_flags": (8, 4), "sh_addr": (12, 4), "sh_offset": (16, 4)}
        | {"sh_size": (20, 4), "sh_link": (24, 4), "sh_info": (28, 4), "sh_addralign": (32, 4), "sh_entsize": (36, 4)},
    ),
    (
        elf_layouts.LAYOUTS[64].section_header,
        64,
        {"sh_name": (0, 4), "sh_type": (4, 4), "sh_flags": (8, 8), "sh_addr": (16, 8), "sh_offset": (24, 8)}
        | {"sh_size": (32, 8), "sh_link": (40, 4), "sh_info": (44, 4), "sh_addralign": (48, 8), "sh_entsize": (56, 8)},
    ),
    (
        elf_layouts.LAYOUTS[32].symbol,
        16,
        {
            "st_name": (0, 4),
            "st_value": (4, 4),
            "st_size": (8, 4),
            "st_info": (12, 1),
            "st_other": (13, 1),
            "st_shndx": (14, 2),
        },
    ),
    (
        elf_layouts.LAYOUTS[64].symbol,
        24,
        {"st_name": (0, 4), "st_info": (4, 1), "st_other": (5, 1), "st_shndx": (6, 2), "st_value": (8, 8), "st_size": (16, 8)},
    ),
    (elf_layouts.NOTE_HEAD, 12, {"n_namesz": (0, 4), "n_descsz": (4, 4), "n_type": (8, 4)}),
]
BIG_ENDIAN = (fw_cfg.FW_CFG_FILE, fw_cfg.FW_CFG_DMA)


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_layout(layout, size, fields):
    assert layout.size == size
    assert {name: tuple(field) for name, field in layout.fields.items()} == fields


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_each_field_lies_in_the_right_byte_order_where_it_is_said_to(layout, size, fields):
    zeros = layout.unpack(bytes(size))
    for name, (offset, width) in fields.items():
        data = bytes(range(0xA1, 0xA1 + width))
        is_text = isinstance(getattr(zeros, name), bytes)
        value = data if is_text else int.from_bytes(data, "big" if layout in BIG_ENDIAN else "little")
        record = zeros._replace(**{name: value})
        expected = bytearray(size)
        expected[offset : offset + width] = data
        assert layout.pack(record) == bytes(expected)
        assert layout.unpack(b"\xff" * 3 + expected, 3) == record


def test_layout_refuses_what_does_not_fit():
    with pytest.raises(struct.error):
        e820.E820_ENTRY.pack(e820.E820Entry(0, 1 << 64, 1))
    with pytest.raises(struct.error):
        e820.E820_ENTRY.unpack(bytes(19))


def test_structures_of_fw_cfg_to_the_byte():
    entry = bytes.fromhex("0001e240 0021 0000") + b"etc/e820" + bytes(48)
    assert fw_cfg.FW_CFG_FILE.pack(fw_cfg.FwCfgFile(123456, 0x21, 0, b"etc/e820")) == entry
    assert fw_cfg.FW_CFG_FILE.unpack(entry).name.rstrip(b"\0") == b"etc/e820"
    assert fw_cfg.FW_CFG_FILE.symbols() == {
        "FW_CFG_FILE_SIZE": 0,
        "FW_CFG_FILE_SELECT": 4,
        "FW_CFG_FILE_RESERVED": 6,
        "FW_CFG_FILE_NAME": 8,
        "SIZEOF_FW_CFG_FILE": 64,
    }
    descriptor = bytes.fromhex("0019000a 00000a04 0000000000003000")
    assert fw_cfg.FW_CFG_DMA.pack(fw_cfg.FwCfgDmaAccess(0x19000A, 2564, 0x3000)) == descriptor


def test_layout_symbols():
    assert e820.E820_ENTRY.symbols() == {
        "E820_ENTRY_ADDR": 0,
        "E820_ENTRY_SIZE": 8,
        "E820_ENTRY_TYPE": 16,
        "SIZEOF_E820_ENTRY": 20,
    }


def test_layout_wants_a_code_for_each_field():
    with pytest.raises(ValueError, match="zip"):
        Layout(e820.E820Entry, "QQ", "X")


# (module, {name: value}): Xen start_info.h and elfnote.h, Intel SDM volume 3A, params.py as published, QEMU fw_cfg.rst and
# qemu_fw_cfg.h.
CONSTANTS = [
    (
        pvh,
        {
            "XEN_HVM_START_MAGIC_VALUE": 0x336EC578,
            "HVM_START_INFO_VERSION": 1,
            "MEMMAP_TYPE_RAM": 1,
            "MEMMAP_TYPE_RESERVED": 2,
            "MEMMAP_TYPE_ACPI": 3,
            "MEMMAP_TYPE_NVS": 4,
            "MEMMAP_TYPE_UNUSABLE": 5,
            "MEMMAP_TYPE_DISABLED": 6,
            "MEMMAP_TYPE_PMEM": 7,
            "MEMMAP_MAX_ENTRIES": 126,
            "BOOT_STRUCTURES_END": 0x40000000,
            "NOTE_NAME": b"Xen\x00",
            "XEN_ELFNOTE_INFO": 0,
            "XEN_ELFNOTE_ENTRY": 1,
            "XEN_ELFNOTE_HYPERCALL_PAGE": 2,
            "XEN_ELFNOTE_VIRT_BASE": 3,
            "XEN_ELFNOTE_PADDR_OFFSET": 4,
            "XEN_ELFNOTE_XEN_VERSION": 5,
            "XEN_ELFNOTE_GUEST_OS": 6,
            "XEN_ELFNOTE_GUEST_VERSION": 7,
            "XEN_ELFNOTE_LOADER": 8,
            "XEN_ELFNOTE_PAE_MODE": 9,
            "XEN_ELFNOTE_FEATURES": 10,
            "XEN_ELFNOTE_BSD_SYMTAB": 11,
            "XEN_ELFNOTE_HV_START_LOW": 12,
            "XEN_ELFNOTE_L1_MFN_VALID": 13,
            "XEN_ELFNOTE_SUSPEND_CANCEL": 14,
            "XEN_ELFNOTE_INIT_P2M": 15,
            "XEN_ELFNOTE_MOD_START_PFN": 16,
            "XEN_ELFNOTE_SUPPORTED_FEATURES": 17,
            "XEN_ELFNOTE_PHYS32_ENTRY": 18,
            "XEN_ELFNOTE_PHYS32_RELOC": 19,
            "TSS_LIMIT": 0x67,
        },
    ),
    (
        params,
        {
            "PARAMS_MAGIC": 0x42485650,
            "PARAMS_VERSION": 1,
            "PARAMS_FROM_END": 0x10000,
            "PARAMS_MAX_SIZE": 0x8000,
            "PARAMS_MAX_E820": 126,
            "PARAMS_MAX_MODULES": 512,
            "EMPTY_PARAMS": b"PVHB\x01\x00\x00\x00" + bytes(24),
        },
    ),
    (
        x86,
        {
            "CR0_PE": 0x1,
            "CR0_MP": 0x2,
            "CR0_EM": 0x4,
            "CR0_TS": 0x8,
            "CR0_ET": 0x10,
            "CR0_NE": 0x20,
            "CR0_WP": 0x10000,
            "CR0_AM": 0x40000,
            "CR0_NW": 0x20000000,
            "CR0_CD": 0x40000000,
            "CR0_PG": 0x80000000,
            "EFLAGS_CF": 0x1,
            "EFLAGS_FIXED": 0x2,
            "EFLAGS_PF": 0x4,
            "EFLAGS_AF": 0x10,
            "EFLAGS_ZF": 0x40,
            "EFLAGS_SF": 0x80,
            "EFLAGS_TF": 0x100,
            "EFLAGS_IF": 0x200,
            "EFLAGS_DF": 0x400,
            "EFLAGS_OF": 0x800,
            "EFLAGS_NT": 0x4000,
            "EFLAGS_RF": 0x10000,
            "EFLAGS_VM": 0x20000,
            "EFLAGS_AC": 0x40000,
            "EFLAGS_ARITHMETIC": 0x8D5,
            "DESC_DPL_SHIFT": 45,
            "TYPE_CONFORMING": 4,
            "TYPE_EXPAND_DOWN": 4,
            "SELECTOR_INDEX_SHIFT": 3,
            "MTRR_DEF_TYPE_FIXED": 0x400,
            "DESC_SIZE": 8,
            "PAGE_SIZE": 4096,
            "HLT": b"\xf4",
            "IO_PORTS": 65536,
            "REAL_SEGMENT": 65536,
            "INSTRUCTION_MAX": 15,
            "MTRRS": (*range(0x200, 0x210), 0x250, 0x258, 0x259, *range(0x268, 0x270)),
            "FLAT_LIMIT": 0xFFFFFFFF,
            "TYPE_TSS32_AVAILABLE": 9,
            "TYPE_TSS32_BUSY": 11,
            "TYPE_TSS_BUSY_BIT": 2,
            "CPUID_FEATURES_LEAF": 1,
            "CPUID_1_EDX_MTRR": 0x1000,
            "MSR_MTRR_DEF_TYPE": 0x2FF,
            "MTRR_DEF_TYPE_ENABLE": 0x800,
            "MTRR_TYPE_WRITE_BACK": 6,
            "RESET_CS_SELECTOR": 0xF000,
            "RESET_CS_BASE": 0xFFFF0000,
            "RESET_IP": 0xFFF0,
            "RESET_VECTOR": 0xFFFFFFF0,
            "RESET_CR0": 0x60000010,
            "RESET_EFLAGS": 2,
            "RESET_TABLE_LIMIT": 0xFFFF,
            "ADDRESS_4G": 0x100000000,
        },
    ),
    (
        firmware,
        {
            "POST_PORT": 0x80,
            "DEBUGCON_PORT": 0x402,
            "PANIC_PREFIX": "pvhboot panic",
            "ROM_MARK": b"pvhboot\x00",
            "MARK_FIRMWARE_PORT": 0xF5,
            "MARK_LINUX_PORT": 0xF4,
            "MARK_FIRMWARE_START": 1,
            "MARK_LINUX_FW_CFG": 2,
            "MARK_LINUX_BOOT": 3,
            "MARK_LINUX_PVH": 4,
            "MARK_FIRMWARE_BOOT": 5,
            "MARK_LINUX_KERNEL": 6,
            "MARK_LINUX_USER": 7,
        },
    ),
    (
        fw_cfg,
        {
            "FW_CFG_PORT": 0x510,
            "FW_CFG_DATA_PORT": 0x511,
            "FW_CFG_DMA_PORT": 0x514,
            "FW_CFG_DMA_LOW_PORT": 0x518,
            "FW_CFG_PORTS": 2,
            "FW_CFG_DMA_PORTS": 8,
            "FW_CFG_SIGNATURE": 0x00,
            "FW_CFG_ID": 0x01,
            "FW_CFG_RAM_SIZE": 0x03,
            "FW_CFG_NB_CPUS": 0x05,
            "FW_CFG_KERNEL_ADDR": 0x07,
            "FW_CFG_KERNEL_SIZE": 0x08,
            "FW_CFG_INITRD_ADDR": 0x0A,
            "FW_CFG_INITRD_SIZE": 0x0B,
            "FW_CFG_KERNEL_ENTRY": 0x10,
            "FW_CFG_KERNEL_DATA": 0x11,
            "FW_CFG_INITRD_DATA": 0x12,
            "FW_CFG_CMDLINE_SIZE": 0x14,
            "FW_CFG_CMDLINE_DATA": 0x15,
            "FW_CFG_SETUP_SIZE": 0x17,
            "FW_CFG_SETUP_DATA": 0x18,
            "FW_CFG_FILE_DIR": 0x19,
            "FW_CFG_FILE_FIRST": 0x20,
            "FW_CFG_WRITE_CHANNEL": 0x4000,
            "FW_CFG_ARCH_LOCAL": 0x8000,
            "FW_CFG_ENTRY_MASK": 0x3FFF,
            "FW_CFG_SIGNATURE_DATA": b"QEMU",
            "FW_CFG_VERSION": 1,
            "FW_CFG_VERSION_DMA": 2,
            "FW_CFG_DMA_SIGNATURE": b"QEMU CFG",
            "FW_CFG_DMA_CTL_ERROR": 0x01,
            "FW_CFG_DMA_CTL_READ": 0x02,
            "FW_CFG_DMA_CTL_SKIP": 0x04,
            "FW_CFG_DMA_CTL_SELECT": 0x08,
            "FW_CFG_DMA_CTL_WRITE": 0x10,
            "FW_CFG_DMA_CTL_KEY_SHIFT": 16,
            "FW_CFG_MAX_FILE_PATH": 56,
            "FW_CFG_FILE_COUNT_BYTES": 4,
            "FW_CFG_MAX_FILES": 0x3FE0,
            "E820_FILE": b"etc/e820",
        },
    ),
    (
        acpi_loader,
        {
            "LOADER_FILE": b"etc/table-loader",
            "RSDP_FILE": b"etc/acpi/rsdp",
            "LOADER_FILE_NAME_BYTES": 56,
            "LOADER_ENTRY_BYTES": 128,
            "LOADER_ALLOCATE": 1,
            "LOADER_ADD_POINTER": 2,
            "LOADER_ADD_CHECKSUM": 3,
            "LOADER_WRITE_POINTER": 4,
            "LOADER_ZONE_HIGH": 1,
            "LOADER_ZONE_FSEG": 2,
        },
    ),
    (
        acpi,
        {
            "RSDP_SIGNATURE": b"RSD PTR ",
            "RSDP_V1_BYTES": 20,
            "RSDP_REVISION_2": 2,
            "FADT_SIGNATURE": b"FACP",
            "FADT_FACS": 36,
            "FADT_DSDT": 40,
        },
    ),
    # Linux Documentation/arch/x86/boot.rst and zero-page.rst: offset and struct format of a field.
    (
        boot_params,
        {
            "SETUP_SECTS": (0x1F1, "<B"),
            "VERSION": (0x206, "<H"),
            "KERNEL_VERSION": (0x20E, "<H"),
            "PAYLOAD": (0x248, "<II"),
            "BOOT_FLAG": (0x1FE, b"\x55\xaa"),
            "HEADER_MAGIC": (0x202, b"HdrS"),
            "HEADER": 0x1F1,
            "HEADER_JUMP": 0x201,
            "HEADER_MIN": 0x23C,
            "HEADER_MAX": 0x290,
            "TYPE_OF_LOADER": (0x210, "<B"),
            "LOADFLAGS": (0x211, "<B"),
            "CODE32_START": (0x214, "<I"),
            "RAMDISK_IMAGE": (0x218, "<I"),
            "RAMDISK_SIZE": (0x21C, "<I"),
            "CMD_LINE_PTR": (0x228, "<I"),
            "ALIGNMENT": (0x230, "<I"),
            "RELOCATABLE": (0x234, "<B"),
            "XLOADFLAGS": (0x236, "<H"),
            "CMDLINE_SIZE": (0x238, "<I"),
            "SETUP_DATA": (0x250, "<Q"),
            "PREF_ADDRESS": (0x258, "<Q"),
            "INIT_SIZE": (0x260, "<I"),
            "HANDOVER_OFFSET": (0x264, "<I"),
            "LOADED_HIGH": 1,
            "LOAD_PADDR_HIGH": 0x100000,
            "LOAD_PADDR_LOW": 0x10000,
            "QEMU_SETUP_PADDR": 0x10000,
            "REAL_MODE_ENTRY": 0x200,
            "LOADFLAG_NAMES": {1: "LOADED_HIGH", 2: "KASLR", 0x20: "QUIET", 0x40: "KEEP_SEGMENTS", 0x80: "CAN_USE_HEAP"},
            "XLF_KERNEL_64": 1,
            "ENTRY_64_OFFSET": 0x200,
            "XLOADFLAG_NAMES": {
                1: "KERNEL_64",
                2: "CAN_BE_LOADED_ABOVE_4G",
                4: "EFI_HANDOVER_32",
                8: "EFI_HANDOVER_64",
                0x10: "EFI_KEXEC",
                0x20: "5LEVEL",
                0x40: "5LEVEL_ENABLED",
                0x80: "MEM_ENCRYPTION",
            },
            "LOADER_UNDEFINED": 0xFF,
            "PROTOCOL_MIN": 0x206,
            "PROTOCOL_HEADER": 0x200,
            "PROTOCOL_ALIGNMENT": 0x205,
            "PROTOCOL_CMDLINE_SIZE": 0x206,
            "PROTOCOL_INIT_SIZE": 0x20A,
            "PROTOCOL_HANDOVER": 0x20B,
            "PROTOCOL_XLOADFLAGS": 0x20C,
            "BOOT_PARAMS_BYTES": 4096,
            "ACPI_RSDP_ADDR": (0x70, "<Q"),
            "E820_ENTRIES": (0x1E8, "<B"),
            "E820_TABLE": 0x2D0,
            "SECTOR_BYTES": 512,
            "DEFAULT_SETUP_SECTS": 4,
            "PAYLOAD_PROTOCOL": 0x208,
            "KERNEL_VERSION_BASE": 0x200,
        },
    ),
    # Intel 82441FX and 82Q35 datasheets; the chipsets themselves stand below.
    (
        chipset,
        {
            "PAM_REGISTERS": 7,
            "UPPER_MEMORY": 0xC0000,
            "F_SEGMENT": 0xF0000,
            "F_SEGMENT_END": 0x100000,
            "LOW_HOLE": 0xA0000,
            "PM_BASE": 0x600,
            "PM_BASE_IO": 1,
            "PCIEXBAR": 0xB0000000,
            "PCIEXBAR_ENABLE": 1,
            "PCIEXBAR_SIZE": 0x10000000,
            "ELCR_PORT": 0x4D0,
            "PIRQ_IRQS": (10, 10, 11, 11),
        },
    ),
    # PCI Local Bus Specification 3.0; PCI Express Base Specification, 7.2.2 (ECAM).
    (
        pci,
        {
            "PCI_CONFIG_ADDRESS": 0xCF8,
            "PCI_CONFIG_DATA": 0xCFC,
            "PCI_CONFIG_ENABLE": 0x80000000,
            "PCI_CONFIG_BUS_SHIFT": 16,
            "PCI_CONFIG_SLOT_SHIFT": 11,
            "PCI_CONFIG_FUNCTION_SHIFT": 8,
            "PCI_VENDOR_ID": 0x00,
            "PCI_HEADER_TYPE": 0x0E,
            "PCI_HEADER_MULTI_FUNCTION": 0x80,
            "PCI_INTERRUPT_LINE": 0x3C,
            "PCI_SLOTS": 32,
            "PCI_FUNCTIONS": 8,
            "PCI_CONFIG_SIZE": 256,
            "PCIE_CONFIG_SIZE": 4096,
        },
    ),
    # Intel SDM volume 3, chapter 11; Intel 82093AA datasheet.
    (
        apic,
        {
            "LOCAL_APIC": 0xFEE00000,
            "IO_APIC": 0xFEC00000,
            "LOCAL_APIC_VERSION": 0x14,
            "IO_APIC_VERSION": 0x11,
            "LOCAL_APIC_LVT_LAST": 5,
            "LOCAL_APIC_BYTES": 4096,
            "LOCAL_APIC_STEP": 16,
            "APIC_ID": 0xFEE00020,
            "APIC_VERSION": 0xFEE00030,
            "APIC_TPR": 0xFEE00080,
            "APIC_PPR": 0xFEE000A0,
            "APIC_EOI": 0xFEE000B0,
            "APIC_LDR": 0xFEE000D0,
            "APIC_DFR": 0xFEE000E0,
            "APIC_SVR": 0xFEE000F0,
            "APIC_ISR": 0xFEE00100,
            "APIC_TMR": 0xFEE00180,
            "APIC_IRR": 0xFEE00200,
            "APIC_ESR": 0xFEE00280,
            "APIC_ICR": 0xFEE00300,
            "APIC_ICR_HIGH": 0xFEE00310,
            "APIC_LVT_TIMER": 0xFEE00320,
            "APIC_LVT_THERMAL": 0xFEE00330,
            "APIC_LVT_COUNTERS": 0xFEE00340,
            "APIC_LVT_LINT0": 0xFEE00350,
            "APIC_LVT_LINT1": 0xFEE00360,
            "APIC_LVT_ERROR": 0xFEE00370,
            "APIC_TIMER_INITIAL": 0xFEE00380,
            "APIC_TIMER_CURRENT": 0xFEE00390,
            "APIC_TIMER_DIVIDE": 0xFEE003E0,
            "APIC_VECTORS": 256,
            "APIC_FIRST_VECTOR": 16,
            "APIC_VECTOR": 0xFF,
            "APIC_SVR_ENABLE": 0x100,
            "APIC_SVR_NO_FOCUS": 0x200,
            "APIC_LVT_MASKED": 0x10000,
            "APIC_TIMER_MODE": 0x60000,
            "APIC_TIMER_PERIODIC": 0x20000,
            "APIC_TIMER_DIVIDE_1": 0xB,
            "APIC_DELIVERY": 0x700,
            "APIC_ACTIVE_LOW": 0x2000,
            "APIC_LEVEL": 0x8000,
            "APIC_DELIVERY_FIXED": 0,
            "APIC_DELIVERY_LOWEST": 0x100,
            "APIC_DELIVERY_EXTINT": 0x700,
            "APIC_ICR_LOGICAL": 0x800,
            "APIC_ICR_SHORTHAND": 0xC0000,
            "APIC_ICR_SELF": 0x40000,
            "APIC_ICR_ALL": 0x80000,
            "APIC_DESTINATION_SHIFT": 24,
            "APIC_DFR_FLAT": 0xFFFFFFFF,
            "APIC_DFR_MODEL_SHIFT": 28,
            "APIC_ESR_SEND_VECTOR": 0x20,
            "APIC_ESR_RECEIVE_VECTOR": 0x40,
            "APIC_ESR_REGISTER": 0x80,
            "APIC_ICR_INIT": 0x500,
            "APIC_ICR_STARTUP": 0x600,
            "APIC_ICR_ASSERT": 0x4000,
            "APIC_ICR_ALL_BUT_SELF": 0xC0000,
            "CPUID_1_EBX_APIC_ID_SHIFT": 24,
            "APIC_IDS": 256,
            "ISA_IRQS": 16,
            "TIMER_PIN": 2,
            "IO_APIC_INDEX": 0,
            "IO_APIC_DATA": 0x10,
            "IO_APIC_BYTES": 4096,
            "IO_APIC_PINS": 24,
            "IO_APIC_ID": 0,
            "IO_APIC_VERSION_REGISTER": 1,
            "IO_APIC_ARBITRATION": 2,
            "IO_APIC_TABLE": 0x10,
            "IO_APIC_REMOTE": 0x4000,
            "IO_APIC_MASKED": 0x10000,
        },
    ),
    # Intel MultiProcessor Specification 1.4, chapter 4.
    (
        mptable,
        {
            "MP_FLOATING_SIGNATURE": b"_MP_",
            "MP_TABLE_SIGNATURE": b"PCMP",
            "MP_SPEC_1_4": 4,
            "MP_PARAGRAPH": 16,
            "MP_BASE_MEMORY": 0x9FC00,
            "MP_PROCESSOR": 0,
            "MP_BUS": 1,
            "MP_IO_APIC": 2,
            "MP_IO_INTERRUPT": 3,
            "MP_LOCAL_INTERRUPT": 4,
            "MP_PROCESSOR_ENABLED": 1,
            "MP_PROCESSOR_BOOTSTRAP": 2,
            "MP_IO_APIC_ENABLED": 1,
            "MP_INT": 0,
            "MP_NMI": 1,
            "MP_EXTINT": 3,
            "MP_CONFORMING": 0,
            "MP_ACTIVE_HIGH": 1,
            "MP_LEVEL": 0xC,
            "MP_ALL_APICS": 0xFF,
        },
    ),
    # DSP0134, 5.2; QEMU hw/smbios/smbios.c.
    (
        smbios,
        {
            "SMBIOS_ANCHOR_FILE": b"etc/smbios/smbios-anchor",
            "SMBIOS_TABLES_FILE": b"etc/smbios/smbios-tables",
            "SMBIOS_21_ANCHOR": b"_SM_",
            "SMBIOS_21_DMI_ANCHOR": b"_DMI_",
            "SMBIOS_30_ANCHOR": b"_SM3_",
        },
    ),
    (
        pam,
        {"SHADOW_START": 0xC0000, "SHADOW_END": 0x100000, "OPTION_ROMS_END": 0xE0000, "PAM_READ": 1, "PAM_WRITE": 2},
    ),
    # Intel 8259A datasheet; QEMU hw/intc/i8259_common.c.
    (
        pic,
        {
            "PIC_MASTER_PORT": 0x20,
            "PIC_SLAVE_PORT": 0xA0,
            "PIC_PORTS": 2,
            "PIC_ICW1": 0x10,
            "PIC_ICW1_IC4": 0x01,
            "PIC_ICW1_SINGLE": 0x02,
            "PIC_ICW1_LEVEL": 0x08,
            "PIC_ICW2_BASE": 0xF8,
            "PIC_ICW4_8086": 0x01,
            "PIC_ICW4_AUTO_EOI": 0x02,
            "PIC_ICW4_NESTED": 0x10,
            "PIC_INPUTS": 8,
            "PIC_CASCADE": 2,
            "PIC_OCW2_COMMAND": 0xE0,
            "PIC_OCW2_INPUT": 7,
            "PIC_ROTATE_IN_AUTO_EOI_OFF": 0,
            "PIC_EOI": 0x20,
            "PIC_SPECIFIC_EOI": 0x60,
            "PIC_ROTATE_IN_AUTO_EOI_ON": 0x80,
            "PIC_ROTATE_ON_EOI": 0xA0,
            "PIC_SET_PRIORITY": 0xC0,
            "PIC_ROTATE_ON_SPECIFIC_EOI": 0xE0,
            "PIC_OCW3": 0x08,
            "PIC_OCW3_READ_ISR": 0x01,
            "PIC_OCW3_READ": 0x02,
            "PIC_OCW3_POLL": 0x04,
            "PIC_OCW3_MASK_MODE": 0x20,
            "PIC_OCW3_SET_MASK_MODE": 0x40,
            "PIC_POLL_REQUEST": 0x80,
            "ELCR_WRITABLE": (0xF8, 0xDE),
        },
    ),
    # Intel 8254 datasheet; IBM PC AT Technical Reference, "System timers".
    (
        pit,
        {
            "PIT_HZ": 1193182,
            "PIT_PORT": 0x40,
            "PIT_PORTS": 4,
            "PIT_CHANNELS": 3,
            "PIT_CONTROL": 3,
            "PIT_IRQ": 0,
            "PIT_BCD": 1,
            "PIT_MODE_SHIFT": 1,
            "PIT_MODE_MASK": 7,
            "PIT_ACCESS_SHIFT": 4,
            "PIT_ACCESS_MASK": 3,
            "PIT_ACCESS_LATCH": 0,
            "PIT_ACCESS_LOW": 1,
            "PIT_ACCESS_HIGH": 2,
            "PIT_ACCESS_BOTH": 3,
            "PIT_CHANNEL_SHIFT": 6,
            "PIT_READ_BACK": 3,
            "PIT_READ_BACK_NO_COUNT": 0x20,
            "PIT_READ_BACK_NO_STATUS": 0x10,
            "PIT_STATUS_OUT": 0x80,
            "PIT_STATUS_NULL": 0x40,
            "PIT_ON_TERMINAL_COUNT": 0,
            "PIT_ONE_SHOT": 1,
            "PIT_RATE": 2,
            "PIT_SQUARE": 3,
            "PIT_SOFT_STROBE": 4,
            "PIT_HARD_STROBE": 5,
            "SYSTEM_PORT_B": 0x61,
            "PORT_B_GATE2": 1,
            "PORT_B_SPEAKER": 2,
            "PORT_B_WRITABLE": 0x0F,
            "PORT_B_REFRESH": 0x10,
            "PORT_B_OUT2": 0x20,
            "PORT_B_REFRESH_NS": 15085,
        },
    ),
    # Motorola MC146818A datasheet; IBM PC AT Technical Reference, "Real-time clock information".
    (
        rtc,
        {
            "RTC_IRQ": 8,
            "RTC_SECONDS": 0,
            "RTC_MINUTES": 2,
            "RTC_HOURS": 4,
            "RTC_WEEKDAY": 6,
            "RTC_DAY": 7,
            "RTC_MONTH": 8,
            "RTC_YEAR": 9,
            "RTC_A": 10,
            "RTC_B": 11,
            "RTC_C": 12,
            "RTC_D": 13,
            "RTC_CENTURY": 0x32,
            "RTC_HOURS_PM": 0x80,
            "RTC_ALARM_ANY": 0xC0,
            "RTC_A_UPDATING": 0x80,
            "RTC_A_DIVIDER": 0x20,
            "RTC_A_RATE": 0x0F,
            "RTC_A_RATE_1024_HZ": 6,
            "RTC_B_SET": 0x80,
            "RTC_B_PERIODIC": 0x40,
            "RTC_B_ALARM": 0x20,
            "RTC_B_UPDATE": 0x10,
            "RTC_B_BINARY": 4,
            "RTC_B_24H": 2,
            "RTC_C_IRQ": 0x80,
            "RTC_D_VALID": 0x80,
            "RTC_CRYSTAL_HZ": 32768,
            "RTC_UPDATE_NS": 2_228_000,
        },
    ),
    # ACPI 6.4, 4.8.3; Intel 82371AB datasheet, 7.2; Intel ICH9 datasheet, 13.8.3.
    (
        pm,
        {
            "PM1_STATUS": 0,
            "PM1_ENABLE": 2,
            "PM1_CONTROL": 4,
            "PM_TIMER": 8,
            "PM1_STATUS_TMR_STS": 1,
            "PM1_CONTROL_SCI_EN": 1,
            "PM1_CONTROL_SLP_EN": 0x2000,
            "PM_TIMER_BITS": 24,
            "PM_TIMER_HZ": 3579545,
            "APM_CONTROL_PORT": 0xB2,
            "POWER_MANAGEMENT": {"i440fx": (64, 0xF1, 0xF0), "q35": (128, 0x02, 0x03)},
        },
    ),
    (
        interrupts,
        {
            "DE": 0,
            "DB": 1,
            "BP": 3,
            "OF": 4,
            "UD": 6,
            "DF": 8,
            "TS": 10,
            "NP": 11,
            "SS": 12,
            "GP": 13,
            "PF": 14,
            "AC": 17,
            "MC": 18,
            "VE": 20,
            "CP": 21,
            "HAS_ERROR_CODE": {8, 10, 11, 12, 13, 14, 17, 21},
            "TRAPS_AND_ABORTS": {1, 2, 3, 4, 8, 18},
            "CONTRIBUTORY": {0, 10, 11, 12, 13, 21},
            "PAGE_FAULTS": {14, 20},
            "ERROR_EXT": 1,
            "ERROR_IDT": 2,
            "ERROR_INDEX_SHIFT": 3,
            "PF_PRESENT": 1,
            "PF_WRITE": 2,
            "PF_USER": 4,
            "PF_RESERVED": 8,
            "GATE_SIZE": 8,
            "GATE64_SIZE": 16,
            "GATE_TASK": 5,
            "GATE_INTERRUPT16": 6,
            "GATE_TRAP16": 7,
            "GATE_INTERRUPT": 14,
            "GATE_TRAP": 15,
            "GATE_IST_MASK": 7,
            "GATE_BYTES_16": 2,
            "GATE_BYTES_32": 4,
            "GATE_BYTES_64": 8,
            "GATE64_STACK_ALIGN": 16,
            "REAL_VECTOR_SIZE": 4,
            "TSS16_SP0": 2,
            "TSS32_ESP0": 4,
            "TSS64_RSP0": 4,
            "TSS64_IST1": 0x24,
            "TSS_TYPE_32_BIT": 8,
        },
    ),
    (
        paging,
        {
            "PAGE_SHIFT": 12,
            "PAGE_4M_SHIFT": 22,
            "PML4_SHIFT": 39,
            "CR4_PSE": 0x10,
            "CR4_PAE": 0x20,
            "EFER_SCE": 1,
            "EFER_LME": 0x100,
            "EFER_LMA": 0x400,
            "EFER_NXE": 0x800,
            "PTE_PRESENT": 1,
            "PTE_WRITABLE": 2,
            "PTE_USER": 4,
            "PTE_ACCESSED": 0x20,
            "PTE_DIRTY": 0x40,
            "PTE_LARGE": 0x80,
            "PTE_LARGE_PAT": 0x1000,
            "PTE_NO_EXECUTE": 0x8000000000000000,
            "PTE_ADDRESS": 0xFFFFFFFFFF000,
            "PSE36_SHIFT": 19,
            "PSE36_MASK": 0x1FE000,
            "PSE36_RESERVED": 0x200000,
            "TABLE_ENTRIES": 512,
            "PDPT_SHIFT": 30,
            "LARGE_PAGE_SHIFT": 21,
            "LARGE_PAGE": 0x200000,
        },
    ),
    (
        elf,
        {
            "NOTE_ALIGN": 4,
            "GNU_NOTE_NAME": b"GNU\0",
            "LINUX_NOTE_NAME": b"Linux\0",
            "NT_GNU_ABI_TAG": 1,
            "NT_GNU_BUILD_ID": 3,
            "NT_GNU_PROPERTY_TYPE_0": 5,
            "ELF_MAGIC": b"\x7fELF",
            "EI_CLASS": 4,
            "EI_DATA": 5,
            "EI_NIDENT": 16,
            "ELFCLASS32": 1,
            "ELFCLASS64": 2,
            "ELFDATA2LSB": 1,
            "ELFDATA2MSB": 2,
            "EV_CURRENT": 1,
            "ET_EXEC": 2,
            "E_MACHINE": 18,
            "EM_386": 3,
            "EM_X86_64": 62,
            "PN_XNUM": 0xFFFF,
            "PT_NULL": 0,
            "PT_LOAD": 1,
            "PT_NOTE": 4,
            "PF_X": 1,
            "PF_W": 2,
            "PF_R": 4,
            "SHT_PROGBITS": 1,
            "SHT_SYMTAB": 2,
            "SHT_STRTAB": 3,
            "SHT_NOTE": 7,
            "SHF_ALLOC": 2,
            "SHF_EXECINSTR": 4,
            "STB_GLOBAL": 1,
            "STT_FUNC": 2,
            "STT_NOTYPE": 0,
            "SHN_UNDEF": 0,
            "SHN_ABS": 0xFFF1,
        },
    ),
]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(module, name, value) for module, values in CONSTANTS for name, value in values.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_constant(module, name, value):
    assert getattr(module, name) == value


def test_names_of_xens_notes():
    values = {name: value for name, value in vars(pvh).items() if name.startswith("XEN_ELFNOTE_") and isinstance(value, int)}
    assert {f"XEN_ELFNOTE_{name}": value for value, name in pvh.XEN_ELFNOTE_NAMES.items()} == values


@pytest.mark.parametrize(("field", "size"), [(0, 5 * 512), (1, 2 * 512), (4, 5 * 512), (39, 40 * 512), (255, 256 * 512)])
def test_the_size_of_a_setup(field, size):
    """boot.rst: "If setup_sects is 0, the real value is 4", and the boot sector is not counted."""
    assert boot_params.setup_bytes(field) == size


@pytest.mark.parametrize(("version", "name"), [(0, "0.00"), (0x200, "2.00"), (0x20A, "2.10"), (0x20F, "2.15")])
def test_the_name_of_a_boot_protocol(version, name):
    assert boot_params.protocol_name(version) == name


def module_name(value):
    return value.__name__.rpartition(".")[2] if hasattr(value, "__name__") else None


ALL = ("",)


@pytest.mark.parametrize(
    ("module", "prefixes", "others"),
    [
        (x86, ("CR0_", "EFLAGS_"), {"CR0_NAMES", "EFLAGS_NAMES"}),
        (fw_cfg, ("FW_CFG_", "E820_"), {"FW_CFG_FILE", "FW_CFG_DMA"}),
        (firmware, ("POST_", "ROM_", "PANIC_", "MARK_"), set()),
        (acpi_loader, ("LOADER_", "RSDP_"), set()),
        # All that these have; what is named here is imported, or pinned by a test of its own.
        (acpi, ALL, {"RSDP", "SDT_HEADER"}),
        (boot_params, ALL, {"SETUP_DATA_HEAD"}),
        (chipset, ALL, {"PCI_SLOTS", "I440FX", "ICH9"}),
        (pci, ALL, set()),
        (apic, ALL, set()),
        (
            mptable,
            ALL,
            {"MP_FLOATING", "MP_TABLE", "MP_PROCESSOR_ENTRY", "MP_BUS_ENTRY", "MP_IO_APIC_ENTRY", "MP_INTERRUPT_ENTRY"},
        ),
        (smbios, ALL, {"SMBIOS_21", "SMBIOS_30"}),
        (pam, ALL, {"F_SEGMENT", "F_SEGMENT_END", "PAM_PIECES", "UPPER_MEMORY"}),
        (pic, ALL, set()),
        (pit, ALL, set()),
        (rtc, ALL, set()),
        (pm, ALL, {"I440FX", "ICH9"}),
        (interrupts, ALL, {"VECTOR_NAMES"}),
        (paging, ALL, {"CR4_NAMES", "EFER_NAMES"}),
        (elf, ALL, set()),
    ],
    ids=module_name,
)
def test_no_constant_is_left_out(module, prefixes, others):
    pinned = {name for one, values in CONSTANTS if one is module for name in values}
    public = {name for name in vars(module) if name.isupper() and not name.startswith("_")}
    assert {name for name in public if name.startswith(prefixes)} - pinned == others


# The chipsets, by their datasheets; where interrupts go by QEMU hw/isa/piix3.c and hw/isa/lpc_ich9.c.


def test_i440fx():
    assert chipset.I440FX._asdict() == {
        "name": "i440fx",
        "host": (0, 0),
        "host_id": 0x12378086,
        "pam": 0x59,
        "pciexbar": None,
        "isa": (1, 0),
        "pirq": (0x60,),
        "pm": (1, 3),
        "pm_base": 0x40,
        "pm_control": 0x80,
        "pm_enable": 0x01,
        "pirqs": (3, 0, 1, 2) * 8,
        "pins": (10, 10, 11, 11, 10, 10, 11, 11),
    }


def test_ich9():
    assert chipset.ICH9._asdict() == {
        "name": "q35",
        "host": (0, 0),
        "host_id": 0x29C08086,
        "pam": 0x90,
        "pciexbar": 0x60,
        "isa": (31, 0),
        "pirq": (0x60, 0x68),
        "pm": (31, 0),
        "pm_base": 0x40,
        "pm_control": 0x44,
        "pm_enable": 0x80,
        "pirqs": (4, 5, 6, 7) * 6 + (4, 0, 0, 0, 0, 0, 4, 0),
        "pins": (16, 17, 18, 19, 20, 21, 22, 23),
    }


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ((0, 0, 0), 0x80000000),
        ((1, 3, 0x40), 0x80000B40),
        ((31, 7, 0xFF), 0x8000FFFC),
        ((31, 0, 0x3D), 0x8000F83C),
        ((2, 1, 0x0E, 5), 0x8005110C),
    ],
)
def test_config_address(place, address):
    assert pci.config_address(*place) == address


# (register, bit, start, end): 82441FX datasheet, table 10 (PAM registers and associated memory segments).
PAM_PIECES = [
    (1, 0, 0xC0000, 0xC4000),
    (1, 4, 0xC4000, 0xC8000),
    (2, 0, 0xC8000, 0xCC000),
    (2, 4, 0xCC000, 0xD0000),
    (3, 0, 0xD0000, 0xD4000),
    (3, 4, 0xD4000, 0xD8000),
    (4, 0, 0xD8000, 0xDC000),
    (4, 4, 0xDC000, 0xE0000),
    (5, 0, 0xE0000, 0xE4000),
    (5, 4, 0xE4000, 0xE8000),
    (6, 0, 0xE8000, 0xEC000),
    (6, 4, 0xEC000, 0xF0000),
    (0, 4, 0xF0000, 0x100000),
]


def test_pam_pieces():
    assert [tuple(piece) for piece in pam.PAM_PIECES] == PAM_PIECES


def test_names_of_cr0_bits_are_those_of_the_constants():
    assert {f"CR0_{name}": bit for bit, name in x86.CR0_NAMES.items()} == {
        name: value for name, value in vars(x86).items() if name.startswith("CR0_") and isinstance(value, int)
    }


def test_names_of_eflags_bits_are_those_of_the_constants():
    assert {f"EFLAGS_{name}": bit for bit, name in x86.EFLAGS_NAMES.items()} == {
        name: value
        for name, value in vars(x86).items()
        if name.startswith("EFLAGS_") and isinstance(value, int) and name not in ("EFLAGS_FIXED", "EFLAGS_ARITHMETIC")
    }


def test_names_of_cr4_and_efer_bits():
    low = "VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE"
    in_order = f"{low} - FSGSBASE PCIDE OSXSAVE - SMEP SMAP PKE".split()
    assert {1 << bit: name for bit, name in enumerate(in_order) if name != "-"} == paging.CR4_NAMES
    assert paging.EFER_NAMES == {0x1: "SCE", 0x100: "LME", 0x400: "LMA", 0x800: "NXE"}


@pytest.mark.parametrize("spec", machines.FIRMWARES.values(), ids=lambda spec: spec.name)
def test_descriptors(spec):
    symbols = defs.firmware_symbols(spec, defs.Options())
    assert symbols["DESC_CODE32"] == 0x00CF9B000000FFFF
    assert symbols["DESC_DATA32"] == 0x00CF93000000FFFF
    assert symbols["DESC_TSS"] == 0x0000890000000067
    assert (symbols["SEL_CODE32"], symbols["SEL_DATA32"], symbols["SEL_TSS"]) == (0x10, 0x18, 0x08)
    assert symbols["GDT_SIZE"] == 32
    assert symbols["MTRR_DEF_TYPE_VALUE"] == 0x806


def test_descriptor_spreads_base_and_limit():
    assert x86.descriptor(0x12345678, 0xABCDE, 0xB, x86.DESC_P) == 0x120A8B345678BCDE
    assert x86.DESC_L == 0x0020000000000000


@pytest.mark.parametrize(("base", "limit"), [(0, 0x100000), (1 << 32, 0), (-1, 0), (0, -1)])
def test_descriptor_refuses_what_does_not_fit(base, limit):
    with pytest.raises(ValueError, match="does not fit a descriptor"):
        x86.descriptor(base, limit, 0, 0)


def test_reset_segments():
    assert x86.RESET_CS == (0xF000, 0xFFFF0000, 0xFFFF, 0xB, True, True, False, False, False)
    assert x86.RESET_DATA == (0, 0, 0xFFFF, 0x3, True, True, False, False, False)
    assert x86.RESET_TR == (0, 0, 0xFFFF, 0xB, False, True, False, False, False)
    assert x86.RESET_LDTR == (0, 0, 0xFFFF, 0x2, False, True, False, False, False)


# The numbers that stand in the firmware's instructions: what they come from is pinned above.
FW_CFG_SYMBOLS = {
    "FW_CFG_READ_SIGNATURE": 0x0A000000,
    "FW_CFG_READ_FILE_DIR": 0x0A001900,
    "FW_CFG_READ_KERNEL_ENTRY": 0x0A001000,
    "FW_CFG_READ_KERNEL_ADDR": 0x0A000700,
    "FW_CFG_READ_KERNEL_SIZE": 0x0A000800,
    "FW_CFG_READ_KERNEL_DATA": 0x0A001100,
    "FW_CFG_READ_SETUP_DATA": 0x0A001800,
    "FW_CFG_READ_NB_CPUS": 0x0A000500,
    "FW_CFG_READ_CMDLINE_SIZE": 0x0A001400,
    "FW_CFG_READ_CMDLINE_DATA": 0x0A001500,
    "FW_CFG_READ_INITRD_ADDR": 0x0A000A00,
    "FW_CFG_READ_INITRD_SIZE": 0x0A000B00,
    "FW_CFG_READ_INITRD_DATA": 0x0A001200,
    "FW_CFG_READ_ON": 0x02000000,
    "FW_CFG_READ_SELECTED": 0x0A000000,
    "FW_CFG_NUMBER_BYTES": 0x04000000,
    "FW_CFG_DIR_FIRST_BYTES": 0x040A0000,  # 2564
    "FW_CFG_DIR_NEXT_BYTES": 0x000A0000,  # 2560
    "BOOT_HEADER_BYTES": 0x90020000,  # 0x290
    "FW_CFG_SIGNATURE_VALUE": 0x554D4551,  # QEMU
    "FW_CFG_DMA_SIGNATURE_VALUE": 0x554D4551,
    "E820_FILE_0": 0x2F637465,  # etc/
    "E820_FILE_4": 0x30323865,  # e820
    "FW_CFG_DMA_PADDR": 0x1020,
    "FW_CFG_DMA_PADDR_SWAPPED": 0x20100000,
    "FW_CFG_WORD_PADDR": 0x1030,
    "ENTRY_POINTER": 0x1034,
    "KERNEL_ADDR_PADDR": 0x1038,
    "KERNEL_SIZE_PADDR": 0x103C,
    "LINUX_ENTRY": 0x1040,
    "TRANSFER_PADDR": 0x3000,
    "STRINGS_PADDR": 0x20000,
    "FIRMWARE_END": 0x28000,
    "LOW_HOLE_END": 0x100000,
    "FROM_FW_CFG": 1,
}

# And those of the Linux boot protocol.
LINUX_SYMBOLS = {
    "BOOT_HEADER": 0x1F1,
    "BOOT_HEADER_JUMP": 0x201,
    "BOOT_HEADER_MAGIC": 0x202,
    "BOOT_HEADER_MAGIC_VALUE": 0x53726448,  # HdrS
    "BOOT_HEADER_MIN": 0x23C,
    "BOOT_HEADER_MAX": 0x290,
    "BOOT_VERSION": 0x206,
    "BOOT_PROTOCOL_MIN": 0x206,
    "BOOT_PROTOCOL_INIT_SIZE": 0x20A,
    "BOOT_TYPE_OF_LOADER": 0x210,
    "BOOT_LOADER_UNDEFINED": 0xFF,
    "BOOT_LOADFLAGS": 0x211,
    "BOOT_LOADED_HIGH": 1,
    "BOOT_RAMDISK_IMAGE": 0x218,
    "BOOT_RAMDISK_SIZE": 0x21C,
    "BOOT_CMD_LINE_PTR": 0x228,
    "BOOT_ALIGNMENT": 0x230,
    "BOOT_RELOCATABLE": 0x234,
    "BOOT_SETUP_DATA": 0x250,
    "BOOT_PREF_ADDRESS": 0x258,
    "BOOT_INIT_SIZE": 0x260,
    "BOOT_ACPI_RSDP_ADDR": 0x70,
    "BOOT_E820_ENTRIES": 0x1E8,
    "BOOT_E820_TABLE": 0x2D0,
    "BOOT_PARAMS_PADDR": 0x4000,
    "SIZEOF_BOOT_PARAMS": 4096,
    "SETUP_DATA_PADDR": 0x10000,
    "SETUP_DATA_END": 0x20000,
    "SETUP_DATA_MAX": 32,
    "SETUP_DATA_NEXT": 0,
    "SETUP_DATA_LEN": 12,
    "SIZEOF_SETUP_DATA": 16,
}
WITH_FW_CFG = [spec for spec in machines.FIRMWARES.values() if spec is not machines.BARE]


@pytest.mark.parametrize("spec", WITH_FW_CFG, ids=lambda spec: spec.name)
def test_symbols_of_fw_cfg(spec):
    symbols = defs.firmware_symbols(spec, defs.Options())
    assert {name: symbols[name] for name in FW_CFG_SYMBOLS} == FW_CFG_SYMBOLS
    assert {name: symbols[name] for name in LINUX_SYMBOLS} == LINUX_SYMBOLS
    assert symbols["E820_PADDR"] == (0x3000 if spec is machines.MICROVM else 0x8000)
    assert "PARAMS_PADDR" not in symbols


def test_bare_has_no_symbols_of_fw_cfg():
    symbols = defs.firmware_symbols(machines.BARE, defs.Options())
    others = {*FW_CFG_SYMBOLS, *LINUX_SYMBOLS} - {"ENTRY_POINTER", "STRINGS_PADDR", "FROM_FW_CFG"}
    assert not others & symbols.keys()
    assert (symbols["ENTRY_POINTER"], symbols["FROM_FW_CFG"]) == (0xFFFF000C, 0)


# Which parts a firmware has: ACPI, CHIPSET, DETECTS, MACHINE_RECORDS, MP_RAM.
PARTS = {
    "bare": (0, 0, 0, None, None),
    "microvm": (0, 0, 0, None, 1),
    "microvm-acpi": (1, 0, 0, None, None),
    "pc": (1, 1, 0, 1, 0),
    "q35": (1, 1, 0, 1, 0),
    "universal": (1, 1, 1, 3, 1),
}


@pytest.mark.parametrize("spec", machines.FIRMWARES.values(), ids=lambda spec: spec.name)
def test_the_parts_of_a_firmware(spec):
    symbols = defs.firmware_symbols(spec, defs.Options())
    names = ("ACPI", "CHIPSET", "DETECTS", "MACHINE_RECORDS", "MP_RAM")
    assert tuple(symbols.get(name) for name in names) == PARTS[spec.name]


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (defs.Options(), (0, 0)),
        (defs.Options(verbose=True), (1, 0)),
        (defs.Options(marks=True), (0, 1)),
        (defs.Options(0x20000, True, True), (1, 1)),
    ],
)
def test_the_options_of_a_build(options, values):
    symbols = defs.firmware_symbols(machines.MICROVM, options)
    assert (symbols["VERBOSE"], symbols["MARKS"]) == values
    assert {name: value for name, value in symbols.items() if name.startswith("MARK_")} == {
        "MARK_FIRMWARE_PORT": 0xF5,
        "MARK_LINUX_PORT": 0xF4,
        "MARK_FIRMWARE_START": 1,
        "MARK_LINUX_FW_CFG": 2,
        "MARK_LINUX_BOOT": 3,
        "MARK_LINUX_PVH": 4,
        "MARK_FIRMWARE_BOOT": 5,
        "MARK_LINUX_KERNEL": 6,
        "MARK_LINUX_USER": 7,
    }


# The table-loader.
ACPI_SYMBOLS = {
    "LOADER_ALLOCATE": 1,
    "LOADER_ALLOCATE_FILE": 4,
    "LOADER_ALLOCATE_ALIGN": 60,
    "LOADER_ALLOCATE_ZONE": 64,
    "LOADER_ZONE_FSEG": 2,
    "LOADER_ADD_POINTER": 2,
    "LOADER_ADD_POINTER_DEST": 4,
    "LOADER_ADD_POINTER_SRC": 60,
    "LOADER_ADD_POINTER_OFFSET": 116,
    "LOADER_ADD_POINTER_SIZE": 120,
    "LOADER_ADD_CHECKSUM": 3,
    "LOADER_ADD_CHECKSUM_FILE": 4,
    "LOADER_ADD_CHECKSUM_OFFSET": 60,
    "LOADER_ADD_CHECKSUM_START": 64,
    "LOADER_ADD_CHECKSUM_LENGTH": 68,
    "LOADER_WRITE_POINTER": 4,
    "LOADER_WRITE_POINTER_DEST": 4,
    "LOADER_WRITE_POINTER_SRC": 60,
    "LOADER_WRITE_POINTER_DST_OFFSET": 116,
    "LOADER_WRITE_POINTER_SRC_OFFSET": 120,
    "LOADER_WRITE_POINTER_SIZE": 124,
    "LOADER_ENTRY_BYTES": 128,
    "LOADER_MAX_BYTES": 0x4000,
    "LOADER_PADDR": 0xA000,
    "ALLOCATED_PADDR": 0x9000,
    "ALLOCATED_END": 0x9180,
    "ALLOCATED_NAME": 0,
    "ALLOCATED_ADDRESS": 4,
    "ALLOCATED_SIZE": 8,
    "SIZEOF_ALLOCATED": 12,
    "ACPI_RAM": 0x7030,
    "MEMMAP_TYPE_ACPI": 3,
    "PAGE_SIZE": 0x1000,
    "FW_CFG_READ_TO_SKIP": 0x06000000,
    "FW_CFG_WRITE_ON": 0x10000000,
    "RSDP_PADDR": 0x1044,
    "ACPI_TOP": 0x1048,
    "ACPI_BOTTOM": 0x104C,
    "ACPI_FLOOR": 0x1050,
    "ACPI_POINTER": 0x1054,
    "ACPI_POINTER_HIGH": 0x1058,
}

# PCI, SMBIOS and the F segment.
CHIPSET_SYMBOLS = {
    "F_SEGMENT": 0xF0000,
    "UPPER_MEMORY": 0xC0000,
    "UPPER_END": 0x105C,
    "UPPER_START": 0x1060,
    "FSEG_END": 0x1064,
    "FSEG_START": 0x1068,
    "PCI_CONFIG_ADDRESS": 0xCF8,
    "PCI_CONFIG_DATA": 0xCFC,
    "PCI_SLOTS": 32,
    "PCI_INTX": 128,
    "CONFIG_INTERRUPTS": 0x8000003C,
    "CONFIG_HEADER": 0x8000000C,
    "CONFIG_MULTI_FUNCTION": 0x00800000,
    "CONFIG_FUNCTION_STEP": 0x100,
    "CONFIG_FUNCTION_MASK": 0x700,
    "CONFIG_SLOT_STEP": 0x800,
    "ELCR_HIGH_PORT": 0x4D1,
    "ELCR_HIGH_VALUE": 0x0C,  # IRQ 10 and 11
    "HOST_BRIDGE": 0x80000000,
    "SMBIOS_21_ANCHOR_VALUE": 0x5F4D535F,  # _SM_
    "SMBIOS_30_ANCHOR_VALUE": 0x334D535F,  # _SM3
    "SMBIOS_21_CHECKSUM": 4,
    "SMBIOS_21_DMI_ANCHOR": 16,
    "SMBIOS_21_DMI_CHECKSUM": 21,
    "SMBIOS_21_TABLE_ADDRESS": 24,
    "SIZEOF_SMBIOS_21": 31,
    "SMBIOS_30_CHECKSUM": 5,
    "SMBIOS_30_TABLE_ADDRESS": 16,
    "SIZEOF_SMBIOS_30": 24,
}

# The MP table.
MP_SYMBOLS = {
    "MP_FLOATING_SIGNATURE_VALUE": 0x5F504D5F,  # _MP_
    "MP_FLOATING_SIGNATURE": 0,
    "MP_FLOATING_TABLE": 4,
    "MP_FLOATING_LENGTH": 8,
    "MP_FLOATING_CHECKSUM": 10,
    "MP_FLOATING_FEATURES": 11,
    "SIZEOF_MP_FLOATING": 16,
    "MP_TABLE_LENGTH": 4,
    "MP_TABLE_CHECKSUM": 7,
    "MP_TABLE_ENTRIES": 34,
    "SIZEOF_MP_TABLE": 44,
    "SIZEOF_MP_PROCESSOR": 20,
    "SIZEOF_MP_INTERRUPT": 8,
    "MP_PROCESSOR": 0,
    "MP_IO_INTERRUPT": 3,
    "MP_PROCESSOR_ENABLED": 1,
    "MP_PROCESSOR_BOOTSTRAP": 2,
    "MP_PCI_FLAGS": 0x0D,  # active high, level
    "MP_SPEC_1_4": 4,
    "MP_PARAGRAPH": 16,
    "MP_BASE_MEMORY": 0x9FC00,
    "APIC_SVR": 0xFEE000F0,
    "APIC_SVR_ENABLE": 0x100,
    "APIC_ICR": 0xFEE00300,
    "APIC_ICR_INIT": 0x500,
    "APIC_ICR_STARTUP": 0x600,
    "APIC_ICR_ASSERT": 0x4000,
    "APIC_ICR_ALL_BUT_SELF": 0xC0000,
    "APIC_IDS": 256,
    "LOCAL_APIC_VERSION": 0x14,
    "CPUID_1_EBX_APIC_ID_SHIFT": 24,
    "CPU_POLLS": 1 << 24,
    "AP_PADDR": 0x3000,
    "CPU_PRESENT": 0x3100,
    "CPU_COUNT": 0x3200,
    "CPU_SIGNATURE": 0x3204,
    "CPU_FEATURES": 0x3208,
}
MP_RAM_SYMBOLS = {"MP_PADDR": 0x9E000, "MP_RAM_END": 0xA0000}
DETECTS_SYMBOLS = {"MACHINE_POINTER": 0x106C}


@pytest.mark.parametrize(
    ("table", "firmwares"),
    [
        (ACPI_SYMBOLS, "microvm-acpi pc q35 universal"),
        (CHIPSET_SYMBOLS, "pc q35 universal"),
        (MP_SYMBOLS, "microvm pc q35 universal"),
        (MP_RAM_SYMBOLS, "microvm universal"),
        (DETECTS_SYMBOLS, "universal"),
    ],
    ids=["acpi", "chipset", "mp", "mp-ram", "detects"],
)
def test_symbols_of_a_part(table, firmwares):
    """They are what they should be where the part is, and not there where it is not."""
    for spec in machines.FIRMWARES.values():
        symbols = defs.firmware_symbols(spec, defs.Options())
        present = {name: symbols[name] for name in table if name in symbols}
        assert present == (table if spec.name in firmwares.split() else {}), spec.name


def test_the_code_of_a_processor_fits_before_what_it_writes():
    """It is copied to AP_PADDR, and CPU_PRESENT is in the same page."""
    blob = image.build(machines.UNIVERSAL)
    assert 0 < blob.symbols["ap_end"] - blob.symbols["ap_start"] <= 0x100


def test_panics_have_their_own_codes_and_names():
    assert len({panic.code for panic in firmware.PANICS}) == len(firmware.PANICS)
    assert len({panic.name for panic in firmware.PANICS}) == len(firmware.PANICS)


# Progress, of verbose builds.
POSTS = [
    (0x10, "PROTECTED_MODE", "flat 32-bit protected mode"),
    (0x18, "CHIPSET", "the chipset"),
    (0x20, "PARAMS", "what to boot"),
    (0x30, "MEMMAP", "the memory map"),
    (0x38, "MODULES", "kernel, command line and initrd"),
    (0x3C, "ACPI", "ACPI tables"),
    (0x3D, "SMBIOS", "SMBIOS tables"),
    (0x3E, "MP_TABLE", "the MP table"),
    (0x40, "START_INFO", "start_info"),
    (0x50, "STAGE", "the custom stage"),
    (0x60, "HANDOFF", "the handoff"),
]


def test_posts_are_a_contract():
    assert [tuple(post) for post in firmware.POSTS] == POSTS
    assert not {code for code, _, _ in POSTS} & {panic.code for panic in firmware.PANICS}
    assert [firmware.post_message(post) for post in firmware.POSTS] == [f"pvhboot {code:#x} {text}" for code, _, text in POSTS]


# Name, code, and which firmwares have it.
_ACPI = "microvm-acpi pc q35 universal"
_FW_CFG = f"microvm {_ACPI}"
_ALL = f"bare {_FW_CFG}"
PANICS = [
    ("NO_PARAMS", 0xE0, "bare"),
    ("PARAMS_MAGIC", 0xE1, "bare"),
    ("PARAMS_VERSION", 0xE2, "bare"),
    ("PARAMS_SIZE", 0xE3, "bare"),
    ("NO_ENTRY", 0xE4, "bare"),
    ("E820_COUNT", 0xE5, _ALL),
    ("MODULE_COUNT", 0xE6, "bare"),
    ("STRING_END", 0xE7, _ALL),
    ("STRING_OFFSET", 0xE8, "bare"),
    ("STAGE_END", 0xE9, _ALL),
    ("NO_FW_CFG", 0xEA, _FW_CFG),
    ("FW_CFG_DMA", 0xEB, _FW_CFG),
    ("FW_CFG_FILES", 0xEC, _FW_CFG),
    ("NO_E820", 0xED, _FW_CFG),
    ("E820_LOW", 0xEE, _FW_CFG),
    ("E820_OVERLAP", 0xEF, _FW_CFG),
    ("NO_KERNEL", 0xF0, _FW_CFG),
    ("CMDLINE_SIZE", 0xF1, _FW_CFG),
    ("INITRD_RAM", 0xF2, _FW_CFG),
    ("INITRD_KERNEL", 0xF3, _FW_CFG),
    ("KERNEL_RAM", 0xF4, _FW_CFG),
    ("KERNEL_ENTRY", 0xF5, _FW_CFG),
    ("ACPI_SCRIPT", 0xF6, _ACPI),
    ("ACPI_FILE", 0xF7, _ACPI),
    ("ACPI_ROOM", 0xF8, _ACPI),
    ("BOOT_PROTOCOL", 0xF9, _FW_CFG),
    ("SETUP_DATA", 0xFA, _FW_CFG),
]


def test_panics_are_a_contract():
    def machines_with(panic):
        return " ".join(spec.name for spec in machines.FIRMWARES.values() if panic in image.panics_of(spec))

    assert [(panic.name, panic.code, machines_with(panic)) for panic in firmware.PANICS] == PANICS


@pytest.mark.parametrize("panic", firmware.PANICS, ids=lambda panic: panic.name)
def test_panic_message_fits_its_record(panic):
    message = firmware.panic_message(panic)
    assert message.startswith(f"pvhboot panic {panic.code:#x} {panic.name}: ")
    assert message.isascii()
    assert len(message) + 1 <= 255  # the record has one byte for the length, line feed included


def test_panic_message_in_full():
    assert firmware.panic_message(firmware.PANICS[0]) == "pvhboot panic 0xe0 NO_PARAMS: the ROM's parameter block is empty"


@pytest.mark.parametrize(
    ("at", "flags", "checksum", "found"),
    [
        (0, 0x10003, 0x100000000 - 0x1BADB002 - 0x10003, True),
        (4, 0, 0xE4524FFE, True),
        (8140, 0, 0xE4524FFE, True),  # the last place at which QEMU looks
        (8144, 0, 0xE4524FFE, False),
        (2, 0, 0xE4524FFE, False),
        (4, 1, 0xE4524FFE, False),
    ],
)
def test_multiboot_header(at, flags, checksum, found):
    head = bytearray(8192)
    struct.pack_into("<III", head, at, 0x1BADB002, flags, checksum)
    assert multiboot.find_header(head) == (at if found else None)
