"""The registers of a CPU under Unicorn: read, written, and saved."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from pvhboot.shim.abi import paging, x86
from pvhboot.shim.errors import BootError

from .base import ENCODED, GENERAL, GENERAL_64, State
from .unicorn_context import LiveContext, read_context

_WRITABLE: Final = {
    **{name: f"R{name[1:].upper()}" for name in (*GENERAL, "eip")},
    "eflags": "EFLAGS",
    **{name: name.upper() for name in GENERAL_64},
}


class UnicornRegisters:
    """What of a Cpu has to do with its registers only. `uc` is Unicorn's own engine, between two instructions or in a hook."""

    def __init__(self, uc: Any) -> None:
        import unicorn.x86_const as const

        self.uc, self._const = uc, const

    @cached_property
    def _saved(self) -> LiveContext:
        return LiveContext(self.uc)

    def linear_ip(self) -> int:
        """The linear address of the next instruction."""
        return LiveContext(self.uc).linear_ip

    @property
    def bits(self) -> int:
        """See Cpu."""
        return LiveContext(self.uc).bits

    def registers(self) -> dict[str, int]:
        """See Cpu."""
        cpu = LiveContext(self.uc)
        control, gdtr = cpu.control, cpu.segment("gdtr")
        values = dict(zip(ENCODED, cpu.general, strict=False))
        if cpu.efer & paging.EFER_LMA:
            values |= zip(GENERAL_64, cpu.general[len(ENCODED) :], strict=True)
        return {
            **{name: values.pop(name) for name in GENERAL},
            **values,
            "eip": cpu.rip,
            "eflags": self._eflags(),
            "cr0": control[0],
            "cr3": control[3],
            "cr4": control[4],
            "efer": cpu.efer,
            "gdtr_base": gdtr.base,
            "gdtr_limit": gdtr.limit,
        }

    def segments(self) -> dict[str, x86.Segment]:
        """See Cpu."""
        segments = read_context(self.uc).segments
        return {name: segments[name] for name in (*x86.SEGMENT_NAMES, "tr")}

    def state(self) -> State:
        """See Cpu."""
        self._saved.update()
        return State(self._saved.bits, (*self._saved.state_values(), self._eflags()))

    def _eflags(self) -> int:
        """Unicorn loses the bit that is always 1 when it has begun to execute."""
        flags: int = self.uc.reg_read(self._const.UC_X86_REG_EFLAGS)
        return flags | x86.EFLAGS_FIXED

    def set_register(self, name: str, value: int) -> None:
        """See Cpu."""
        if name not in _WRITABLE:
            raise BootError(f"{name} cannot be written: there is {', '.join(_WRITABLE)}")
        self.uc.reg_write(getattr(self._const, f"UC_X86_REG_{_WRITABLE[name]}"), value)

    def save_registers(self) -> Callable[[], None]:
        """What brings all registers back to what they are now. Memory may be another one then."""
        saved = LiveContext(self.uc)
        msr, beside = self._const.UC_X86_REG_MSR, (x86.MSR_MTRR_DEF_TYPE, *x86.MTRRS)  # the context has all but these
        msrs = [(number, self.uc.reg_read(msr, number)) for number in beside]

        def back() -> None:
            paged = (saved.cr0 | LiveContext(self.uc).cr0) & x86.CR0_PG
            saved.restore()
            for pair in msrs:
                self.uc.reg_write(msr, pair)
            if paged:  # what Unicorn keeps of page tables, and of code by its linear address, is another memory's
                import unicorn

                self.uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)
                self.uc.ctl_flush_tb()

        return back

    def hidden_state(self) -> dict[str, object]:
        """What a well-behaved piece of firmware leaves alone: segments, IDTR, debug registers, memory types, FPU."""
        const, read = self._const, self.uc.reg_read
        context = read_context(self.uc)
        return {
            **{
                f"segment register {name}": segment
                for name, segment in context.segments.items()
                if name not in ("gdtr", "idtr")
            },
            "IDTR": (context.idtr_base, context.idtr_limit),
            **{f"debug register {n}": read(getattr(const, f"UC_X86_REG_DR{n}")) for n in (0, 1, 2, 3, 6, 7)},
            **{f"MSR {name}": read(const.UC_X86_REG_MSR, number) for name, number in x86.KEPT_MSRS.items()},
            "the FPU": tuple(read(getattr(const, f"UC_X86_REG_FP{name}")) for name in ("CW", "SW", "TAG")),
            "CR2": read(const.UC_X86_REG_CR2),
            "an SSE register": tuple(read(getattr(const, f"UC_X86_REG_XMM{n}")) for n in range(8)),
        }
