"""The saved CPU context of Unicorn: the only way to its hidden descriptor state, to the true reset state, and to what it
knows of an exception.

The context is QEMU's CPUX86State, whose layout is no interface: the offsets hold for the releases named here, and
`require_layout` tests them before anybody relies on them.
"""

import ctypes
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi import paging, x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError

from .base import ENCODED, GENERAL_64

KNOWN_RELEASES: Final = ("2.1.4",)

_GPR: Final = 40
_RSP: Final = _GPR + 4 * 8
_RIP: Final = 168
_EFLAGS: Final = 176
_HFLAGS: Final = 216
_SEGMENTS: Final = 224
_CR: Final = 464
_EFER: Final = 632
_ERROR_CODE: Final = 0x1530
_EXCEPTION_IS_INT: Final = 0x1534
_OLD_EXCEPTION: Final = 0x15A0
_INTERCEPTS: Final = 0x15B8
_SIZE: Final = 5608

_ORDER: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr", "gdtr", "idtr")
_SEGMENT: Final = struct.Struct("<IIQII")  # selector, padding, base, limit, flags
_GENERAL: Final = struct.Struct("<16Q")
_CONTROL: Final = struct.Struct("<5Q")

# General registers, segment registers (selector, base, limit), descriptor tables (base, limit), CR0, CR3, CR4, EFER.
_STATE: Final = struct.Struct(
    "<16Q" + f"{_SEGMENTS - _GPR - 16 * 8}x" + "I4xQI4x" * 8 + "8xQI4x" * 2 + f"Q16xQQ{_EFER - _CR - 5 * 8}xQ"
)

# What QEMU's translator derives from segments and modes, and keeps in `hflags`.
_HF_CPL: Final = 3
_HF_INHIBIT_IRQ: Final = 1 << 3
_HF_CS32: Final = 1 << 4
_HF_SS32: Final = 1 << 5
_HF_ADDSEG: Final = 1 << 6
_HF_CS64: Final = 1 << 15
_HF_GUEST: Final = 1 << 21
_HFLAGS_REAL_MODE: Final = _HF_ADDSEG
_NO_EXCEPTION: Final = -1


class HiddenSegment(NamedTuple):
    """A segment register as QEMU keeps it: `attributes` is the upper half of the descriptor that it was loaded from."""

    selector: int
    base: int
    limit: int
    attributes: int

    @property
    def dpl(self) -> int:
        """The privilege level of the descriptor."""
        return self.attributes << x86.ATTRIBUTE_SHIFT >> x86.DESC_DPL_SHIFT & 3

    @property
    def type(self) -> int:
        """The type field."""
        return self.attributes << x86.ATTRIBUTE_SHIFT >> x86.DESC_TYPE_SHIFT & 0xF

    def has(self, bit: int) -> bool:
        """Whether the descriptor has one of the DESC_* bits of abi.x86."""
        return bool(self.attributes << x86.ATTRIBUTE_SHIFT & bit)


class _Field:
    """A number in the context, as an attribute."""

    def __init__(self, offset: int, code: str) -> None:
        self._offset, self._struct = offset, struct.Struct("<" + code)

    def __get__(self, state: "LiveContext", _owner: type) -> int:
        value: int = self._struct.unpack_from(state.data, self._offset)[0]
        return value

    def __set__(self, state: "LiveContext", value: int) -> None:
        self._struct.pack_into(state.data, self._offset, value)


class _Registers:
    """Numbers that follow one another in the context, as an attribute."""

    def __init__(self, offset: int, layout: struct.Struct) -> None:
        self._offset, self._struct = offset, layout

    def __get__(self, state: "LiveContext", _owner: type) -> tuple[int, ...]:
        return self._struct.unpack_from(state.data, self._offset)

    def __set__(self, state: "LiveContext", values: tuple[int, ...]) -> None:
        self._struct.pack_into(state.data, self._offset, *values)


class LiveContext:
    """A CPU context that can be changed: saved when this is made, back in the engine by `restore`.

    `eflags` are those bits only that no arithmetic changes, as QEMU keeps the others elsewhere while it executes:
    `all_eflags` has both.
    """

    rsp, rip, eflags, hflags = _Field(_RSP, "Q"), _Field(_RIP, "Q"), _Field(_EFLAGS, "Q"), _Field(_HFLAGS, "I")
    cr0, cr2, cr3, cr4 = (_Field(_CR + 8 * number, "Q") for number in (0, 2, 3, 4))
    efer = _Field(_EFER, "Q")
    error_code, is_software_interrupt = _Field(_ERROR_CODE, "i"), _Field(_EXCEPTION_IS_INT, "i")
    old_exception = _Field(_OLD_EXCEPTION, "i")  # which is being delivered: an exception is judged by it
    intercepts = _Field(_INTERCEPTS, "Q")  # of SVM: instructions that are told as an exception, if this is a virtual machine
    general, control = _Registers(_GPR, _GENERAL), _Registers(_CR, _CONTROL)  # RAX to R15 as they are encoded; CR0 to CR4

    def __init__(self, uc: Any) -> None:
        self._uc, self._context = uc, uc.context_save()
        self.data = ctypes.cast(self._context.context, ctypes.POINTER(ctypes.c_char * _SIZE)).contents

    def update(self) -> None:
        """Saves the engine's context anew, in place of the one that this has."""
        self._uc.context_update(self._context)

    def state_values(self) -> tuple[int, ...]:
        """In the order of base.STATE_REGISTERS, without the last, EFLAGS."""
        return _STATE.unpack_from(self.data, _GPR)

    def all_eflags(self) -> int:
        """EFLAGS of the engine as it stands, the arithmetic flags among them."""
        import unicorn.x86_const as const

        flags: int = self._uc.reg_read(const.UC_X86_REG_EFLAGS)
        return flags

    def restore(self) -> None:
        """The engine goes on from here, and takes the next exception for one of its own."""
        self.old_exception = _NO_EXCEPTION
        self.is_software_interrupt = 0  # where it stays set, an intercept is told with the instruction pointer of an int n
        self._uc.context_restore(self._context)

    @property
    def cpl(self) -> int:
        """The current privilege level."""
        return self.hflags & _HF_CPL

    def be_virtual(self) -> None:
        """From now on `intercepts` count."""
        self.hflags |= _HF_GUEST

    @property
    def is_shadowed(self) -> bool:
        """Behind an sti or a load of SS: no interrupt is taken before the next instruction is over."""
        return bool(self.hflags & _HF_INHIBIT_IRQ)

    def end_shadow(self) -> None:
        """An interrupt may be taken now."""
        self.hflags &= ~_HF_INHIBIT_IRQ

    @property
    def bits(self) -> int:
        """How the next instruction is decoded: 16, 32 or 64."""
        return 64 if self.hflags & _HF_CS64 else 32 if self.hflags & _HF_CS32 else 16

    @property
    def linear_ip(self) -> int:
        """The linear address of the next instruction."""
        if self.hflags & _HF_CS64:
            return self.rip
        return (self.segment("cs").base + self.rip) % x86.ADDRESS_4G

    def segment(self, name: str) -> HiddenSegment:
        """A segment register, or gdtr or idtr, of which only base and limit mean something."""
        selector, _, base, limit, attributes = _SEGMENT.unpack_from(self.data, _SEGMENTS + _ORDER.index(name) * _SEGMENT.size)
        return HiddenSegment(selector & 0xFFFF, base, limit, attributes)

    def put_segments(self, segments: Mapping[str, HiddenSegment]) -> None:
        """Writes segment registers, gdtr and idtr among them, and nothing that QEMU derives from them."""
        for name, (selector, base, limit, attributes) in segments.items():
            at = _SEGMENTS + _ORDER.index(name) * _SEGMENT.size
            _SEGMENT.pack_into(self.data, at, selector, 0, base, limit, attributes)

    def load_segments(self, segments: Mapping[str, HiddenSegment], cpl: int) -> None:
        """Loads segment registers, for code of privilege level `cpl`; what QEMU derives from them follows. EFLAGS is that of
        the code already."""
        self.put_segments(segments)
        code, stack = self.segment("cs"), self.segment("ss")
        hflags = self.hflags & ~(_HF_CPL | _HF_CS32 | _HF_CS64 | _HF_SS32 | _HF_ADDSEG) | cpl
        if stack.has(x86.DESC_DB):
            hflags |= _HF_SS32
        if self.efer & paging.EFER_LMA and code.has(x86.DESC_L):
            hflags |= _HF_CS64 | _HF_CS32
        else:
            if code.has(x86.DESC_DB):
                hflags |= _HF_CS32
            flat = self.cr0 & x86.CR0_PE and not self.eflags & x86.EFLAGS_VM and hflags & _HF_CS32
            if not flat or any(self.segment(name).base for name in ("ds", "es", "ss")):
                hflags |= _HF_ADDSEG
        self.hflags = hflags


class CpuContext(NamedTuple):
    """Segment registers and descriptor tables with their hidden parts, and the control registers 0 to 4."""

    segments: dict[str, Segment]
    gdtr_base: int
    gdtr_limit: int
    idtr_base: int
    idtr_limit: int
    cr: tuple[int, ...]


def _hidden(segment: Segment) -> HiddenSegment:
    bits = segment.type << x86.DESC_TYPE_SHIFT
    for present, bit in (
        (segment.s, x86.DESC_S),
        (segment.present, x86.DESC_P),
        (segment.db, x86.DESC_DB),
        (segment.long, x86.DESC_L),
        (segment.g, x86.DESC_G),
    ):
        bits |= bit if present else 0
    return HiddenSegment(segment.selector, segment.base, segment.limit, bits >> x86.ATTRIBUTE_SHIFT)


def read_context(uc: Any) -> CpuContext:
    """The hidden state of a stopped engine."""
    cpu = LiveContext(uc)
    hidden = {name: cpu.segment(name) for name in _ORDER}
    segments = {name: x86.segment_from_attributes(*segment) for name, segment in hidden.items()}
    gdtr, idtr = hidden["gdtr"], hidden["idtr"]
    return CpuContext(segments, gdtr.base, gdtr.limit, idtr.base, idtr.limit, cpu.control)


def write_reset_state(uc: Any) -> None:
    """The architectural state after a reset: CS based at 0xffff0000 in real mode, which no register write can reach."""
    import unicorn.x86_const as const

    cpu = LiveContext(uc)
    cpu.general = (0, 0, x86.RESET_EDX, *[0] * 13)
    cpu.rip, cpu.hflags, cpu.efer = x86.RESET_IP, _HFLAGS_REAL_MODE, 0
    cpu.control = (x86.RESET_CR0, 0, 0, 0, 0)
    table = Segment(0, 0, x86.RESET_TABLE_LIMIT, 0, False, False, False, False, False)
    reset = {"cs": x86.RESET_CS, "ldtr": x86.RESET_LDTR, "tr": x86.RESET_TR, "gdtr": table, "idtr": table}
    cpu.put_segments({name: _hidden(reset.get(name, x86.RESET_DATA)) for name in _ORDER})
    cpu.restore()
    uc.reg_write(const.UC_X86_REG_EFLAGS, x86.RESET_EFLAGS)


@cache
def require_layout() -> None:
    """Writes marks into an engine through the public interface and finds them in its context; BootError if they are not there.
    Once in a process: the layout is the release's."""
    import unicorn
    import unicorn.x86_const as const

    uc, release = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64), unicorn.__version__
    gpr = [*(f"R{name[1:].upper()}" for name in ENCODED), *map(str.upper, GENERAL_64)]
    marks = [0x5EED_0000_0000_0000 + number for number in range(len(gpr))]
    for name, mark in zip(gpr, marks, strict=True):
        uc.reg_write(getattr(const, f"UC_X86_REG_{name}"), mark)
    uc.reg_write(const.UC_X86_REG_RIP, 0x5EED)
    uc.reg_write(const.UC_X86_REG_GDTR, (0, 0x12345000, 0x2F, 0))
    uc.reg_write(const.UC_X86_REG_CR2, 0x5EED2)
    found = (
        uc.context_save().size == _SIZE
        and (cpu := LiveContext(uc)).general == tuple(marks)
        and cpu.rip == 0x5EED
        and cpu.cr2 == 0x5EED2
        and cpu.segment("gdtr")[1:3] == (0x12345000, 0x2F)
        and cpu.efer == uc.reg_read(const.UC_X86_REG_MSR, x86.MSR_EFER)
        and cpu.old_exception == _NO_EXCEPTION
    )
    if not found or release not in KNOWN_RELEASES:
        raise BootError(f"unicorn {release} keeps its CPU context in an unknown layout: install unicorn=={KNOWN_RELEASES[-1]}")


@cache
def has_mtrr() -> bool:
    """What CPUID says under Unicorn, asked on a CPU of its own."""
    import unicorn
    import unicorn.x86_const as const

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(0, x86.PAGE_SIZE)
    uc.mem_write(0, x86.CPUID)
    uc.reg_write(const.UC_X86_REG_RAX, x86.CPUID_FEATURES_LEAF)
    uc.emu_start(0, len(x86.CPUID))
    return bool(uc.reg_read(const.UC_X86_REG_RDX) & x86.CPUID_1_EDX_MTRR)
