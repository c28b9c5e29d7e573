"""The handoff as an engine saw it: what the check judges and the reports show. Knows no CPU."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import NoMemoryError

from .bus import Access
from .engines.names import KVM, QEMU, UNICORN

# The clauses of check.CLAUSES that an engine cannot observe. An unobservable finding for any other clause fails the run.
UNOBSERVABLE_CLAUSES: Final[Mapping[str, frozenset[str]]] = {
    UNICORN: frozenset(),
    KVM: frozenset(),
    QEMU: frozenset({"cpu.mtrr"}),
}


class Handoff(NamedTuple):
    """The machine when the kernel's first instruction is next.

    `registers` has eax … edi, ebp, esp, eip, eflags, cr0, cr3, cr4, efer, gdtr_base, gdtr_limit; `segments` cs, ds, es, ss,
    fs, gs, tr with their hidden parts. `mtrr_def_type` is None, and so is `has_mtrr`, where the engine cannot read them.
    `rom_writes` are the stores to the ROM so far, `counts` the accesses by kind and, if known, the instructions; empty where
    the engine sees neither. `host_appends`: the host may tell a Linux on its command line of devices that it has;
    `host_acpi`: it has ACPI tables for the firmware.
    """

    engine: str
    registers: Mapping[str, int]
    segments: Mapping[str, Segment]
    has_mtrr: bool | None
    mtrr_def_type: int | None
    memory: ReadableMemory
    rom_writes: Sequence[Access]
    counts: Mapping[str, int]
    host_appends: bool = False
    host_acpi: bool = False

    def try_read(self, paddr: int, size: int) -> bytes | None:
        """`size` bytes at a physical address; None where there is no memory."""
        try:
            return self.memory.read(paddr, size)
        except NoMemoryError:
            return None
