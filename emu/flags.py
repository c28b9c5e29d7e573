"""Which arithmetic flags an instruction defines, and which it leaves undefined: two processors may differ there, and be right.

Source: Intel SDM volume 1, appendix A (EFLAGS cross-reference), and for shifts and rotates by a count volume 2: SAL to SHR,
RCL to ROR, SHLD, SHRD.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import (
    EFLAGS_AF,
    EFLAGS_ARITHMETIC,
    EFLAGS_CF,
    EFLAGS_OF,
    EFLAGS_PF,
    EFLAGS_SF,
    EFLAGS_ZF,
)

from .disassembly import words_of

_RESULT: Final = EFLAGS_SF | EFLAGS_ZF | EFLAGS_PF


class Flags(NamedTuple):
    """Bits of EFLAGS that an instruction sets to what its definition says, and those that it may leave as anything."""

    defined: int = 0
    undefined: int = 0


_ALL: Final = Flags(EFLAGS_ARITHMETIC)
_LOGIC: Final = Flags(EFLAGS_ARITHMETIC & ~EFLAGS_AF, EFLAGS_AF)
_COUNTING: Final = Flags(EFLAGS_ARITHMETIC & ~EFLAGS_CF)
_MULTIPLY: Final = Flags(EFLAGS_CF | EFLAGS_OF, _RESULT | EFLAGS_AF)
_BIT: Final = Flags(EFLAGS_CF, EFLAGS_OF | EFLAGS_SF | EFLAGS_AF | EFLAGS_PF)
_SCAN: Final = Flags(EFLAGS_ZF, EFLAGS_ARITHMETIC & ~EFLAGS_ZF)
_ADJUST: Final = Flags(EFLAGS_CF | EFLAGS_AF, EFLAGS_OF | _RESULT)
_ZERO: Final = Flags(EFLAGS_ZF)

_FLAGS: Final[Mapping[str, Flags]] = {
    **dict.fromkeys(("add", "adc", "sub", "sbb", "cmp", "neg", "xadd", "cmpxchg", "popf", "popfd", "popfq"), _ALL),
    **dict.fromkeys(("iret", "iretd", "iretq"), _ALL),
    **dict.fromkeys((f"{name}{size}" for name in ("cmps", "scas") for size in "bwdq"), _ALL),
    **dict.fromkeys(("and", "or", "xor", "test"), _LOGIC),
    **dict.fromkeys(("inc", "dec"), _COUNTING),
    **dict.fromkeys(("mul", "imul"), _MULTIPLY),
    **dict.fromkeys(("div", "idiv"), Flags(0, EFLAGS_ARITHMETIC)),
    **dict.fromkeys(("bt", "btc", "btr", "bts"), _BIT),
    **dict.fromkeys(("bsf", "bsr"), _SCAN),
    **dict.fromkeys(("aaa", "aas"), _ADJUST),
    **dict.fromkeys(("aad", "aam"), Flags(_RESULT, EFLAGS_OF | EFLAGS_AF | EFLAGS_CF)),
    **dict.fromkeys(("daa", "das"), Flags(EFLAGS_ARITHMETIC & ~EFLAGS_OF, EFLAGS_OF)),
    **dict.fromkeys(("arpl", "lar", "lsl", "verr", "verw", "cmpxchg8b", "cmpxchg16b"), _ZERO),
    **dict.fromkeys(("clc", "stc"), Flags(EFLAGS_CF)),
    "sahf": Flags(EFLAGS_ARITHMETIC & ~EFLAGS_OF),
}
_SHIFTS: Final = frozenset(("sal", "sar", "shl", "shr"))
_ROTATES: Final = frozenset(("rcl", "rcr", "rol", "ror"))
_DOUBLE_SHIFTS: Final = frozenset(("shld", "shrd"))


def flags_of(text: str, ecx: int | None) -> Flags:
    """What an instruction, as Capstone writes it, does to the arithmetic flags. ECX is that before it (None: unknown)."""
    _, name, operands = words_of(text)
    if name in _SHIFTS or name in _ROTATES or name in _DOUBLE_SHIFTS:
        return _by_count(name, operands.split(", "), ecx)
    return _FLAGS.get(name, Flags())


def _by_count(name: str, operands: list[str], ecx: int | None) -> Flags:
    """A count of 0 changes no flag; CL counts modulo 32 or, of 64 bits, 64."""
    bits = _bits(operands[0])
    if operands[-1] == "cl":
        count = ecx
    else:
        count = int(operands[-1], 0) if len(operands) == (3 if name in _DOUBLE_SHIFTS else 2) else 1
    if count is None:
        return Flags(0, EFLAGS_ARITHMETIC)
    count %= 64 if bits == 64 else 32
    if not count:
        return Flags()
    if name in _ROTATES:
        return Flags(EFLAGS_CF | EFLAGS_OF) if count == 1 else Flags(EFLAGS_CF, EFLAGS_OF)
    if name in _DOUBLE_SHIFTS and count > bits:
        return Flags(0, EFLAGS_ARITHMETIC)
    undefined = EFLAGS_AF
    if count > 1:
        undefined |= EFLAGS_OF
    if count >= bits and name in ("sal", "shl", "shr"):
        undefined |= EFLAGS_CF
    return Flags(EFLAGS_ARITHMETIC & ~undefined, undefined)


def _bits(operand: str) -> int:
    """The width of a general register, or of memory, as Capstone writes it."""
    for size, bits in (("byte", 8), ("dword", 32), ("qword", 64), ("word", 16)):
        if operand.startswith(f"{size} ptr"):
            return bits
    if operand[0] == "r":
        return {"b": 8, "w": 16, "d": 32}.get(operand[-1], 64) if operand[1].isdigit() else 64
    return 32 if operand[0] == "e" else 8 if operand[-1] in "lh" else 16
