"""What two processors may give otherwise and both be right, CPUID first of all, and where a program takes it."""

import re
from collections.abc import Iterable
from typing import Any, Final

from .disassembly import decode, words_of
from .effects import LOAD, STORE, Effect
from .trace import Record

_GIVING: Final = frozenset(("cpuid", "rdtsc", "rdtscp", "rdpmc", "rdrand", "rdseed", "rdmsr", "xgetbv"))

_FLAGS: Final = ("flags", "eflags", "rflags")


class OwnValues:
    """Two runs that execute the same instructions. `registers` are those that differ as what a processor says of itself has got
    into them; so may bytes of memory, as far as one of the runs has told loads and stores."""

    def __init__(self) -> None:
        self.registers: set[str] = set()
        self._memory: list[range] = []  # no two overlap

    def reach(self, record: Record, effects: Iterable[Effect]) -> bool:
        """Whether such values go into this instruction, or it gives them itself. Its stores take them along."""
        if gives_own_values(record):
            return True
        if not self.registers and not self._memory:
            return False
        memory = [effect for effect in effects if effect.kind in (LOAD, STORE)]
        loaded = any(self._holds_of(_span(effect)) for effect in memory if effect.kind == LOAD)
        reached = loaded or not self.registers.isdisjoint(_read_by(record))
        for effect in memory:
            if effect.kind == STORE:
                self._forget(_span(effect))
                if reached:
                    self._memory.append(_span(effect))
        return reached

    def _holds_of(self, span: range) -> bool:
        return any(kept.start < span.stop and span.start < kept.stop for kept in self._memory)

    def _forget(self, span: range) -> None:
        """Of an instruction that stores a whole memory, too."""
        if self._holds_of(span):
            parts = ((kept.start, min(kept.stop, span.start), max(kept.start, span.stop), kept.stop) for kept in self._memory)
            pieces = (piece for start, end, begin, stop in parts for piece in (range(start, end), range(begin, stop)))
            self._memory = [piece for piece in pieces if piece]


def gives_own_values(record: Record) -> bool:
    """Whether what this instruction gives may be the processor's own."""
    return words_of(record.text).name in _GIVING


def _span(effect: Effect) -> range:
    return range(effect.at, effect.at + effect.size * effect.times)


def _read_by(record: Record) -> set[str]:
    detail: Any = decode(record.code, record.address, record.bits).detail
    if detail is None:
        return set()
    read, _ = detail.regs_access()
    return {whole_register(detail.reg_name(register)) for register in read}


def whole_register(name: str) -> str:
    """The register of STATE_REGISTERS that this one is, or is a part of."""
    if name in _FLAGS:
        return "eflags"
    if numbered := re.fullmatch(r"(r\d+)[bwd]?", name):
        return numbered[1]
    if letter := re.fullmatch(r"[er]?([abcd])x|([abcd])[lh]", name):
        return f"e{letter[1] or letter[2]}x"
    if pointer := re.fullmatch(r"[er]?(si|di|bp|sp)l?", name):
        return f"e{pointer[1]}"
    return name
