"""Instructions with the values of their operands."""

import pytest
from pvhboot.emu.instruction import read_instruction, register_value

REGISTERS = {"eax": 0x12345678, "ebx": 0x9ABC0010, "ecx": 2, "esi": 0x1000, "esp": 0xFFF0, "r8": 0x1122334455667788}

# (bytes, bits, mnemonic, [(kind, name, value, size)]).
INSTRUCTIONS = [
    ("8ed8", 32, "mov", [("register", "ds", None, 2), ("register", "eax", 0x12345678, 4)]),
    ("8ed8", 16, "mov", [("register", "ds", None, 2), ("register", "ax", 0x5678, 2)]),
    ("ea1080ffff1000", 32, "ljmp", [("immediate", "", 0x10, 2), ("immediate", "", 0xFFFF8010, 4)]),
    ("66ea1080ffff1000", 16, "ljmp", [("immediate", "", 0x10, 2), ("immediate", "", 0xFFFF8010, 4)]),
    ("0f00d8", 32, "ltr", [("register", "ax", 0x5678, 2)]),
    ("8b448e04", 32, "mov", [("register", "eax", 0x12345678, 4), ("memory", "esi", 0x100C, 4)]),
    ("8b00", 16, "mov", [("register", "ax", 0x5678, 2), ("memory", "bx", 0x1010, 2)]),
    ("a10050ffff", 32, "mov", [("register", "eax", 0x12345678, 4), ("memory", "", 0xFFFF5000, 4)]),
    ("fec4", 32, "inc", [("register", "ah", 0x56, 1)]),
    ("cd10", 16, "int", [("immediate", "", 0x10, 1)]),
]


@pytest.mark.parametrize(
    ("code", "bits", "mnemonic", "operands"), INSTRUCTIONS, ids=lambda value: value if isinstance(value, str) else None
)
def test_operands_have_their_values(code, bits, mnemonic, operands):
    one = read_instruction(bytes.fromhex(code) + b"\x90" * 4, 0x1000, bits, REGISTERS)
    assert (one.mnemonic, one.data.hex()) == (mnemonic, code)
    found = [(operand.kind, operand.name, operand.value) for operand in one.operands]
    assert found == [operand[:3] for operand in operands]


def test_what_is_no_instruction_has_no_mnemonic():
    assert read_instruction(b"\xff\xff", 0, 32, REGISTERS)[3:] == ("", (), False)


def test_the_prefix_of_the_other_operand_size_is_told():
    assert read_instruction(bytes.fromhex("66ea1080ffff1000"), 0, 16, {}).prefixed
    assert not read_instruction(bytes.fromhex("ea10801000"), 0, 16, {}).prefixed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eax", 0x12345678),
        ("ax", 0x5678),
        ("al", 0x78),
        ("ah", 0x56),
        ("sp", 0xFFF0),
        ("si", 0x1000),
        ("cl", 2),
        ("r8", 0x1122334455667788),
    ]
    + [("rax", 0x12345678), ("ds", None), ("", None), ("edi", None), ("dl", None)],
)
def test_a_register_by_any_of_its_names(name, value):
    assert register_value(REGISTERS, name) == value
