"""Mutants: what becomes of an instruction, byte for byte; and the tables that an operating system finds."""

import struct

import pytest
from pvhboot.emu.disassembly import decode
from pvhboot.emu.vary.found import tables_in
from pvhboot.emu.vary.mutants import ALWAYS, OPERATORS, Instruction, mutations
from pvhboot.emu.vary.setup import Setup
from pvhboot.emu.vary.trial import reference
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.machines import MACHINES, MIB, Span
from pvhboot.shim.stock import default_blob, default_guest

AT = 0xFFFF8000

# An instruction in hexadecimal and its mutants by operator; the operators that are not named have none.
CHANGES = {
    "74 05": {"drop": "90 90", "invert": "75 05", "always": "eb 05"},  # je
    "0f 84 00 01 00 00": {
        "drop": "90 90 90 90 90 90",
        "invert": "0f 85 00 01 00 00",
        "always": "90 e9 00 01 00 00",
    },
    "e3 05": {"drop": "90 90", "always": "eb 05"},  # jecxz
    "0f 94 c0": {"drop": "90 90 90", "invert": "0f 95 c0", "register": "0f 94 c1"},  # sete al
    "0f 44 c1": {"drop": "90 90 90", "invert": "0f 45 c1", "register": ("0f 44 c9", "0f 44 c0")},  # cmove eax, ecx
    "eb 05": {"drop": "90 90"},
    "e8 00 01 00 00": {"drop": "90 90 90 90 90"},
    "c3": {"drop": "90"},
    "90": {},
    "b8 05 00 00 00": {  # mov eax, 5
        "drop": "90 90 90 90 90",
        "constant": ("b8 06 00 00 00", "b8 04 00 00 00", "b8 00 00 00 00", "b8 05 00 00 80"),
        "register": "b9 05 00 00 00",
    },
    "b8 00 00 00 00": {  # to 0 it cannot be changed
        "drop": "90 90 90 90 90",
        "constant": ("b8 01 00 00 00", "b8 ff ff ff ff", "b8 00 00 00 80"),
        "register": "b9 00 00 00 00",
    },
    "83 c0 ff": {  # add eax, -1
        "drop": "90 90 90",
        "constant": ("83 c0 00", "83 c0 fe", "83 c0 7f"),
        "register": "83 c1 ff",  # not the bits that say what is done
    },
    "8b 46 04": {  # mov eax, [esi + 4]
        "drop": "90 90 90",
        "displacement": ("8b 46 05", "8b 46 08"),
        "register": ("8b 4e 04", "8b 47 04"),
    },
    "89 d8": {"drop": "90 90", "register": ("89 d0", "89 d9")},  # mov eax, ebx
    "50": {"drop": "90", "register": "51"},  # push eax
    "ab": {"drop": "90"},  # stosd: aa would be another size
    "ed": {"drop": "90"},  # in eax, dx: ec would be another size
    "e6 80": {"drop": "90 90", "constant": ("e6 81", "e6 7f", "e6 00")},  # out 0x80, al: 0 is the flip of the highest bit, too
    "ff ff ff": {},  # no instruction
}


@pytest.mark.parametrize("code", CHANGES)
def test_what_becomes_of_an_instruction(code):
    data = bytes.fromhex(code)
    found = {}
    for mutation in mutations([Instruction(AT, 0x100, data, 32)]):
        found.setdefault(mutation.operator, []).append(mutation.after.hex(" "))
    assert found == {key: [value] if isinstance(value, str) else list(value) for key, value in CHANGES[code].items()}


def test_sixteen_bit_code_is_read_as_such():
    """mov eax, 0x12345678 with its prefix, and mov ax, 0x1234 without."""
    long = mutations([Instruction(AT, 0, bytes.fromhex("66b878563412"), 16)], ["constant"])
    short = mutations([Instruction(AT, 0, bytes.fromhex("b83412"), 16)], ["constant"])
    assert [mutation.now for mutation in long][:1] == ["mov eax, 0x12345679"]
    assert [mutation.now for mutation in short] == ["mov ax, 0x1235", "mov ax, 0x1233", "mov ax, 0", "mov ax, 0x9234"]


@pytest.mark.parametrize("machine", ["bare", "microvm"])
def test_each_mutant_of_a_firmware_is_another_instruction_of_the_same_length(machine):
    rom = default_blob(MACHINES[machine]).data
    with reference(Setup(machine, rom, default_guest(64), 64 * MIB)) as boot:
        found = mutations(boot.watched.instructions.values())
        assert not boot.watched.elsewhere
    assert {mutation.operator for mutation in found} == set(OPERATORS)
    assert len(set(found)) == len(found) > 3 * len(boot.watched.instructions)
    for mutation in found:
        changed = mutation.apply(rom)
        assert len(changed) == len(rom)
        different = [at for at, (was, now) in enumerate(zip(rom, changed, strict=True)) if was != now]
        assert different
        assert mutation.offset <= different[0] <= different[-1] < mutation.offset + len(mutation.before)
        if set(mutation.after) != {0x90} and mutation.operator != ALWAYS:
            bits = boot.watched.instructions[mutation.address].bits
            assert decode(mutation.after, mutation.address, bits).data == mutation.after


# What an operating system finds.


@pytest.mark.parametrize(
    ("machine", "names"),
    [
        ("bare", set()),
        ("microvm", {"MP table"}),
        ("microvm-acpi", {"RSDP", "XSDT", "ACPI table FACP", "ACPI table DSDT", "ACPI table APIC"}),
        ("pc", {"RSDP", "RSDT", "ACPI table FACP", "ACPI table FACS", "ACPI table DSDT", "ACPI table APIC", "SMBIOS"}),
        ("q35", {"RSDP", "RSDT", "ACPI table FACP", "ACPI table FACS", "ACPI table MCFG", "SMBIOS"}),
    ],
)
def test_the_tables_of_a_boot_are_found(machine, names):
    with reference(Setup(machine, default_blob(MACHINES[machine]).data, default_guest(64), 64 * MIB)) as boot:
        tables = boot.trial.outcome.tables
        found = tables_in(boot.trial.memory, tables.start_info.rsdp_paddr)
    assert names <= set(found)
    assert names or not found
    assert all(len(data) >= 20 for data in found.values())


def with_mp_table(change):
    """A machine with an MP table that is good, but for the change to its bytes: at 0xf0000 the pointer, then the table."""
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(4096))
    table = bytearray(struct.pack("<4sHBB8s12sIHHIHBB", b"PCMP", 44, 4, 0, b"", b"", 0, 0, 0, 0, 0, 0, 0))
    table[7] = -sum(table) & 0xFF
    pointer = bytearray(struct.pack("<4sIBBB5s", b"_MP_", 0xF0010, 1, 4, 0, bytes(5)))
    pointer[10] = -sum(pointer) & 0xFF
    area = memory.view(0xF0000, 60)
    area[:] = pointer + table
    change(area)
    return memory


def nothing(_area):
    pass


def flip(at):
    def change(area):
        area[at] ^= 1

    return change


@pytest.mark.parametrize(
    ("change", "names"), [(nothing, ["MP table"]), (flip(0), []), (flip(5), []), (flip(11), []), (flip(16), []), (flip(40), [])]
)
def test_an_mp_table_that_does_not_add_up_is_none(change, names):
    assert list(tables_in(with_mp_table(change), 0)) == names
