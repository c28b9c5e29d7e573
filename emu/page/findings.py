"""What the check has found, with what each clause asks for, and what in the steps had to do with it."""

from collections.abc import Mapping, Sequence
from typing import Final

from pvhboot.shim.abi import x86

from ..check import OK
from ..recorded import Recorded
from ..session import Outcome
from .leads import Leads
from .stored import Stored

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
    "cpu.mtrr": f"Memory is write-back by default: MTRRdefType is {x86.MTRR_DEF_TYPE_WRITE_BACK:#x} where there are MTRRs.",
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


def findings_json(outcome: Outcome, recorded: Recorded, stored: Sequence[Stored]) -> list[list[object]]:
    """Clause, status, detail, what it asks for, and leads, the violated ones first."""
    leads = Leads(outcome, recorded, stored)
    ordered = sorted(outcome.findings, key=lambda finding: finding.status == OK)
    return [[*finding, CLAUSES.get(finding.clause, ""), [list(lead) for lead in leads.of(finding)]] for finding in ordered]
