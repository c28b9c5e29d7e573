"""Instructions as text, by Capstone."""

from functools import lru_cache
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.x86 import INSTRUCTION_MAX

# As Capstone writes them.
_PREFIXES: Final = frozenset(("bnd", "lock", "notrack", "rep", "repe", "repne", "repnz", "repz", "xacquire", "xrelease"))
_INPUTS: Final = ("insb", "insw", "insd")


class Decoded(NamedTuple):
    """An instruction: its bytes, its text in Intel's syntax, and Capstone's own view of it (None: the bytes are no
    instruction, and `data` is all of them)."""

    data: bytes
    text: str
    detail: Any


class Words(NamedTuple):
    """The text of an instruction in parts: a prefix that has a word of its own ("": none), its name, and its operands."""

    prefix: str
    name: str
    operands: str


def is_input(text: str) -> bool:
    """Whether an instruction is an `ins`, of which Unicorn tells a store of 0 first, by which it learns whether it may, and
    then that of what the port has given."""
    return words_of(text).name in _INPUTS


def words_of(text: str) -> Words:
    """The parts of an instruction, as `decode` writes it."""
    prefix, _, rest = text.partition(" ")
    if prefix in _PREFIXES:
        name, _, operands = rest.partition(" ")
        return Words(prefix, name, operands)
    return Words("", prefix, rest)


@lru_cache(maxsize=1 << 16)
def decode(code: bytes, address: int, bits: int) -> Decoded:
    """The instruction that `code` starts with, at a linear address; up to INSTRUCTION_MAX bytes of it are looked at."""
    code = code[:INSTRUCTION_MAX]
    for found in _decoder(bits).disasm(code, address, 1):
        return Decoded(bytes(found.bytes), f"{found.mnemonic} {found.op_str}".rstrip(), found)
    return Decoded(code, "(no instruction)" if code else "(no memory)", None)


@lru_cache
def _decoder(bits: int) -> Any:
    import capstone

    modes: Final = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    decoder = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
    decoder.detail = True
    return decoder
