"""An instruction and what its operands are, given the registers in front of it."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import ADDRESS_4G

from .disassembly import decode

REGISTER: Final = "register"
IMMEDIATE: Final = "immediate"
MEMORY: Final = "memory"

_MASK_16: Final = 0xFFFF
_MASK_8: Final = 0xFF
_BYTES: Final = frozenset("abcd")  # of the registers of which two bytes have names


class Operand(NamedTuple):
    """An operand as it is written: `value` is that of a register or an immediate, or the offset of memory in its segment (None:
    unknown); `name` the register, or what the offset is based on; `size` in bytes."""

    kind: str
    name: str
    value: int | None
    size: int
    written: bool


class Instruction(NamedTuple):
    """`mnemonic` is empty for bytes that are no instruction. `prefixed`: with the prefix of the other operand size."""

    address: int
    data: bytes
    text: str
    mnemonic: str
    operands: tuple[Operand, ...]
    prefixed: bool


def read_instruction(code: bytes, address: int, bits: int, registers: Mapping[str, int]) -> Instruction:
    """The instruction that `code` begins with, at a linear address."""
    decoded = decode(code, address, bits)
    detail = decoded.detail
    if detail is None:
        return Instruction(address, decoded.data, decoded.text, "", (), False)
    from capstone import CS_AC_WRITE
    from capstone.x86 import X86_OP_IMM, X86_OP_REG

    operands = []
    for operand in detail.operands:
        written = bool(operand.access & CS_AC_WRITE)
        if operand.type == X86_OP_REG:
            name = detail.reg_name(operand.reg)
            operands.append(Operand(REGISTER, name, register_value(registers, name), operand.size, written))
        elif operand.type == X86_OP_IMM:
            operands.append(Operand(IMMEDIATE, "", operand.imm % ADDRESS_4G, operand.size, written))
        else:
            base, index = (detail.reg_name(number) or "" for number in (operand.mem.base, operand.mem.index))
            parts = [register_value(registers, base) if base else 0, register_value(registers, index) if index else 0]
            offset = None
            if parts[0] is not None and parts[1] is not None:
                offset = (parts[0] + parts[1] * operand.mem.scale + operand.mem.disp) % ADDRESS_4G
                if bits == 16 and detail.addr_size == 2:
                    offset &= _MASK_16
            operands.append(Operand(MEMORY, base, offset, operand.size, written))
    return Instruction(address, decoded.data, decoded.text, detail.mnemonic, tuple(operands), bool(detail.prefix[2]))


def register_value(registers: Mapping[str, int], name: str) -> int | None:
    """Of a general register by any of its names; None if it is not among `registers`, or is none."""
    if name in registers:
        return registers[name]
    whole = registers.get(f"e{name.removeprefix('r')}") if name[:1] != "e" else None
    if whole is not None:
        return whole if name.startswith("r") else whole & _MASK_16
    if len(name) == 2 and name[0] in _BYTES and name[1] in "lh":
        whole = registers.get(f"e{name[0]}x")
        return None if whole is None else whole >> (8 if name[1] == "h" else 0) & _MASK_8
    return None
