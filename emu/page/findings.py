"""What the check has found, with what each clause asks for, and the steps that had to do with it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pvhboot.shim.abi import x86

from ..bus import WRITE
from ..check import OK, Finding
from ..effects import DMA, STORE
from ..recorded import Recorded
from .structures import Structure

# What each clause of the check asks for.
CLAUSES: Final[Mapping[str, str]] = {
    "entry.eip": "The CPU is about to execute the kernel's PVH entry.",
    "cpu.cr0": "Protected mode without paging: in CR0 PE is set, and no other bit but ET.",
    "cpu.cr4": "CR4 is 0.",
    "cpu.eflags": "No virtual-8086 mode, no interrupts, no single steps: VM, IF and TF are clear.",
    "cpu.cs": "CS is a readable 32-bit code segment from 0 to 4 GiB.",
    "cpu.ds": "DS is a writable 32-bit data segment from 0 to 4 GiB.",
    "cpu.es": "ES is a writable 32-bit data segment from 0 to 4 GiB.",
    "cpu.ss": "SS is a writable 32-bit data segment from 0 to 4 GiB.",
    "cpu.tr": "TR holds a 32-bit TSS that was really loaded: base 0, limit 0x67.",
    "cpu.mtrr": "Memory is write-back by default: MTRRdefType is 0x806 where there are MTRRs.",
    "rom.unwritten": "Nothing was stored to the ROM.",
    "start_info.location": "start_info, to which %ebx leads, lies in RAM, below 1 GiB and not at 0.",
    "start_info.magic": "start_info begins with the magic number of PVH.",
    "start_info.fields": "Version and counts are as planned, and what is reserved is 0.",
    "memmap.location": "The memory map lies in RAM, below 1 GiB and not at 0.",
    "memmap.count": "The memory map has as many entries as planned, 1 to 126.",
    "memmap.entries": "Each entry has a known type, some bytes, and 0 in its reserved field.",
    "memmap.sorted": "The entries are in the order of their addresses.",
    "memmap.disjoint": "No two entries overlap.",
    "memmap.ram": "The map has as much RAM as there is, and no more.",
    "memmap.plan": "Each entry is as planned.",
    "acpi.tables": "The ACPI tables add up, and the memory map keeps them; none where the machine has no ACPI.",
    "modules.list": "The module list is there if there are modules, in RAM, below 1 GiB.",
    "modules.entries": "Each module has the place, the size and the command line that was planned.",
    "cmdline": "The kernel's command line is the one that was asked for, and ends with a NUL.",
    "memory.disjoint": "No structure lies over another one, the kernel, a module or the ROM.",
    "memory.payload": "Kernel and modules lie in memory as in their files.",
}

_REGISTERS: Final[Mapping[str, str]] = {
    "cpu.cr0": "cr0",
    "cpu.cr4": "cr4",
    **{f"cpu.{name}": name for name in ("cs", "ds", "es", "ss", "tr")},
}


def findings_json(findings: Sequence[Finding], recorded: Recorded, structures: Sequence[Structure]) -> list[list[object]]:
    """Clause, status, detail, what it asks for, and steps, the violated ones first."""
    steps = _Steps(recorded, structures)
    ordered = sorted(findings, key=lambda finding: finding.status == OK)
    return [[*finding, CLAUSES.get(finding.clause, ""), list(steps.of(finding.clause))] for finding in ordered]


class _Steps:
    """Behind which step it was last done what a clause looks at."""

    def __init__(self, recorded: Recorded, structures: Sequence[Structure]) -> None:
        self._changed: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._mtrr = self._rom = 0
        self._handoff = recorded.handoff
        kinds = {(structure.start, structure.end): structure.kind for structure in structures}
        for step, (record, state) in enumerate(zip(recorded.firmware, recorded.states(), strict=False), 1):
            self._changed.update(dict.fromkeys(record.changes, step))
            if record.text == "wrmsr" and state["ecx"] & 0xFFFFFFFF == x86.MSR_MTRR_DEF_TYPE:
                self._mtrr = step
            for effect in record.effects:
                if effect.kind in (STORE, DMA):
                    last = effect.at + effect.size * effect.times
                    hit = (kind for (start, end), kind in kinds.items() if effect.at < end and start < last)
                    self._stored.update(dict.fromkeys(hit, step))
                elif effect.kind == WRITE and effect.device == "rom":
                    self._rom = step

    def of(self, clause: str) -> Iterator[int]:
        """None if nothing is known."""
        kind = {"modules": "modlist"}.get(clause.partition(".")[0], clause.partition(".")[0])
        found = {
            "entry.eip": self._handoff or 0,
            "cpu.mtrr": self._mtrr,
            "rom.unwritten": self._rom,
            "start_info.location": self._changed.get("ebx", 0),
        }.get(clause, self._changed.get(_REGISTERS.get(clause, ""), self._stored.get(kind, 0)))
        if found:
            yield found
