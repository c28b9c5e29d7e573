"""Every structure and constant of shim/abi against literal numbers of the specifications.

Generator and checker share these definitions, so a wrong one would agree with itself: the numbers here are written out
on purpose, and taken from no definition of ours.
"""

import itertools
import struct

import pytest
from pvhboot.shim import defs, image, machines
from pvhboot.shim.abi import acpi_loader, boot_params, e820, firmware, fw_cfg, multiboot, params, pvh, x86
from pvhboot.shim.abi.layout import Layout
from pvhboot.shim.errors import BootError

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
]
TEXTS = ("name", "file", "dest", "src", "padding")
BIG_ENDIAN = (fw_cfg.FW_CFG_FILE, fw_cfg.FW_CFG_DMA)


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_layout(layout, size, fields):
    assert layout.size == size
    assert {name: tuple(field) for name, field in layout.fields.items()} == fields


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_each_field_lies_in_the_right_byte_order_where_it_is_said_to(layout, size, fields):
    for name, (offset, width) in fields.items():
        data = bytes(range(0xA1, 0xA1 + width))
        value = data if name in TEXTS else int.from_bytes(data, "big" if layout in BIG_ENDIAN else "little")
        record = layout.unpack(bytes(size))._replace(**{name: value})
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
            "PARAMS_MAX_MODULES": 120,
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
            "EFLAGS_VM": 0x20000,
            "EFLAGS_ARITHMETIC": 0x8D5,
            "DESC_SIZE": 8,
            "PAGE_SIZE": 4096,
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
            "POST_PROTECTED_MODE": 0x10,
            "POST_PARAMS": 0x20,
            "POST_MEMMAP": 0x30,
            "POST_MODULES": 0x38,
            "POST_ACPI": 0x3C,
            "POST_START_INFO": 0x40,
            "POST_STAGE": 0x50,
            "POST_HANDOFF": 0x60,
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
            "FW_CFG_MAX_CPUS": 0x0F,
            "FW_CFG_KERNEL_ENTRY": 0x10,
            "FW_CFG_INITRD_DATA": 0x12,
            "FW_CFG_CMDLINE_SIZE": 0x14,
            "FW_CFG_CMDLINE_DATA": 0x15,
            "FW_CFG_SETUP_SIZE": 0x17,
            "FW_CFG_SETUP_DATA": 0x18,
            "FW_CFG_FILE_DIR": 0x19,
            "FW_CFG_FILE_FIRST": 0x20,
            "FW_CFG_WRITE_CHANNEL": 0x4000,
            "FW_CFG_ARCH_LOCAL": 0x8000,
            "FW_CFG_IRQ0_OVERRIDE": 0x8002,
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
    (machines, {"FW_CFG_DIR_CHUNK": 40, "FW_CFG_MAX_E820": 123, "CMDLINE_MAX": 0x8000}),
    (machines, {"LOADER_MAX_BYTES": 0x4000, "ALLOCATED_MAX": 32, "FW_CFG_WORDS": 4, "ACPI_WORDS": 6}),
]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [(module, name, value) for module, values in CONSTANTS for name, value in values.items()],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_constant(module, name, value):
    assert getattr(module, name) == value


@pytest.mark.parametrize(
    ("module", "prefixes", "others"),
    [
        (x86, ("CR0_", "EFLAGS_"), {"CR0_NAMES"}),
        (fw_cfg, ("FW_CFG_", "E820_"), {"FW_CFG_FILE", "FW_CFG_DMA"}),
        (firmware, ("POST_", "ROM_", "PANIC_"), set()),
        (acpi_loader, ("LOADER_", "RSDP_"), set()),
    ],
    ids=["x86", "fw_cfg", "firmware", "acpi_loader"],
)
def test_no_constant_is_left_out(module, prefixes, others):
    pinned = {name for one, values in CONSTANTS if one is module for name in values}
    assert {name for name in vars(module) if name.startswith(prefixes)} - pinned == others


def test_names_of_cr0_bits_are_those_of_the_constants():
    assert {f"CR0_{name}": bit for bit, name in x86.CR0_NAMES.items()} == {
        name: value for name, value in vars(x86).items() if name.startswith("CR0_") and isinstance(value, int)
    }


@pytest.mark.parametrize("spec", machines.MACHINES.values(), ids=lambda spec: spec.name)
def test_descriptors(spec):
    symbols = defs.firmware_symbols(spec, False, 0x10000)
    assert symbols["DESC_CODE32"] == 0x00CF9B000000FFFF
    assert symbols["DESC_DATA32"] == 0x00CF93000000FFFF
    assert symbols["DESC_TSS"] == 0x0000890000000067
    assert (symbols["SEL_CODE32"], symbols["SEL_DATA32"], symbols["SEL_TSS"]) == (0x08, 0x10, 0x18)
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
    "FW_CFG_READ_CMDLINE_SIZE": 0x0A001400,
    "FW_CFG_READ_CMDLINE_DATA": 0x0A001500,
    "FW_CFG_READ_INITRD_ADDR": 0x0A000A00,
    "FW_CFG_READ_INITRD_SIZE": 0x0A000B00,
    "FW_CFG_READ_INITRD_DATA": 0x0A001200,
    "FW_CFG_READ_ON": 0x02000000,
    "FW_CFG_SIGNATURE_VALUE": 0x554D4551,  # QEMU
    "FW_CFG_DMA_SIGNATURE_VALUE": 0x554D4551,
    "E820_FILE_0": 0x2F637465,  # etc/
    "E820_FILE_4": 0x30323865,  # e820
    "FW_CFG_DMA_PADDR": 0x1020,
    "FW_CFG_DMA_PADDR_SWAPPED": 0x20100000,
    "FW_CFG_WORD_PADDR": 0x1030,
    "ENTRY_POINTER": 0x1034,
    "TRANSFER_PADDR": 0x3000,
    "STRINGS_PADDR": 0x20000,
    "LOW_ROM_END": 0x100000,
}


@pytest.mark.parametrize(
    ("rom_size", "low_rom", "rom"),
    [(0x10000, 0xF0000, 0xFFFF0000), (0x20000, 0xE0000, 0xFFFE0000), (0x40000, 0xE0000, 0xFFFC0000)],
)
def test_symbols_of_microvm(rom_size, low_rom, rom):
    symbols = defs.firmware_symbols(machines.MICROVM, False, rom_size)
    assert {name: symbols[name] for name in FW_CFG_SYMBOLS} == FW_CFG_SYMBOLS
    with_acpi = defs.firmware_symbols(machines.MICROVM_ACPI, False, rom_size)
    assert {name: with_acpi[name] for name in FW_CFG_SYMBOLS} == FW_CFG_SYMBOLS
    assert (symbols["E820_PADDR"], with_acpi["E820_PADDR"]) == (0x3000, 0x8000)
    assert (symbols["ACPI"], with_acpi["ACPI"]) == (0, 1)
    assert (symbols["LOW_ROM_START"], symbols["ROM_PADDR"], symbols["ROM_SIZE"]) == (low_rom, rom, rom_size)
    assert "PARAMS_PADDR" not in symbols
    assert not any(name.startswith("FW_CFG_") for name in defs.firmware_symbols(machines.BARE, False, rom_size))


# And those of the table-loader.
ACPI_SYMBOLS = {
    "LOADER_ALLOCATE": 1,
    "LOADER_ALLOCATE_FILE": 4,
    "LOADER_ALLOCATE_ALIGN": 60,
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
}


def test_symbols_of_microvm_acpi():
    symbols = defs.firmware_symbols(machines.MICROVM_ACPI, False, 0x10000)
    assert {name: symbols[name] for name in ACPI_SYMBOLS} == ACPI_SYMBOLS
    words = [symbols[name] for name in ("RSDP_PADDR", "ACPI_TOP", "ACPI_BOTTOM", "ACPI_FLOOR", "ACPI_POINTER")]
    assert words == [0x1040, 0x1044, 0x1048, 0x104C, 0x1050]
    assert not ACPI_SYMBOLS.keys() & defs.firmware_symbols(machines.MICROVM, False, 0x10000).keys()


def test_where_the_entry_of_bare_stands():
    assert defs.firmware_symbols(machines.BARE, False, 0x20000)["ENTRY_POINTER"] == 0xFFFF000C


LOW_MEMORY = {
    "bare": [
        ("firmware GDT", 0x1000, 0x1020),
        ("firmware stack", 0x2000, 0x3000),
        ("start_info", 0x6000, 0x6038),
        ("module list", 0x6040, 0x6F40),
        ("memory map", 0x7000, 0x7BD0),
        ("command lines", 0x20000, 0x28000),
    ],
    "microvm": [
        ("firmware GDT", 0x1000, 0x1020),
        ("firmware stack", 0x2000, 0x3000),
        ("start_info", 0x6000, 0x6038),
        ("module list", 0x6040, 0x6060),
        ("memory map", 0x7000, 0x7BD0),
        ("command line", 0x20000, 0x28000),
        ("fw_cfg control", 0x1020, 0x1040),
        ("fw_cfg transfer", 0x3000, 0x3A04),
    ],
    "microvm-acpi": [
        ("firmware GDT", 0x1000, 0x1020),
        ("firmware stack", 0x2000, 0x3000),
        ("start_info", 0x6000, 0x6038),
        ("module list", 0x6040, 0x6060),
        ("memory map", 0x7000, 0x7BD0),
        ("command line", 0x20000, 0x28000),
        ("fw_cfg control", 0x1020, 0x1058),
        ("fw_cfg transfer", 0x3000, 0x3A04),
        ("etc/e820", 0x8000, 0x899C),
        ("table-loader", 0xA000, 0xE000),
        ("ACPI files", 0x9000, 0x9180),
    ],
}


@pytest.mark.parametrize("spec", machines.MACHINES.values(), ids=lambda spec: spec.name)
def test_low_memory(spec):
    assert [tuple(span) for span in spec.low.spans()] == LOW_MEMORY[spec.name]


def test_the_machines():
    assert {spec.name: tuple(spec)[1:2] + tuple(spec)[3:] for spec in machines.MACHINES.values()} == {
        "bare": ("params", 3 << 30, 0, False, True, False, 16 << 20, 1 << 40, "ones"),
        "microvm": ("fw_cfg", 3 << 30, 128 << 10, True, False, False, 16 << 20, 1 << 40, "ones"),
        "microvm-acpi": ("fw_cfg", 3 << 30, 128 << 10, True, False, True, 16 << 20, 1 << 40, "ones"),
    }


@pytest.mark.parametrize("spec", machines.MACHINES.values(), ids=lambda spec: spec.name)
def test_low_memory_is_disjoint_below_1_mib_and_not_at_0(spec):
    spans = sorted(spec.low.spans(), key=lambda span: span.start)
    assert all(0 < span.start < span.end <= 1 << 20 for span in spans)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))


def test_rom_layout():
    assert machines.PARAMS_PADDR == 0xFFFF0000
    assert machines.CODE_ORIGIN == 0xFFFF8000
    assert machines.rom_span(0x20000)[1:] == (0xFFFE0000, 0x100000000)


def test_ram_spans_go_around_the_hole():
    spec = machines.BARE
    assert [span[1:] for span in machines.ram_spans(spec, 0x10000000)] == [(0, 0x10000000)]
    assert [span[1:] for span in machines.ram_spans(spec, 0xC0000000)] == [(0, 0xC0000000)]
    assert [span[1:] for span in machines.ram_spans(spec, 0xC0001000)] == [(0, 0xC0000000), (0x100000000, 0x100001000)]


@pytest.mark.parametrize(
    ("rom_size", "low"),
    [(0x1000, 0xFF000), (0x10000, 0xF0000), (0x20000, 0xE0000), (0x21000, 0xE0000), (0x40000, 0xE0000), (0x1000000, 0xE0000)],
)
def test_the_end_of_the_rom_lies_below_1_mib_too(rom_size, low):
    spec = machines.MICROVM
    assert machines.low_rom_span(spec, rom_size) == ("low ROM", low, 0x100000)
    assert [span[1:] for span in machines.visible_ram(spec, 0xC0001000, rom_size)] == [
        (0, low),
        (0x100000, 0xC0000000),
        (0x100000000, 0x100001000),
    ]
    assert machines.low_rom_span(machines.BARE, rom_size) is None
    assert machines.visible_ram(machines.BARE, 0xC0001000, rom_size) == machines.ram_spans(machines.BARE, 0xC0001000)


def test_unknown_machine_is_an_error_that_names_those_there_are():
    with pytest.raises(BootError, match=r"no machine named 'vax'.*bare"):
        machines.machine("vax")


def test_panics_have_their_own_codes_and_names():
    assert len({panic.code for panic in firmware.PANICS}) == len(firmware.PANICS)
    assert len({panic.name for panic in firmware.PANICS}) == len(firmware.PANICS)
    posts = {value for name, value in vars(firmware).items() if name.startswith("POST_")}
    assert not posts & {panic.code for panic in firmware.PANICS}


# Name, code, and which firmwares have it.
PANICS = [
    ("NO_PARAMS", 0xE0, "bare"),
    ("PARAMS_MAGIC", 0xE1, "bare"),
    ("PARAMS_VERSION", 0xE2, "bare"),
    ("PARAMS_SIZE", 0xE3, "bare"),
    ("NO_ENTRY", 0xE4, "bare"),
    ("E820_COUNT", 0xE5, "bare microvm microvm-acpi"),
    ("MODULE_COUNT", 0xE6, "bare"),
    ("STRING_END", 0xE7, "bare microvm microvm-acpi"),
    ("STRING_OFFSET", 0xE8, "bare"),
    ("STAGE_END", 0xE9, "bare microvm microvm-acpi"),
    ("NO_FW_CFG", 0xEA, "microvm microvm-acpi"),
    ("FW_CFG_DMA", 0xEB, "microvm microvm-acpi"),
    ("FW_CFG_FILES", 0xEC, "microvm microvm-acpi"),
    ("NO_E820", 0xED, "microvm microvm-acpi"),
    ("E820_LOW", 0xEE, "microvm microvm-acpi"),
    ("E820_OVERLAP", 0xEF, "microvm microvm-acpi"),
    ("NO_KERNEL", 0xF0, "microvm microvm-acpi"),
    ("CMDLINE_SIZE", 0xF1, "microvm microvm-acpi"),
    ("INITRD_RAM", 0xF2, "microvm microvm-acpi"),
    ("INITRD_KERNEL", 0xF3, "microvm microvm-acpi"),
    ("KERNEL_RAM", 0xF4, "microvm microvm-acpi"),
    ("KERNEL_ENTRY", 0xF5, "microvm microvm-acpi"),
    ("ACPI_SCRIPT", 0xF6, "microvm-acpi"),
    ("ACPI_FILE", 0xF7, "microvm-acpi"),
    ("ACPI_ROOM", 0xF8, "microvm-acpi"),
]


def test_panics_are_a_contract():
    def machines_with(panic):
        return " ".join(spec.name for spec in machines.MACHINES.values() if panic in image.panics_of(spec))

    assert [(panic.name, panic.code, machines_with(panic)) for panic in firmware.PANICS] == PANICS


@pytest.mark.parametrize("panic", firmware.PANICS, ids=lambda panic: panic.name)
def test_panic_message_fits_its_record(panic):
    message = firmware.panic_message(panic)
    assert message.startswith(f"pvhboot panic {panic.code:#x} {panic.name}: ")
    assert message.isascii()
    assert len(message) + 1 <= 255  # the record has one byte for the length, line feed included


def test_panic_message_in_full():
    assert firmware.panic_message(firmware.PANICS[0]) == "pvhboot panic 0xe0 NO_PARAMS: the ROM's parameter block is empty"


def test_boot_protocol():
    """Linux Documentation/arch/x86/boot.rst."""
    fields = (boot_params.SETUP_SECTS, boot_params.VERSION, boot_params.KERNEL_VERSION, boot_params.PAYLOAD)
    assert [(offset, struct.calcsize(code)) for offset, code in fields] == [(0x1F1, 1), (0x206, 2), (0x20E, 2), (0x248, 8)]
    assert boot_params.HEADER_MAGIC == (0x202, b"HdrS")
    assert boot_params.BOOT_FLAG == (0x1FE, b"\x55\xaa")
    assert (boot_params.SECTOR_BYTES, boot_params.DEFAULT_SETUP_SECTS) == (512, 4)
    assert (boot_params.PAYLOAD_PROTOCOL, boot_params.KERNEL_VERSION_BASE) == (0x208, 0x200)


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
