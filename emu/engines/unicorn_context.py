"""The saved CPU context of Unicorn: the only way to its hidden descriptor state, and to the true reset state.

The context is QEMU's CPUX86State, whose layout is no interface: the offsets hold for the releases named here, and
`probe` tests them on each new engine before anybody relies on them.
"""

import ctypes
import struct
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi import x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError

KNOWN_RELEASES: Final = ("2.1.4",)

_GPR: Final = 40
_RIP: Final = 168
_HFLAGS: Final = 216
_SEGMENTS: Final = 224
_CR: Final = 464
_EFER: Final = 632
_END: Final = _EFER + 8

_ORDER: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "gdtr", "idtr")
_SEGMENT: Final = struct.Struct("<IIQII")  # selector, padding, base, limit, flags

_HFLAGS_REAL_MODE: Final = 0x40  # HF_ADDSEG


class CpuContext(NamedTuple):
    """Segment registers and descriptor tables with their hidden parts, and the control registers 0 to 4."""

    segments: dict[str, Segment]
    gdtr_base: int
    gdtr_limit: int
    idtr_base: int
    idtr_limit: int
    cr: tuple[int, ...]


def _flags(segment: Segment) -> int:
    bits = segment.type << x86.DESC_TYPE_SHIFT
    for present, bit in (
        (segment.s, x86.DESC_S),
        (segment.present, x86.DESC_P),
        (segment.db, x86.DESC_DB),
        (segment.long, x86.DESC_L),
        (segment.g, x86.DESC_G),
    ):
        bits |= bit if present else 0
    return bits >> x86.ATTRIBUTE_SHIFT


def read_context(uc: Any) -> CpuContext:
    """The hidden state of a stopped engine."""
    data = ctypes.string_at(uc.context_save().context, _END)
    segments: dict[str, Segment] = {}
    tables: dict[str, tuple[int, int]] = {}
    for index, name in enumerate(_ORDER):
        selector, _, base, limit, flags = _SEGMENT.unpack_from(data, _SEGMENTS + index * _SEGMENT.size)
        segments[name] = x86.segment_from_attributes(selector, base, limit, flags)
        tables[name] = (base, limit)
    return CpuContext(segments, *tables["gdtr"], *tables["idtr"], struct.unpack_from("<5Q", data, _CR))


def write_reset_state(uc: Any) -> None:
    """The architectural state after a reset: CS based at 0xffff0000 in real mode, which no register write can reach."""
    import unicorn.x86_const as const

    context = uc.context_save()
    data = bytearray(ctypes.string_at(context.context, _END))
    gpr = [0] * 16
    gpr[2] = x86.RESET_EDX
    struct.pack_into("<16Q", data, _GPR, *gpr)
    struct.pack_into("<Q", data, _RIP, x86.RESET_IP)
    struct.pack_into("<I", data, _HFLAGS, _HFLAGS_REAL_MODE)
    table = Segment(0, 0, x86.RESET_TABLE_LIMIT, 0, False, False, False, False, False)
    reset = {"cs": x86.RESET_CS, "ldtr": x86.RESET_LDTR, "tr": x86.RESET_TR, "gdtr": table, "idtr": table}
    for index, name in enumerate(_ORDER):
        segment = reset.get(name, x86.RESET_DATA)
        at = _SEGMENTS + index * _SEGMENT.size
        _SEGMENT.pack_into(data, at, segment.selector, 0, segment.base, segment.limit, _flags(segment))
    struct.pack_into("<5Q", data, _CR, x86.RESET_CR0, 0, 0, 0, 0)
    struct.pack_into("<Q", data, _EFER, 0)
    ctypes.memmove(context.context, bytes(data), len(data))
    uc.context_restore(context)
    uc.reg_write(const.UC_X86_REG_EFLAGS, x86.RESET_EFLAGS)


def probe(uc: Any, release: str) -> None:
    """Writes marks through the public interface and finds them in the context; BootError if they are not there."""
    import unicorn.x86_const as const

    gpr = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{n}" for n in range(8, 16)))
    marks = [0x5EED_0000_0000_0000 + number for number in range(len(gpr))]
    for name, mark in zip(gpr, marks, strict=True):
        uc.reg_write(getattr(const, f"UC_X86_REG_{name}"), mark)
    uc.reg_write(const.UC_X86_REG_RIP, 0x5EED)
    uc.reg_write(const.UC_X86_REG_GDTR, (0, 0x12345000, 0x2F, 0))
    context = uc.context_save()
    size = context.size
    data = ctypes.string_at(context.context, min(size, _END))
    found = (
        len(data) == _END
        and list(struct.unpack_from("<16Q", data, _GPR)) == marks
        and struct.unpack_from("<Q", data, _RIP) == (0x5EED,)
        and read_context(uc)[1:3] == (0x12345000, 0x2F)
        and struct.unpack_from("<Q", data, _EFER) == (uc.reg_read(const.UC_X86_REG_MSR, x86.MSR_EFER),)
    )
    if not found or release not in KNOWN_RELEASES:
        raise BootError(f"unicorn {release} keeps its CPU context in an unknown layout: install unicorn=={KNOWN_RELEASES[-1]}")
