"""Mutants of a firmware: one instruction of its ROM made another one of the same length, so that all else stays where it is.

The opcodes are those of the SDM, volume 2, appendix A. What comes of a change is read back: only what decodes to one
instruction of that length is taken (but for what is dropped, which becomes as many NOPs as it has bytes).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from ..disassembly import Decoded, decode

DROP: Final = "drop"  # the instruction is not there
INVERT: Final = "invert"  # the opposite condition
ALWAYS: Final = "always"  # a conditional jump is taken whatever the condition
CONSTANT: Final = "constant"  # one more, one less, 0, its highest bit flipped
DISPLACEMENT: Final = "displacement"  # of an address: one byte further, or one field of 4 bytes
REGISTER: Final = "register"  # another one
OPERATORS: Final = (DROP, INVERT, ALWAYS, CONSTANT, DISPLACEMENT, REGISTER)

_PREFIXES: Final = frozenset(bytes.fromhex("26 2e 36 3e 64 65 66 67 f0 f2 f3"))
_TWO_BYTES: Final = 0x0F
_NOP: Final = 0x90
_JMP_SHORT, _JMP_NEAR = 0xEB, 0xE9
_JCC_SHORT, _JCC_NEAR = range(0x70, 0x80), range(0x80, 0x90)  # the second behind 0f, as the next two
_SETCC, _CMOVCC = range(0x90, 0xA0), range(0x40, 0x50)
_LOOPNE, _LOOPE, _LOOP, _JCXZ = 0xE0, 0xE1, 0xE2, 0xE3
_CALL_NEAR: Final = 0xE8
_RELATIVE: Final = (*_JCC_SHORT, _LOOPNE, _LOOPE, _LOOP, _JCXZ, _CALL_NEAR, _JMP_NEAR, _JMP_SHORT)

# Where a register stands in an encoding, and what makes it its neighbour: bits of ModRM, of SIB, of the opcode.
_MODRM_REG, _MODRM_RM, _SIB_INDEX, _SIB_BASE, _OPCODE_REG = 0x08, 0x01, 0x08, 0x01, 0x01


class Instruction(NamedTuple):
    """An instruction of the ROM: its linear address, where it stands in the ROM, its bytes, and how they are decoded (16, 32 or
    64)."""

    address: int
    offset: int
    data: bytes
    bits: int


class Mutation(NamedTuple):
    """One change to the ROM: by which operator, at which linear address; from `offset` on, `before` becomes `after`. `was` and
    `now` are the instruction as text."""

    operator: str
    address: int
    offset: int
    before: bytes
    after: bytes
    was: str
    now: str

    def apply(self, rom: bytes) -> bytes:
        """The ROM with the change."""
        return rom[: self.offset] + self.after + rom[self.offset + len(self.after) :]

    def __str__(self) -> str:
        return f"{self.was}  →  {self.now}"


def mutations(instructions: Iterable[Instruction], operators: Iterable[str] = OPERATORS) -> list[Mutation]:
    """Every change of these kinds to these instructions, sorted by address. What is no instruction has none."""
    wanted = frozenset(operators)
    found = (mutation for each in sorted(instructions) for mutation in _mutations(each))
    return [mutation for mutation in found if mutation.operator in wanted]


def _mutations(instruction: Instruction) -> Iterator[Mutation]:
    was = decode(instruction.data, instruction.address, instruction.bits)
    if was.detail is None or was.data != instruction.data:
        return
    seen = {was.data}
    for operator, data, text in _changes(instruction, was):
        if data not in seen:
            seen.add(data)
            yield Mutation(operator, instruction.address, instruction.offset, was.data, data, was.text, text)


def _changes(instruction: Instruction, was: Decoded) -> Iterator[tuple[str, bytes, str]]:
    """What the bytes may become: the operator, they, and what they then say."""
    if was.data != bytes([_NOP]):
        yield DROP, bytes([_NOP]) * len(was.data), "nothing"
    for operator, data in (*_jumps(was.data), *_numbers(was), *_registers(was)):
        now = decode(data, instruction.address, instruction.bits)
        if now.detail is None or len(now.data) != len(data):
            if operator == ALWAYS:  # a NOP stands in front of the jump
                now = decode(data[1:], instruction.address + 1, instruction.bits)
            else:
                continue
        if operator != REGISTER or _differs_in_registers(was.detail, now.detail):
            yield operator, data, now.text


def _opcode(data: bytes) -> tuple[int, int, bool]:
    """Where the (last) opcode byte stands, the byte, and whether it is one behind 0f."""
    at = 0
    while at < len(data) - 1 and data[at] in _PREFIXES:
        at += 1
    if data[at] == _TWO_BYTES and at < len(data) - 1:
        return at + 1, data[at + 1], True
    return at, data[at], False


def _jumps(data: bytes) -> Iterator[tuple[str, bytes]]:
    at, opcode, two_bytes = _opcode(data)
    conditions = (*_JCC_NEAR, *_SETCC, *_CMOVCC) if two_bytes else (*_JCC_SHORT, _LOOPNE, _LOOPE)
    if opcode in conditions:
        yield INVERT, _with(data, at, opcode ^ 1)
    if two_bytes and opcode in _JCC_NEAR and at == 1:
        yield ALWAYS, bytes([_NOP, _JMP_NEAR]) + data[2:]
    elif not two_bytes and opcode in (*_JCC_SHORT, _LOOPNE, _LOOPE, _LOOP, _JCXZ):
        yield ALWAYS, _with(data, at, _JMP_SHORT)


def _is_relative(data: bytes) -> bool:
    """Its immediate says how far to jump."""
    _, opcode, two_bytes = _opcode(data)
    return opcode in (_JCC_NEAR if two_bytes else _RELATIVE)


def _numbers(was: Decoded) -> Iterator[tuple[str, bytes]]:
    encoding = was.detail.encoding
    if encoding.imm_size and not _is_relative(was.data):
        value = _number(was.data, encoding.imm_offset, encoding.imm_size)
        highest = 1 << 8 * encoding.imm_size - 1
        for other in (value + 1, value - 1, 0, value ^ highest):
            yield CONSTANT, _with_number(was.data, encoding.imm_offset, encoding.imm_size, other)
    if encoding.disp_size:
        value = _number(was.data, encoding.disp_offset, encoding.disp_size)
        for other in (value + 1, value + 4):
            yield DISPLACEMENT, _with_number(was.data, encoding.disp_offset, encoding.disp_size, other)


def _registers(was: Decoded) -> Iterator[tuple[str, bytes]]:
    at, _, _ = _opcode(was.data)
    modrm = was.detail.encoding.modrm_offset
    places = [(at, _OPCODE_REG)]
    if modrm:
        places = [(modrm, _MODRM_REG), (modrm, _MODRM_RM), (modrm + 1, _SIB_INDEX), (modrm + 1, _SIB_BASE)]
    for place, bit in places:
        if place < len(was.data):
            yield REGISTER, _with(was.data, place, was.data[place] ^ bit)


def _differs_in_registers(was: Any, now: Any) -> bool:
    """The same operation on operands of the same kinds, sizes and numbers."""

    def rest(found: Any) -> tuple[object, ...]:
        return found.mnemonic, *(
            (op.type, op.size, op.imm if op.type == _IMMEDIATE else 0, *_place(op)) for op in found.operands
        )

    return was.op_str != now.op_str and rest(was) == rest(now)


_IMMEDIATE, _MEMORY = 2, 3  # Capstone's cs_op_type


def _place(operand: Any) -> tuple[int, ...]:
    """What of an operand in memory is no register, and how many registers there are."""
    if operand.type != _MEMORY:
        return ()
    memory = operand.mem
    return memory.disp, memory.scale, memory.segment, bool(memory.base), bool(memory.index)


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _with_number(data: bytes, at: int, size: int, value: int) -> bytes:
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[at + size :]


def _with(data: bytes, at: int, byte: int) -> bytes:
    return data[:at] + bytes([byte]) + data[at + 1 :]
