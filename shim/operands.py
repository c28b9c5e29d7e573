"""The operands of an instruction in Intel syntax: read from the source, and, once resolved, written for the assembler."""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from .expression import Expression

SIZES: Final = {"byte": 1, "word": 2, "dword": 4, "fword": 6, "qword": 8}
_SIZE_NAMES: Final = {size: name for name, size in SIZES.items()}

SEGMENT_REGISTERS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
_LEGACY: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
REGISTER_BYTES: Final[dict[str, int]] = {
    **dict.fromkeys(("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh", "spl", "bpl", "sil", "dil"), 1),
    **dict.fromkeys((*_LEGACY, *SEGMENT_REGISTERS), 2),
    **{"e" + name: 4 for name in _LEGACY},
    **{"r" + name: 8 for name in _LEGACY},
    **{f"r{n}{suffix}": size for n in range(8, 16) for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1))},
    **{f"{kind}{n}": 4 for kind in ("cr", "dr") for n in range(8)},
}

_ATT: Final = re.compile(r"\$-?[0-9]|%|.*\(\s*%")  # as $0x3f8, %edx, 8(%ebp): in an expression there is none of these

_MEMORY: Final = re.compile(
    r"(?:(?P<size>byte|word|dword|fword|qword)\s+ptr\s+)?(?:(?P<segment>[c-gs]s)\s*:\s*)?\[(?P<inside>.*)\]", re.IGNORECASE
)


class Register(NamedTuple):
    """A register by its name in lower case."""

    name: str


class Immediate(NamedTuple):
    """A number."""

    value: int


class Memory(NamedTuple):
    """A memory operand: `size` in bytes or None where the source does not say, displacement resolved."""

    size: int | None
    segment: str | None
    base: str | None
    index_register: str | None
    scale: int
    displacement: int

    @property
    def explicit_segment(self) -> str | None:
        """The segment, where it is another than the one that base and index imply: only then it takes a prefix."""
        on_stack = self.base in ("esp", "rsp", "ebp", "rbp", "bp") or self.index_register == "bp"
        return self.segment if self.segment != ("ss" if on_stack else "ds") else None


Operand = Register | Immediate | Memory


class SourceImmediate(NamedTuple):
    """A number or an address (`offset label`) as the source writes it."""

    expression: Expression
    is_offset: bool


class SourceMemory(NamedTuple):
    """A memory operand whose displacement is still an expression."""

    operand: Memory
    displacement: Expression | None


SourceOperand = Register | SourceImmediate | SourceMemory


def parse(text: str) -> SourceOperand:
    """Reads one operand; ValueError if it is none."""
    stripped = text.strip()
    if stripped.lower() in REGISTER_BYTES:
        return Register(stripped.lower())
    if _ATT.match(stripped):
        raise ValueError(f"{stripped!r} is AT&T syntax: write Intel's, the destination first, as in mov edx, 0x3f8")
    if "[" in stripped:
        return _parse_memory(stripped)
    if re.match(r"(short|near|far)\s", stripped, re.IGNORECASE):
        raise ValueError(f"write the target alone, without {stripped.split()[0]}: a branch is short wherever it reaches")
    if re.match(r"(byte|word|dword|fword|qword)\s", stripped, re.IGNORECASE):
        raise ValueError(f"a size goes with a memory operand in brackets, not with {stripped!r}: write e.g. dword ptr [label]")
    if match := re.match(r"offset\s+(.*)", stripped, re.IGNORECASE):
        return SourceImmediate(Expression(match.group(1)), True)
    return SourceImmediate(Expression(stripped), False)


def _parse_memory(text: str) -> SourceMemory:
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"cannot read the memory operand {text!r}: write e.g. dword ptr [ebx + 4]")
    base: str | None = None
    index: str | None = None
    scale = 1
    rest: list[str] = []
    inside = match.group("inside")
    for sign, term in _split_terms(inside):
        name, _, factor = (part.strip() for part in term.partition("*"))
        if factor.lower() in REGISTER_BYTES:
            name, factor = factor, name
        is_register = name.lower() in REGISTER_BYTES
        if is_register and sign == "-":
            raise ValueError(f"a register cannot be subtracted: {text!r}")
        if is_register and factor:
            if index is not None or factor not in ("1", "2", "4", "8"):
                raise ValueError(f"one index register, times 1, 2, 4 or 8, is possible: {text!r}")
            index, scale = name.lower(), int(factor)
        elif is_register and base is None:
            base = name.lower()
        elif is_register and index is None:
            index = name.lower()
        elif is_register:
            raise ValueError(f"too many registers in {text!r}")
        else:
            rest.append(f"{sign or '+'} {term}")
    if index == "esp" and scale == 1 and base != "esp":
        base, index = index, base  # esp is no index: the other one is
    size = match.group("size")
    segment = match.group("segment")
    operand = Memory(SIZES[size.lower()] if size else None, segment.lower() if segment else None, base, index, scale, 0)
    return SourceMemory(operand, Expression(" ".join(rest)) if rest else None)


def _split_terms(text: str) -> list[tuple[str, str]]:
    """The terms of a sum with their signs; parentheses keep theirs together."""
    terms: list[tuple[str, str]] = []
    depth = 0
    sign, term = "", ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char in "+-" and depth == 0 and (term.strip() or (not sign and char == "-")):
            if term.strip():
                terms.append((sign, term.strip()))
            sign, term = char, ""
        else:
            term += char
    if not term.strip():
        raise ValueError(f"a term is missing in [{text}]")
    terms.append((sign, term.strip()))
    return terms


def resolve(operand: SourceOperand, evaluate: Callable[[Expression], int]) -> Operand:
    """The operand with its numbers put in."""
    match operand:
        case Register():
            return operand
        case SourceImmediate(expression, _):
            return Immediate(evaluate(expression))
        case SourceMemory(memory, displacement):
            return memory if displacement is None else memory._replace(displacement=evaluate(displacement))


def render(operand: Operand) -> str:
    """The operand in the one spelling that Keystone reads right: hexadecimal numbers, sums already made."""
    match operand:
        case Register(name):
            return name
        case Immediate(value):
            return f"{value:#x}"
        case Memory(size, segment, base, index, scale, displacement):
            parts = [part for part in (base, f"{index}*{scale}" if index else None) if part]
            if displacement or not parts:
                parts.append(f"{displacement:#x}")
            inside = " + ".join(parts).replace("+ -", "- ")
            prefix = f"{_SIZE_NAMES[size]} ptr " if size else ""
            return f"{prefix}{segment + ':' if segment else ''}[{inside}]"
