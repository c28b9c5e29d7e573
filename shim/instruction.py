"""An instruction whose numbers are resolved: what the encoder is asked for, and what the proof compares with."""

from typing import NamedTuple

from .operands import Operand, render


class Instruction(NamedTuple):
    """An instruction with its numbers resolved. `mode` is the code size in bits: 16, 32 or 64."""

    mode: int
    prefix: str
    mnemonic: str
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        if self.mnemonic == "ljmp":
            operands = ":".join(render(operand) for operand in self.operands)
        else:
            operands = ", ".join(render(operand) for operand in self.operands)
        return " ".join(part for part in (self.prefix, self.mnemonic, operands) if part)


def require_fit(value: int, width: int) -> None:
    """ValueError unless `value` is a signed or unsigned number of `width` bytes."""
    if not -(1 << 8 * width - 1) <= value < 1 << 8 * width:
        raise ValueError(f"{value:#x} does not fit into {width} byte{'s' if width > 1 else ''}")
