"""The proof behind every encoded instruction: Capstone reads the bytes back, and they must say what was asked for."""

from functools import cache
from typing import Any, Final

from .instruction import Instruction, require_fit
from .operands import Immediate, Memory, Operand, Register

# What Capstone calls by another name than the source may.
_CANONICAL: Final = {
    **{
        stem + name: stem + canonical
        for stem in ("j", "set", "cmov")
        for name, canonical in {
            "c": "b",
            "nae": "b",
            "nb": "ae",
            "nc": "ae",
            "z": "e",
            "nz": "ne",
            "na": "be",
            "nbe": "a",
            "pe": "p",
            "po": "np",
            "nge": "l",
            "nl": "ge",
            "ng": "le",
            "nle": "g",
        }.items()
    },
    "loopz": "loope",
    "loopnz": "loopne",
    "sal": "shl",
    "lgdtd": "lgdt",
    "lidtd": "lidt",
    "pushad": "pushal",
    "popad": "popal",
    "repz": "repe",
    "repnz": "repne",
}
# Those that have the size of the mode where they do not say one. In 16-bit code Capstone names cbw and cwd after their
# 32-bit forms.
_CANONICAL_16: Final = {"pusha": "pushaw", "popa": "popaw", "cbw": "cwde", "cwd": "cdq"}
_CANONICAL_32: Final = {"pusha": "pushal", "popa": "popal", "pushf": "pushfd", "popf": "popfd", "iret": "iretd"}
_CANONICAL_64: Final = {"pushf": "pushfq", "popf": "popfq", "iret": "iretd"}
_CANONICAL_BY_MODE: Final = {16: _CANONICAL_16, 32: _CANONICAL_32, 64: _CANONICAL_64}
_COMMUTING: Final = frozenset({"xchg", "test"})


@cache
def _capstone(mode: int) -> Any:
    import capstone

    engine = capstone.Cs(
        capstone.CS_ARCH_X86, {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[mode]
    )
    engine.detail = True
    return engine


def prove(wanted: Instruction, code: bytes, address: int) -> None:
    """ValueError unless Capstone reads `code` as exactly the instruction that was wanted."""
    found = list(_capstone(wanted.mode).disasm(code, address))
    if len(found) != 1 or found[0].size != len(code):
        raise ValueError(f"{wanted}: {code.hex(' ')} reads back as no single instruction")
    got = found[0]
    problem = _mismatch(wanted, got)
    if problem:
        raise ValueError(f"{wanted}: {code.hex(' ')} reads back as {got.mnemonic} {got.op_str} ({problem})")


def _mismatch(wanted: Instruction, got: Any) -> str | None:
    words = got.mnemonic.split()
    prefix = "" if wanted.prefix == "data32" else _CANONICAL.get(wanted.prefix, wanted.prefix)
    mnemonic = _CANONICAL_BY_MODE[wanted.mode].get(wanted.mnemonic) or _CANONICAL.get(wanted.mnemonic, wanted.mnemonic)
    if wanted.mnemonic[:-1] in ("movs", "stos", "lods", "ins", "outs") and prefix == "repe":
        prefix = "rep"
    got_prefix = words[0] if len(words) == 2 else ""
    if got_prefix == "repe" and prefix == "rep":
        got_prefix = "rep"
    if (got_prefix, words[-1]) != (prefix, mnemonic):
        return "another mnemonic"
    if not wanted.operands:
        return None
    operands = list(got.operands)
    if len(operands) != len(wanted.operands):
        return "another number of operands"
    if not (problem := _operand_mismatches(wanted, got, operands)):
        return None
    if mnemonic in _COMMUTING and not _operand_mismatches(wanted, got, operands[::-1]):
        return None
    return problem


def _operand_mismatches(wanted: Instruction, got: Any, operands: list[Any]) -> str | None:
    for operand, found in zip(wanted.operands, operands, strict=True):
        problem = _operand_mismatch(operand, found, got, wanted.mnemonic)
        if problem:
            return problem
    return None


def _operand_mismatch(wanted: Operand, found: Any, got: Any, mnemonic: str) -> str | None:
    import capstone.x86 as x86

    def name(register: int) -> str | None:
        return got.reg_name(register) if register else None

    match wanted:
        case Register(register):
            if found.type != x86.X86_OP_REG or name(found.reg) != register:
                return f"{register} is missing"
        case Immediate(value):
            if found.type != x86.X86_OP_IMM:
                return f"{value:#x} is missing"
            branch = got.group(x86.X86_GRP_JUMP) or got.group(x86.X86_GRP_CALL) or got.group(x86.X86_GRP_BRANCH_RELATIVE)
            bits = 8 * found.size if not branch or got.addr_size != 2 else 16
            if mnemonic in ("ljmp", "lcall"):
                bits = 32
            if not branch:
                require_fit(value, bits // 8)
            if (found.imm - value) % (1 << bits):
                return f"{value:#x} became {found.imm:#x}"
        case Memory(size, _, base, index, scale, displacement):
            memory = found.mem if found.type == x86.X86_OP_MEM else None
            if memory is None:
                return "the memory operand is missing"
            # esp cannot be scaled, and without a scale base and index may change places.
            places = {(base, index), (index, base)} if scale == 1 else {(base, index)}
            if (name(memory.base), name(memory.index)) not in places or (index and memory.scale != scale):
                return "another address"
            if wanted.explicit_segment != name(memory.segment):
                return "another segment"
            require_fit(displacement, got.addr_size)
            if (memory.disp - displacement) % (1 << 8 * got.addr_size):
                return f"{displacement:#x} became {memory.disp:#x}"
            if size is not None and size != found.size:
                return "another size"
    return None
