"""Registers and descriptors bit by bit, against values that are spelled out from the Intel SDM."""

import pytest
from pvhboot.emu.bitfields import (
    REGISTERS_OF_BITS,
    descriptor_fields,
    mtrr_def_type_fields,
    register_fields,
    selector_fields,
)

ALL_BITS = (1 << 64) - 1

# Bits by name: SDM volume 3A, figure 2-7 (CR0, CR4), figure 2-5 (EFLAGS), table 2-1 (IA32_EFER).
PLACES = {
    "cr0": {"PE": 0, "MP": 1, "EM": 2, "TS": 3, "ET": 4, "NE": 5, "WP": 16, "AM": 18, "NW": 29, "CD": 30, "PG": 31},
    "cr4": {"VME": 0, "PSE": 4, "PAE": 5, "PGE": 7, "OSFXSR": 9, "OSXMMEXCPT": 10, "LA57": 12, "SMEP": 20, "SMAP": 21},
    "efer": {"SCE": 0, "LME": 8, "LMA": 10, "NXE": 11},
    "eflags": {"CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11, "NT": 14, "RF": 16}
    | {"VM": 17, "AC": 18},
}


@pytest.mark.parametrize("register", REGISTERS_OF_BITS)
def test_a_bit_has_its_place_and_two_meanings(register):
    clear, held = register_fields(register, 0), register_fields(register, ALL_BITS)
    places = {field.name: field.low for field in held}
    assert places.items() >= PLACES[register].items()
    assert [field.low for field in held] == sorted(places.values(), reverse=True)
    assert {field.value for field in clear} == {0}
    assert {field.value for field in held} == {1}
    assert not [one.name for one, other in zip(clear, held, strict=True) if one.meaning == other.meaning]


def test_another_register_has_no_bits():
    with pytest.raises(KeyError):
        register_fields("eax", 0)


MEANINGS = {
    "after a reset the caches are off": ("cr0", 0x60000010, {"CD": "caches off", "PE": "real mode", "PG": "paging off"}),
    "at the handoff": ("cr0", 0x11, {"CD": "caches on", "NW": "stores are written through or back", "PE": "protected mode"}),
    "a task switch, FPU traps": ("cr0", 0xA, {"TS": "the FPU's state is another task's", "MP": "wait heeds TS"}),
    "PAE": ("cr4", 0x20, {"PAE": "page tables of 64-bit entries", "PSE": "no pages of 4 MiB"}),
    "long mode": ("efer", 0x500, {"LME": "long mode once paging is on", "LMA": "in long mode", "SCE": "no syscall"}),
    "zero is not negative": ("eflags", 0x46, {"ZF": "zero", "SF": "not negative", "IF": "interrupts off"}),
    "even parity": ("eflags", 0x206, {"PF": "an even number of bits in the low byte", "IF": "interrupts on"}),
}


@pytest.mark.parametrize(("register", "value", "meanings"), MEANINGS.values(), ids=MEANINGS)
def test_a_value_in_words(register, value, meanings):
    assert {field.name: field.meaning for field in register_fields(register, value)}.items() >= meanings.items()


@pytest.mark.parametrize(
    ("selector", "meanings"),
    [
        (0x0000, ["the null descriptor", "of the GDT", "privilege level 0"]),
        (0x0003, ["the null descriptor", "of the GDT", "privilege level 3"]),
        (0x0010, ["descriptor 2", "of the GDT", "privilege level 0"]),
        (0x0007, ["descriptor 0", "of the LDT", "privilege level 3"]),
        (0xFFFB, ["descriptor 8191", "of the GDT", "privilege level 3"]),
    ],
)
def test_a_selector(selector, meanings):
    assert [field.meaning for field in selector_fields(selector)] == meanings
    assert [field.bits for field in selector_fields(selector)] == ["15:3", "2", "1:0"]


@pytest.mark.parametrize(
    ("value", "meanings"),
    [
        (0x000, ["MTRRs off: all memory is uncached", "fixed ranges off", "uncached"]),
        (0x806, ["MTRRs on", "fixed ranges off", "write-back"]),
        (0xC00, ["MTRRs on", "fixed ranges on", "uncached"]),
        (0x802, ["MTRRs on", "fixed ranges off", "reserved"]),
        (0x805, ["MTRRs on", "fixed ranges off", "write-protected"]),
    ],
)
def test_the_default_memory_type(value, meanings):
    assert [field.meaning for field in mtrr_def_type_fields(value)] == meanings


# Descriptors, and some of what their fields mean: SDM volume 3A, figures 3-8 and 8-3, tables 3-1 and 3-2.
FLAT_DATA = 0x00CF93000000FFFF
DESCRIPTORS = {
    "flat code": (
        0x00CF9B000000FFFF,
        {"type": "code, readable, accessed", "D/B": "32-bit code", "G": "the limit counts 4 KiB pages", "P": "present"}
        | {"limit 15:0": "the last byte is 0xffffffff", "base 23:0": "the base is 0x0", "DPL": "privilege level 0"},
    ),
    "flat data": (FLAT_DATA, {"type": "data, writable, accessed", "D/B": "a 32-bit stack", "S": "code or data"}),
    "read-only data of 64 KiB": (
        0x000090000000FFFF,
        {"type": "data, read-only", "D/B": "a 16-bit stack", "limit 19:16": "the last byte is 0xffff"},
    ),
    "64-bit code": (0x00AF9B000000FFFF, {"L": "64-bit code", "D/B": "64-bit code"}),
    "16-bit code, conforming, of the user": (
        0x0000FC000000FFFF,
        {"type": "code, execute-only, conforming", "D/B": "16-bit code", "DPL": "privilege level 3"},
    ),
    "data that grow downwards": (
        0x00409600000000FF,
        {"type": "data, writable, expand-down", "limit 15:0": "the first byte is behind 0xff", "D/B": "up to 4 GiB"},
    ),
    "a base in three places": (0x12CF93345678FFFF, {"base 31:24": "the base is 0x12345678"}),
    "not present": (0x00CF13000000FFFF, {"P": "not present: to load it raises #NP, to SS #SS"}),
    "a TSS": (0x0000890060000067, {"type": "32-bit TSS, available", "S": "system", "limit 15:0": "the last byte is 0x67"}),
    "a busy TSS": (0x00008B0060000067, {"type": "32-bit TSS, busy"}),
    "an LDT": (0x0000820060000007, {"type": "LDT"}),
    "a TSS of the 80286": (0x000081006000002B, {"type": "16-bit TSS, available"}),
    "an interrupt gate": (0x00008E0000100000, {"type": "32-bit interrupt gate"}),
    "the null descriptor": (0, {"type": "reserved", "S": "system", "P": "not present: to load it raises #NP, to SS #SS"}),
}


@pytest.mark.parametrize(("value", "meanings"), DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_a_descriptor_in_words(value, meanings):
    assert {field.name: field.meaning for field in descriptor_fields(value)}.items() >= meanings.items()


@pytest.mark.parametrize("value", [FLAT_DATA, 0x0000890060000067, 0x123456789ABCDEF0, ALL_BITS])
def test_the_fields_of_a_descriptor_cover_its_bits(value):
    joined, at = 0, 63
    for field in descriptor_fields(value):
        assert field.high == at
        joined = joined << field.high - field.low + 1 | field.value
        at = field.low - 1
    assert (joined, at) == (value, -1)
