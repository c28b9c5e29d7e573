"""One instruction to bytes, proven: the only module that imports Keystone, and it trusts it with nothing.

Keystone gets one instruction at a time with plain numbers. What it encodes wrongly or cannot spell (relative branches in
16-bit code, segment overrides, lock, lgdt and its like, far branches, string instructions, returns, push of a number or
a segment register) is encoded here. Whatever the source of the bytes, Capstone reads them back, and mnemonic, prefix
and every operand must be those that were asked for.
"""

from functools import cache
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

_LOCKABLE: Final = frozenset(
    ("add", "adc", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg8b", "dec", "inc", "neg", "not", "or", "sbb", "sub", "xadd")
    + ("xchg", "xor")
)

_TABLES: Final = {"sgdt": 0, "sidt": 1, "lgdt": 2, "lgdtd": 2, "lidt": 3, "lidtd": 3}
FAR_BRANCHES: Final = {"ljmp": b"\xea", "lcall": b"\x9a"}
_RETURNS: Final = {"ret": 0xC2, "retf": 0xCA}  # with a number; without one it is the next opcode
_SEGMENT_PREFIXES: Final = dict(zip(SEGMENT_REGISTERS, b"\x26\x2e\x36\x3e\x64\x65", strict=True))
_PUSH_SEGMENT: Final = {"es": b"\x06", "cs": b"\x0e", "ss": b"\x16", "ds": b"\x1e", "fs": b"\x0f\xa0", "gs": b"\x0f\xa8"}

# Without operands, and as wide as the mode where the name does not say otherwise.
_PLAIN: Final = {"pushf": b"\x9c", "popf": b"\x9d", "iret": b"\xcf"}
_PLAIN_BY_MODE: Final[dict[int, dict[str, bytes]]] = {
    16: {"iretd": b"\x66\xcf", "cbw": b"\x98", "cwde": b"\x66\x98", "cwd": b"\x99", "cdq": b"\x66\x99"},
    32: {"iretd": b"\xcf", "cbw": b"\x66\x98", "cwde": b"\x98", "cwd": b"\x66\x99", "cdq": b"\x99"},
    64: {"iretd": b"\xcf", "iretq": b"\x48\xcf"},
}


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


@cache
def _encode_absolute(instruction: Instruction) -> bytes:
    wanted = _spelled_out(instruction)
    code = _own_bytes(wanted) or _with_prefixes(wanted)
    prove(wanted, code, 0)
    return code


def _spelled_out(instruction: Instruction) -> Instruction:
    """The instruction with the operand that a short spelling leaves out; ValueError for what is ambiguous."""
    mode, prefix, mnemonic, operands = instruction
    if prefix == "data32" and mnemonic not in FAR_BRANCHES:
        raise ValueError(f"data32 goes with {' and '.join(FAR_BRANCHES)} only")
    if prefix and prefix not in ("lock", "data32") and (operands or mnemonic[:-1] not in _STRING_OPCODES):
        raise ValueError(f"{prefix} goes with string instructions without operands (movsb, stosd, ...) only")
    if prefix == "lock" and (mnemonic not in _LOCKABLE or not any(isinstance(operand, Memory) for operand in operands)):
        raise ValueError(f"lock does not go with this {mnemonic}: it takes an instruction that reads and writes memory")
    if mnemonic == "nop" and operands:
        raise ValueError("nop takes no operand")
    if mnemonic in ("jmp", "call") and mode == 16 and isinstance(operands[0], Memory) and operands[0].size == 4:
        raise ValueError(
            f"{mnemonic} dword ptr in 16-bit code is a far one to some assemblers: load a register and {mnemonic} to it"
        )
    if mnemonic == "imul" and len(operands) == 2 and isinstance(operands[1], Immediate):
        operands = (operands[0], *operands)
    return instruction._replace(operands=operands)


def _with_prefixes(instruction: Instruction) -> bytes:
    """Keystone's bytes, with lock and a segment override put in front of them here: it refuses or drops some of them."""
    operands = instruction.operands
    overrides = [operand.explicit_segment for operand in operands if isinstance(operand, Memory)]
    plain = tuple(operand._replace(segment=None) if isinstance(operand, Memory) else operand for operand in operands)
    code = _keystone_bytes(instruction._replace(prefix="", operands=plain))
    if instruction.prefix == "lock":
        sizes = len(code) - len(code.lstrip(b"\x66\x67"))
        code = code[:sizes] + b"\xf0" + code[sizes:]
    return bytes(_SEGMENT_PREFIXES[name] for name in overrides if name) + code


def _relative_bytes(instruction: Instruction, address: int, near: bool) -> bytes:
    mode, mnemonic = instruction.mode, instruction.mnemonic
    (target,) = instruction.operands
    assert isinstance(target, Immediate)
    if instruction.prefix:
        raise ValueError(f"{instruction.prefix} does not go with {mnemonic}")
    bits = 16 if mode == 16 else 32

    if mode == 16 and abs(target.value - address) > 0xFFFF:
        raise ValueError(f"{mnemonic} in 16-bit code does not reach {target.value:#x} from {address:#x}")

    def distance(length: int) -> int:
        """From the end of an instruction of `length` bytes, as IP wraps."""
        modulus = 1 << (64 if mode == 64 else bits)
        raw = (target.value - (address + length)) % modulus
        return raw - modulus if raw >= modulus >> 1 else raw

    if not near and mnemonic != "call":
        # Only jcxz and jecxz need the address-size prefix, to say which counter they test.
        prefix = b"\x67" if (mnemonic == "jcxz" and mode == 32) or (mnemonic == "jecxz" and mode != 32) else b""
        opcode = 0xEB if mnemonic == "jmp" else _SHORT_ONLY.get(mnemonic, 0x70 + _JCC.get(mnemonic, 0))
        step = distance(len(prefix) + 2)
        if -128 <= step <= 127:
            return prefix + bytes([opcode]) + step.to_bytes(1, "little", signed=True)
        if mnemonic in _SHORT_ONLY:
            raise ValueError(f"{mnemonic} reaches 128 bytes back and 127 ahead, not {step}")
        raise Unreachable
    opcodes = {"call": b"\xe8", "jmp": b"\xe9"}.get(mnemonic) or bytes([0x0F, 0x80 + _JCC[mnemonic]])
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
    if mnemonic in FAR_BRANCHES:
        return _far_branch(instruction)
    if mnemonic in _TABLES:
        return _table_access(instruction)
    if not operands and (plain := _PLAIN.get(mnemonic) or _PLAIN_BY_MODE[mode].get(mnemonic)):
        return plain
    if mnemonic in _RETURNS and len(operands) <= 1:
        return _return(mnemonic, operands)
    if mnemonic in ("push", "pop") and len(operands) == 1:
        return _push_or_pop(mode, mnemonic, operands[0])
    return None


def _return(mnemonic: str, operands: tuple[Operand, ...]) -> bytes:
    opcode = _RETURNS[mnemonic]
    if not operands:
        return bytes([opcode + 1])
    if not isinstance(operands[0], Immediate) or not 0 <= operands[0].value <= 0xFFFF:
        raise ValueError(f"{mnemonic} takes a number of bytes, at most 0xffff")
    return bytes([opcode]) + operands[0].value.to_bytes(2, "little")


def _push_or_pop(mode: int, mnemonic: str, operand: Operand) -> bytes | None:
    """Of a number or a segment register, as wide as the mode; None for other operands."""
    if isinstance(operand, Register) and operand.name in _PUSH_SEGMENT:
        push = _PUSH_SEGMENT[operand.name]
        return push if mnemonic == "push" else push[:-1] + bytes([push[-1] + 1])
    if mnemonic == "pop" or not isinstance(operand, Immediate):
        return None
    width = 2 if mode == 16 else 4
    require_fit(operand.value, width)
    signed = _signed(operand.value, width)
    if -128 <= signed <= 127:
        return b"\x6a" + signed.to_bytes(1, "little", signed=True)
    return b"\x68" + signed.to_bytes(width, "little", signed=True)


def _far_branch(instruction: Instruction) -> bytes:
    mode, prefix, mnemonic, operands = instruction
    if mode == 64 or len(operands) != 2 or not all(isinstance(operand, Immediate) for operand in operands):
        raise ValueError(f"{mnemonic} takes a selector and an offset, in 16- and 32-bit code")
    selector, offset = (operand.value for operand in operands if isinstance(operand, Immediate))
    wide = mode == 32 or prefix == "data32"
    size_prefix = b"\x66" if wide and mode == 16 else b""
    require_fit(selector, 2)
    require_fit(offset, 4 if wide else 2)
    mask = 0xFFFFFFFF if wide else 0xFFFF
    pointer = (offset & mask).to_bytes(4 if wide else 2, "little") + (selector & 0xFFFF).to_bytes(2, "little")
    return size_prefix + FAR_BRANCHES[mnemonic] + pointer


def _table_access(instruction: Instruction) -> bytes:
    """lgdt, lidt, sgdt, sidt: in 16-bit code the operand-size prefix asks for a base of 32 bits (`lgdtd`)."""
    mode, _, mnemonic, operands = instruction
    if len(operands) != 1 or not isinstance(operands[0], Memory):
        raise ValueError(f"{mnemonic} takes a memory operand")
    memory = operands[0]
    if mode == 16 and mnemonic in ("lgdt", "lidt"):
        raise ValueError(f"{mnemonic} in 16-bit code loads 24 bits of the base only: write {mnemonic}d")
    override = memory.explicit_segment
    segment = bytes([_SEGMENT_PREFIXES[override]]) if override else b""
    # The ModRM byte, its base, index and displacement are those of any other instruction with the same operand:
    # `push` of it (ff /6), where the register field becomes the one of lgdt (0f 01 /2) and its like.
    stand_in = Instruction(mode, "", "push", (memory._replace(size=mode // 8, segment=None),))
    push = _keystone_bytes(stand_in)
    address_size = b"\x67" if push[0] == 0x67 else b""
    opcode, modrm = push[len(address_size) :][:2]
    if opcode != 0xFF or modrm & 0x38 != 0x30:
        raise ValueError(f"cannot encode {instruction}")
    data_size = b"\x66" if mnemonic in ("lgdtd", "lidtd") and mode == 16 else b""
    field = bytes([modrm & ~0x38 | _TABLES[mnemonic] << 3])
    return segment + address_size + data_size + b"\x0f\x01" + field + push[len(address_size) + 2 :]


def _signed(value: int, width: int) -> int:
    value &= (1 << 8 * width) - 1
    return value - (1 << 8 * width) if value >> (8 * width - 1) else value


@cache
def _keystone(mode: int) -> Any:
    try:
        import keystone
    except ImportError:
        raise BootError(
            "assembling needs keystone-engine: pip install keystone-engine, which has wheels for x86 (Linux with glibc, macOS, "
            "Windows); what is prebuilt runs without"
        ) from None
    return keystone.Ks(keystone.KS_ARCH_X86, {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}[mode])


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
