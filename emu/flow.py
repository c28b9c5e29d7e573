"""Where an instruction can go: what its first bytes say, for whoever asks which ways a firmware has."""

from enum import Enum
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import ADDRESS_4G, PREFIXES, REAL_SEGMENT

# Intel SDM volume 2, 2.2.1, and the opcode maps of appendix A.
_REX: Final = range(0x40, 0x50)
_TWO_BYTES: Final = 0x0F
_JCC_SHORT: Final = range(0x70, 0x80)
_JCC_NEAR: Final = range(0x80, 0x90)  # behind 0x0f
_LOOPS: Final = range(0xE0, 0xE4)  # loopne, loope, loop, jcxz
_CALL: Final = 0xE8
_JUMPS: Final = (0xE9, 0xEB)
_ENDS: Final = (0xC2, 0xC3, 0xCA, 0xCB, 0xCF, 0xEA)  # ret, retf, iret, a far jump
_INDIRECT: Final = 0xFF
_INDIRECT_JUMPS: Final = (4, 5)  # /4 near, /5 far
_UD2: Final = 0x0B  # behind 0x0f


class Way(Enum):
    """How an instruction goes on."""

    NEXT = "to the next one"
    BRANCH = "to its target or to the next one"
    JUMP = "to its target"
    CALL = "to its target, and then to the next one"
    ELSEWHERE = "to where its bytes do not say"


class Flow(NamedTuple):
    """How an instruction goes on, and the linear address of its target, if its bytes say it."""

    way: Way
    target: int | None = None


def flow(data: bytes, address: int, bits: int) -> Flow:
    """Of the one instruction that is `data`, at a linear address below 4 GiB."""
    at = 0
    while at < len(data) - 1 and (data[at] in PREFIXES or (bits == 64 and data[at] in _REX)):
        at += 1
    opcode, rest = data[at], data[at + 1 :]
    if opcode == _TWO_BYTES and rest:
        if rest[0] in _JCC_NEAR:
            return Flow(Way.BRANCH, _target(address, len(data), rest[1:]))
        return Flow(Way.ELSEWHERE if rest[0] == _UD2 else Way.NEXT)
    if opcode in _JCC_SHORT or opcode in _LOOPS:
        return Flow(Way.BRANCH, _target(address, len(data), rest))
    if opcode in _JUMPS:
        return Flow(Way.JUMP, _target(address, len(data), rest))
    if opcode == _CALL:
        return Flow(Way.CALL, _target(address, len(data), rest))
    indirect = opcode == _INDIRECT and rest and rest[0] >> 3 & 7 in _INDIRECT_JUMPS
    return Flow(Way.ELSEWHERE if opcode in _ENDS or indirect else Way.NEXT)


def _target(address: int, size: int, distance: bytes) -> int:
    """A distance of two bytes stays in its 64 KiB: those of the segments of a firmware, F000 and that of the reset."""
    target = address + size + int.from_bytes(distance, "little", signed=True)
    if len(distance) == 2:
        return address - address % REAL_SEGMENT + target % REAL_SEGMENT
    return target % ADDRESS_4G
