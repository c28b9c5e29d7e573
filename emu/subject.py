"""What the clauses of the check look at."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi import pvh
from pvhboot.shim.machines import MIB, Span, low_rom_span

from .handoff import Handoff
from .tables import Tables

# A clause yields what is wrong, a sentence each; nothing if all is well. None: this engine cannot see it.
Problems = Iterator[str] | None


class Subject(NamedTuple):
    """What a clause looks at: the handoff, what was planned, and what %ebx leads to."""

    handoff: Handoff
    plan: BootPlan
    tables: Tables

    def located(self, what: str, start: int, size: int) -> Iterator[str]:
        """Problems with where a boot structure lies: in usable RAM, below 1 GiB, not at 0."""
        if start == 0:
            yield f"{what} is at 0, which means that there is none"
        elif not inside(start, size, self.writable()):
            yield f"{what} at {start:#x} is not in usable RAM"
        elif start + size > pvh.BOOT_STRUCTURES_END:
            yield f"{what} at {start:#x} ends above 1 GiB, where early page tables of Linux and FreeBSD do not reach"

    def map_without_tables(self) -> list[tuple[int, int, int]]:
        """The memory map as (address, size, type). What a firmware puts into RAM for an operating system is taken for RAM: ACPI
        tables, wherever they are, and the MP table. A PC's tables in front of 1 MiB are in no RAM of the plan's."""
        spec = self.plan.spec
        whole: list[tuple[int, int, int]] = []
        lent = False  # whether the last range, or a part of it, is such
        for entry in self.tables.memmap:
            is_table = spec.acpi and entry.type == pvh.MEMMAP_TYPE_ACPI
            if is_table and spec.chipset is not None and entry.addr < MIB:
                continue
            mp_table = (spec.low.mp_table.start, spec.low.mp_table.size) if spec.low.mp_table else None
            is_table |= entry.type == pvh.MEMMAP_TYPE_RESERVED and (entry.addr, entry.size) == mp_table
            kind = pvh.MEMMAP_TYPE_RAM if is_table else entry.type
            if (
                whole
                and (lent or is_table)
                and kind == pvh.MEMMAP_TYPE_RAM == whole[-1][2]
                and sum(whole[-1][:2]) == entry.addr
            ):
                addr, size, _ = whole.pop()
                whole.append((addr, size + entry.size, kind))
            else:
                whole.append((entry.addr, entry.size, kind))
                lent = False
            lent |= is_table
        return whole

    def writable(self) -> list[Span]:
        """Usable RAM, and the low copy of a ROM that can be written as if it were RAM."""
        low_rom = low_rom_span(self.plan.spec, len(self.plan.rom))
        return [*self.plan.usable_ram, *([low_rom] if low_rom and self.plan.spec.rom_writable else [])]


def inside(start: int, size: int, spans: Sequence[Span]) -> bool:
    """Whether all `size` bytes at an address lie in one of the spans."""
    return any(span.start <= start and start + size <= span.end for span in spans)


Clause = Callable[[Subject], Problems]
