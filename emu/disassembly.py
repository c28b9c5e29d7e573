"""Instructions as text, by Capstone."""

from functools import lru_cache
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.x86 import INSTRUCTION_MAX


class Decoded(NamedTuple):
    """An instruction: its bytes, its text in Intel's syntax, and Capstone's own view of it (None: the bytes are no
    instruction, and `data` is all of them)."""

    data: bytes
    text: str
    detail: Any


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
