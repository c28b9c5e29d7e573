"""One instruction to bytes, proven: the only module that imports Keystone, and it trusts it with nothing.

Keystone gets one instruction at a time with plain numbers. What it encodes wrongly or cannot spell (relative branches in
16-bit code, lgdt and lidt, far jumps, string instructions, iret, push of a number) is encoded here. Whatever the source
of the bytes, Capstone reads them back, and mnemonic, prefix and every operand must be those that were asked for.
"""

from functools import cache, lru_cache
from typing import Any, Final

from .errors import BootError
from .instruction import Instruction, require_fit
from .operands import REGISTER_BYTES, SEGMENT_REGISTERS, Immediate, Memory, Operand, Register
from .proof import prove

_CONDITIONS: Final = {
    name: code
    for code, names in enumerate(
        (
            ("o",),
            ("no",),
            ("b", "c", "nae"),
            ("ae", "nb", "nc"),
            ("e", "z"),
            ("ne", "nz"),
            ("be", "na"),
            ("a", "nbe"),
            ("s",),
            ("ns",),
            ("p", "pe"),
            ("np", "po"),
            ("l", "nge"),
            ("ge", "nl"),
            ("le", "ng"),
            ("g", "nle"),
        )
    )
    for name in names
}
_JCC: Final = {"j" + name: code for name, code in _CONDITIONS.items()}
_SHORT_ONLY: Final = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2, "jcxz": 0xE3, "jecxz": 0xE3}
BRANCHES: Final = frozenset({"jmp", "call", *_JCC, *_SHORT_ONLY})

_STRING_OPCODES: Final = {"movs": 0xA4, "cmps": 0xA6, "stos": 0xAA, "lods": 0xAC, "scas": 0xAE, "ins": 0x6C, "outs": 0x6E}
_STRING_SUFFIXES: Final = {"b": 1, "w": 2, "d": 4}
_PREFIXES: Final = {"rep": 0xF3, "repe": 0xF3, "repz": 0xF3, "repne": 0xF2, "repnz": 0xF2, "lock": 0xF0}
PREFIXES: Final = frozenset({*_PREFIXES, "data32"})

_TABLE_LOADS: Final = {"lgdt": 2, "lgdtd": 2, "lidt": 3, "lidtd": 3}

class Unreachable(ValueError):
    """A short branch that does not reach its target: the caller asks again for the near form."""


def is_relative(instruction: Instruction) -> bool:
    """Whether the bytes depend on the address."""
    return instruction.mnemonic in BRANCHES and isinstance(instruction.operands[0], Immediate)


def encode(instruction: Instruction, address: int, near: bool = False) -> bytes:
    """The bytes of one instruction at `address`.

    `near` asks for the long form of a relative branch. Raises Unreachable where only the short form was tried and does not
    reach, and ValueError for anything that cannot be encoded as written.
    """
    if instruction.mnemonic in BRANCHES and len(instruction.operands) != 1:
        raise ValueError(f"{instruction.mnemonic} takes one operand")
    if is_relative(instruction):
        return _encode_relative(instruction, address, near)
    return _encode_absolute(instruction)


def _encode_relative(instruction: Instruction, address: int, near: bool) -> bytes:
    code = _relative_bytes(instruction, address, near)
    prove(instruction, code, address)
    return code


@lru_cache(maxsize=None)
def _encode_absolute(instruction: Instruction) -> bytes:
    code = _own_bytes(instruction) or _keystone_bytes(instruction)
    prove(instruction, code, 0)
    return code


def _relative_bytes(instruction: Instruction, address: int, near: bool) -> bytes:
    mode, mnemonic = instruction.mode, instruction.mnemonic
    (target,) = instruction.operands
    assert isinstance(target, Immediate)
    if instruction.prefix:
        raise ValueError(f"{instruction.prefix} does not go with {mnemonic}")
    bits = 16 if mode == 16 else 32

    def distance(length: int) -> int:
        """From the end of an instruction of `length` bytes, as IP wraps."""
        modulus = 1 << (64 if mode == 64 else bits)
        raw = (target.value - (address + length)) % modulus
        return raw - modulus if raw >= modulus >> 1 else raw

    if not near and mnemonic != "call":
        # Only jcxz and jecxz need the address-size prefix, to say which counter they test.
        prefix = b"\x67" if mnemonic == "jcxz" and mode == 32 or mnemonic == "jecxz" and mode != 32 else b""
        opcode = 0xEB if mnemonic == "jmp" else _SHORT_ONLY.get(mnemonic, 0x70 + _JCC.get(mnemonic, 0))
        step = distance(len(prefix) + 2)
        if -128 <= step <= 127:
            return prefix + bytes([opcode]) + step.to_bytes(1, "little", signed=True)
        if mnemonic in _SHORT_ONLY:
            raise ValueError(f"{mnemonic} reaches 128 bytes back and 127 ahead, not {step}")
        raise Unreachable
    if mnemonic in _JCC:
        opcodes = bytes([0x0F, 0x80 + _JCC[mnemonic]])
    else:
        opcodes = b"\xe8" if mnemonic == "call" else b"\xe9"
    step = distance(len(opcodes) + bits // 8)
    if not -(1 << 31) <= step < 1 << 31:
        raise ValueError(f"{mnemonic} does not reach {target.value:#x}")
    return opcodes + step.to_bytes(bits // 8, "little", signed=True)


def _own_bytes(instruction: Instruction) -> bytes | None:
    """The forms that Keystone gets wrong; None for all others."""
    mode, prefix, mnemonic, operands = instruction
    stem, suffix = mnemonic[:-1], mnemonic[-1:]
    if not operands and stem in _STRING_OPCODES and suffix in _STRING_SUFFIXES:
        wide = suffix != "b"
        size_prefix = b"\x66" if wide and (suffix == "w") != (mode == 16) else b""
        repeat = bytes([_PREFIXES[prefix]]) if prefix else b""
        return size_prefix + repeat + bytes([_STRING_OPCODES[stem] | wide])
    if mnemonic == "ljmp":
        return _far_jump(instruction)
    if prefix == "data32":
        raise ValueError("data32 goes with ljmp only")
    if mnemonic in _TABLE_LOADS:
        return _table_load(instruction)
    if mnemonic in ("iret", "iretd", "iretq"):
        return {"iret": b"\xcf", "iretd": b"\x66\xcf" if mode == 16 else b"\xcf", "iretq": b"\x48\xcf"}[mnemonic]
    if mnemonic == "ret" and not operands:
        return b"\xc3"
    if mnemonic == "push" and len(operands) == 1 and isinstance(operands[0], Immediate):
        value, width = operands[0].value, 2 if mode == 16 else 4
        require_fit(value, width)
        signed = _signed(value, width)
        if -128 <= signed <= 127:
            return b"\x6a" + signed.to_bytes(1, "little", signed=True)
        return b"\x68" + signed.to_bytes(width, "little", signed=True)
    return None


def _far_jump(instruction: Instruction) -> bytes:
    mode, prefix, _, operands = instruction
    if mode == 64 or len(operands) != 2 or not all(isinstance(operand, Immediate) for operand in operands):
        raise ValueError("ljmp takes a selector and an offset, in 16- and 32-bit code")
    selector, offset = (operand.value for operand in operands if isinstance(operand, Immediate))
    wide = mode == 32 or prefix == "data32"
    size_prefix = b"\x66" if wide and mode == 16 else b""
    require_fit(selector, 2)
    require_fit(offset, 4 if wide else 2)
    mask = 0xFFFFFFFF if wide else 0xFFFF
    return size_prefix + b"\xea" + (offset & mask).to_bytes(4 if wide else 2, "little") + (selector & 0xFFFF).to_bytes(2, "little")


def _table_load(instruction: Instruction) -> bytes:
    """lgdt and lidt with a 32-bit base: in 16-bit code the operand-size prefix asks for it (`lgdtd`)."""
    mode, _, mnemonic, operands = instruction
    if len(operands) != 1 or not isinstance(operands[0], Memory):
        raise ValueError(f"{mnemonic} takes a memory operand")
    memory = operands[0]
    if mode == 16 and not mnemonic.endswith("d"):
        raise ValueError(f"{mnemonic} in 16-bit code loads 24 bits of the base only: write {mnemonic}d")
    segment = bytes([(0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)[SEGMENT_REGISTERS.index(memory.segment)]]) if memory.segment else b""
    # The ModRM byte, its base, index and displacement are those of any other instruction with the same operand:
    # `push` of it (ff /6), where the register field becomes the one of lgdt (/2) or lidt (/3).
    stand_in = Instruction(mode, "", "push", (memory._replace(size=2 if mode == 16 else 4, segment=None),))
    push = _keystone_bytes(stand_in)
    if push[0] != 0xFF or push[1] & 0x38 != 0x30:
        raise ValueError(f"cannot encode {instruction}")
    modrm = push[1] & ~0x38 | _TABLE_LOADS[mnemonic] << 3
    return segment + (b"\x66" if mode == 16 else b"") + b"\x0f\x01" + bytes([modrm]) + push[2:]


def _signed(value: int, width: int) -> int:
    value &= (1 << 8 * width) - 1
    return value - (1 << 8 * width) if value >> (8 * width - 1) else value


@cache
def _keystone(mode: int) -> Any:
    try:
        import keystone
    except ImportError:
        raise BootError(
            "assembling needs keystone-engine (pip install keystone-engine); running a prebuilt blob does not"
        ) from None
    return keystone.Ks(
        keystone.KS_ARCH_X86, {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[mode]
    )


def _keystone_text(instruction: Instruction) -> str:
    """The instruction for Keystone: numbers as signed ones, from which it picks the short form as GNU as does."""
    operands = list(instruction.operands)
    if len(operands) == 2 and isinstance(operands[1], Immediate):
        width = _operand_bytes(operands[0])
        if width is not None:
            require_fit(operands[1].value, width)
            operands[1] = Immediate(_signed(operands[1].value, width))
    return str(instruction._replace(operands=tuple(operands)))


def _operand_bytes(operand: Operand) -> int | None:
    match operand:
        case Register(name):
            return REGISTER_BYTES[name]
        case Memory(size=size):
            return size
        case _:
            return None


def _keystone_bytes(instruction: Instruction) -> bytes:
    assembler = _keystone(instruction.mode)
    import keystone

    text = _keystone_text(instruction)
    try:
        code, count = assembler.asm(text, 0)
    except keystone.KsError as error:
        raise ValueError(f"{text!r} cannot be assembled: {str(error).partition(' (')[0]}") from None
    if not code or count != 1:
        raise ValueError(f"{text!r} cannot be assembled")
    return bytes(code)
