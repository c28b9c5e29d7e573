"""Every structure and constant of shim/abi against literal numbers of the specifications.

Generator and checker share these definitions, so a wrong one would agree with itself: the numbers here are written out
on purpose, and taken from no definition of ours.
"""

import itertools
import struct

import pytest
from pvhboot.shim import defs, machines
from pvhboot.shim.abi import e820, firmware, params, pvh, x86
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
]


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_layout(layout, size, fields):
    assert layout.size == size
    assert {name: tuple(field) for name, field in layout.fields.items()} == fields


@pytest.mark.parametrize(("layout", "size", "fields"), LAYOUTS, ids=lambda value: getattr(value, "_prefix", None))
def test_each_field_lies_little_endian_where_it_is_said_to(layout, size, fields):
    for position, (offset, width) in enumerate(fields.values()):
        value = int.from_bytes(bytes(range(0xA1, 0xA1 + width)), "little")
        record = layout.unpack(bytes(size))._replace(**{list(fields)[position]: value})
        expected = bytearray(size)
        expected[offset : offset + width] = bytes(range(0xA1, 0xA1 + width))
        assert layout.pack(record) == bytes(expected)
        assert layout.unpack(b"\xff" * 3 + expected, 3) == record


def test_layout_refuses_what_does_not_fit():
    with pytest.raises(struct.error):
        e820.E820_ENTRY.pack(e820.E820Entry(0, 1 << 64, 1))
    with pytest.raises(struct.error):
        e820.E820_ENTRY.unpack(bytes(19))


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


# (module, {name: value}): Xen start_info.h and elfnote.h, Intel SDM volume 3A, params.py as published.
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
            "POST_PROTECTED_MODE": 0x10,
            "POST_PARAMS": 0x20,
            "POST_MEMMAP": 0x30,
            "POST_START_INFO": 0x40,
            "POST_STAGE": 0x50,
            "POST_HANDOFF": 0x60,
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


def test_no_constant_of_cr0_or_eflags_is_left_out():
    pinned = {name for module, values in CONSTANTS if module is x86 for name in values}
    assert {name for name in vars(x86) if name.startswith(("CR0_", "EFLAGS_"))} - pinned == {"CR0_NAMES"}


def test_names_of_cr0_bits_are_those_of_the_constants():
    assert {f"CR0_{name}": bit for bit, name in x86.CR0_NAMES.items()} == {
        name: value for name, value in vars(x86).items() if name.startswith("CR0_") and isinstance(value, int)
    }


def test_descriptors():
    symbols = defs.firmware_symbols(machines.BARE, False)
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


def test_low_memory_of_bare():
    assert [(span.start, span.end) for span in machines.BARE.low] == [
        (0x1000, 0x1020),
        (0x2000, 0x3000),
        (0x6000, 0x6038),
        (0x6040, 0x6F40),
        (0x7000, 0x7BD0),
        (0x20000, 0x28000),
    ]


@pytest.mark.parametrize("spec", machines.MACHINES.values(), ids=lambda spec: spec.name)
def test_low_memory_is_disjoint_below_1_mib_and_not_at_0(spec):
    spans = sorted(spec.low, key=lambda span: span.start)
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


def test_unknown_machine_is_an_error_that_names_those_there_are():
    with pytest.raises(BootError, match=r"no machine named 'vax'.*bare"):
        machines.machine("vax")


def test_panics_have_their_own_codes_and_names():
    assert len({panic.code for panic in firmware.PANICS}) == len(firmware.PANICS)
    assert len({panic.name for panic in firmware.PANICS}) == len(firmware.PANICS)
    posts = {value for name, value in vars(firmware).items() if name.startswith("POST_")}
    assert not posts & {panic.code for panic in firmware.PANICS}


def test_panics_are_a_contract():
    assert {panic.name: panic.code for panic in firmware.PANICS} == {
        "NO_PARAMS": 0xE0,
        "PARAMS_MAGIC": 0xE1,
        "PARAMS_VERSION": 0xE2,
        "PARAMS_SIZE": 0xE3,
        "NO_ENTRY": 0xE4,
        "E820_COUNT": 0xE5,
        "MODULE_COUNT": 0xE6,
        "STRING_END": 0xE7,
        "STRING_OFFSET": 0xE8,
        "STAGE_END": 0xE9,
    }


@pytest.mark.parametrize("panic", firmware.PANICS, ids=lambda panic: panic.name)
def test_panic_message_fits_its_record(panic):
    message = firmware.panic_message(panic)
    assert message.startswith(f"pvhboot panic {panic.code:#x} {panic.name}: ")
    assert message.isascii()
    assert len(message) + 1 <= 255  # the record has one byte for the length, line feed included


def test_panic_message_in_full():
    assert firmware.panic_message(firmware.PANICS[0]) == "pvhboot panic 0xe0 NO_PARAMS: the ROM's parameter block is empty"
