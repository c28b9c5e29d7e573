"""The clauses on what %ebx leads to, and on memory. Source: Xen start_info.h; what Linux and FreeBSD need is said in each."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from pvhboot.loader.placed import first_difference
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.pvh import MemmapEntry, ModlistEntry
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.machines import Span, rom_span

from .subject import Clause, Subject, inside
from .tables import MODULE_BOUND

# What QEMU's microvm appends for its virtio-mmio devices (hw/i386/microvm.c).
_APPENDED: Final = re.compile(rb"( virtio_mmio\.device=\S+)*")


def _start_info_location(subject: Subject) -> Iterator[str]:
    yield from subject.located("start_info (%ebx)", subject.handoff.registers["ebx"], pvh.HVM_START_INFO.size)


def _start_info_magic(subject: Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no memory where %ebx points"
    elif info.magic != pvh.XEN_HVM_START_MAGIC_VALUE:
        yield f"the magic is {info.magic:#x}, not {pvh.XEN_HVM_START_MAGIC_VALUE:#x}"


def _start_info_fields(subject: Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no start_info"
        return
    if info.version < pvh.HVM_START_INFO_VERSION:
        yield f"version {info.version}: Linux stops without the memory map of version {pvh.HVM_START_INFO_VERSION}"
    if info.flags:
        yield f"flags are {info.flags:#x}, which a guest that is no dom0 does not get"
    if info.reserved:
        yield f"the reserved field is {info.reserved:#x}"


def _acpi(subject: Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no start_info"
    elif not info.rsdp_paddr:
        if subject.handoff.host_acpi:
            yield "rsdp_paddr is 0, and the host has ACPI tables"
    elif not subject.plan.spec.acpi:
        yield f"rsdp_paddr is {info.rsdp_paddr:#x}, and this machine has no ACPI"
    else:
        from .acpi import acpi_problems

        yield from acpi_problems(subject.handoff, subject.tables.memmap, info.rsdp_paddr)


def _cmdline(subject: Subject) -> Iterator[str]:
    info, tables, wanted = subject.tables.start_info, subject.tables, subject.plan.cmdline
    if info is None:
        yield "there is no start_info"
        return
    if info.cmdline_paddr:
        yield from subject.located("the command line", info.cmdline_paddr, len(tables.cmdline or b"") + 1)
    line, planned = tables.cmdline or b"", wanted or b""
    appended = subject.handoff.host_appends and line.startswith(planned) and _APPENDED.fullmatch(line[len(planned) :])
    if tables.cmdline != wanted and not appended:
        yield f"the command line is {_shown(tables.cmdline)}, planned was {_shown(wanted)}"


def _shown(text: bytes | None) -> str:
    return "absent" if text is None else repr(text[:60].decode(errors="replace"))


def _modlist(subject: Subject) -> Iterator[str]:
    info, planned = subject.tables.start_info, subject.plan.modules
    if info is None:
        yield "there is no start_info"
        return
    if info.nr_modules != len(planned):
        yield f"nr_modules is {info.nr_modules}, planned were {len(planned)}"
    if not info.nr_modules and info.modlist_paddr:
        yield "the list has an address but no module: FreeBSD halts on that"
    if info.nr_modules:
        size = min(info.nr_modules, MODULE_BOUND) * pvh.HVM_MODLIST_ENTRY.size
        yield from subject.located("the module list", info.modlist_paddr, size)


def _modules(subject: Subject) -> Iterator[str]:
    tables = subject.tables
    for index, (entry, line) in enumerate(zip(tables.modules, tables.module_cmdlines, strict=True)):
        yield from (f"module {index} {problem}" for problem in _module(subject, index, entry, line))


def _module(subject: Subject, index: int, entry: ModlistEntry, line: bytes | None) -> Iterator[str]:
    if entry.reserved:
        yield f"has {entry.reserved:#x} in its reserved field"
    if not entry.paddr or entry.paddr + entry.size > ADDRESS_4G:
        yield f"at {entry.paddr:#x} is not below 4 GiB, or at 0"
    if not inside(entry.paddr, entry.size, subject.plan.usable_ram):
        yield f"at {entry.paddr:#x} is not in usable RAM"
    if entry.cmdline_paddr:
        yield from subject.located("its command line", entry.cmdline_paddr, len(line or b"") + 1)
    if index >= len(subject.plan.modules):
        return
    wanted = subject.plan.modules[index]
    if (entry.paddr, entry.size) != (wanted.paddr, wanted.payload.size):
        yield f"is {entry.size:#x} bytes at {entry.paddr:#x}, planned were {wanted.payload.size:#x} at {wanted.paddr:#x}"
    if line != wanted.cmdline:
        yield f"has the command line {_shown(line)}, planned was {_shown(wanted.cmdline)}"


def _memmap_location(subject: Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no start_info"
        return
    if not 1 <= info.memmap_entries <= pvh.MEMMAP_MAX_ENTRIES:
        yield f"{info.memmap_entries} entries: Linux takes 1 to {pvh.MEMMAP_MAX_ENTRIES}"
    size = min(info.memmap_entries, pvh.MEMMAP_MAX_ENTRIES) * pvh.HVM_MEMMAP_ENTRY.size
    yield from subject.located("the memory map", info.memmap_paddr, size)


def _memmap_count(subject: Subject) -> Iterator[str]:
    info, memmap, wanted = subject.tables.start_info, subject.tables.memmap, subject.plan.memmap
    if info is None:
        yield "there is no start_info"
    elif wanted is not None and (told := info.memmap_entries - len(memmap) + len(subject.map_without_tables())) != len(wanted):
        joined = f", or {told} with tables joined to the RAM that they lie in" if told != info.memmap_entries else ""
        yield f"memmap_entries is {info.memmap_entries}{joined}; planned were {len(wanted)}"
    elif wanted is None and memmap and _is_no_entry(memmap[-1]):
        good = max((at + 1 for at, entry in enumerate(memmap) if not _is_no_entry(entry)), default=0)
        yield f"memmap_entries is {info.memmap_entries}, and what lies behind entry {good - 1} is none"


def _is_no_entry(entry: MemmapEntry) -> bool:
    return entry.type not in pvh.MEMMAP_TYPE_NAMES or not entry.size


def _memmap_entries(subject: Subject) -> Iterator[str]:
    for index, entry in enumerate(subject.tables.memmap):
        if entry.reserved:
            yield f"entry {index} has {entry.reserved:#x} in its reserved field"
        if entry.type not in pvh.MEMMAP_TYPE_NAMES:
            yield f"entry {index} has the unknown type {entry.type}"
        if not entry.size or entry.end > 1 << 64:
            yield f"entry {index} is empty or wraps ({entry.addr:#x}, {entry.size:#x} bytes)"


def _memmap_sorted(subject: Subject) -> Iterator[str]:
    entries = subject.tables.memmap
    for index, (before, after) in enumerate(pairwise(entries)):
        if after.addr < before.addr:
            yield f"entry {index + 1} at {after.addr:#x} comes after entry {index} at {before.addr:#x}"


def _memmap_disjoint(subject: Subject) -> Iterator[str]:
    entries = sorted(subject.tables.memmap)
    for before, after in pairwise(entries):
        if after.addr < before.end:
            yield f"{after.addr:#x}-{after.end:#x} overlaps {before.addr:#x}-{before.end:#x}"


def _memmap_ram(subject: Subject) -> Iterator[str]:
    ram = [(addr, size) for addr, size, kind in subject.map_without_tables() if kind == pvh.MEMMAP_TYPE_RAM]
    told, real = sum(size for _, size in ram), sum(span.size for span in subject.plan.usable_ram)
    # A firmware that is not ours may keep some for itself.
    if not told or (told != real and subject.plan.memmap is not None):
        has_tables = told != sum(entry.size for entry in subject.tables.memmap if entry.type == pvh.MEMMAP_TYPE_RAM)
        what = "RAM, and of tables in RAM" if has_tables else "RAM"
        yield f"the map says {told:#x} bytes of {what}; the machine has {real:#x}"
    yield from (
        f"{addr:#x}-{addr + size:#x} is said to be RAM and is not"
        for addr, size in ram
        if not inside(addr, size, subject.plan.usable_ram)
    )


def _memmap_plan(subject: Subject) -> Iterator[str]:
    told = subject.map_without_tables()
    wanted = tuple(tuple(entry) for entry in subject.plan.memmap or ())
    for index, (one, other) in enumerate(zip(told, wanted, strict=False)):
        if one != other:
            from .memmap_words import entry_text

            yield f"entry {index} is {entry_text(*one)}; planned was {entry_text(*other)}"


def _disjoint(subject: Subject) -> Iterator[str]:
    """Nothing that %ebx leads to lies in the kernel, in a module, in the ROM, or in another of these structures."""
    tables, plan = subject.tables, subject.plan
    if tables.start_info is None:
        yield "there is no start_info"
        return
    spans = [Span("kernel", segment.paddr, segment.end) for segment in plan.segments]
    spans += [module.span for module in plan.modules]
    spans += [rom_span(len(plan.rom)), *tables.spans(subject.handoff.registers["ebx"])]
    ordered = sorted(spans, key=lambda span: (span.start, span.end))
    for before, after in pairwise(ordered):
        if after.start < before.end:
            yield f"{after.name} at {after.start:#x} overlaps {before.name} at {before.start:#x}-{before.end:#x}"


def _payload(subject: Subject) -> Iterator[str]:
    difference = first_difference(subject.plan, subject.handoff.memory)
    if difference:
        yield difference


BOOT_CLAUSES: Final[Mapping[str, Clause]] = {
    "start_info.location": _start_info_location,
    "start_info.magic": _start_info_magic,
    "start_info.fields": _start_info_fields,
    "memmap.location": _memmap_location,
    "memmap.count": _memmap_count,
    "memmap.entries": _memmap_entries,
    "memmap.sorted": _memmap_sorted,
    "memmap.disjoint": _memmap_disjoint,
    "memmap.ram": _memmap_ram,
    "memmap.plan": _memmap_plan,
    "acpi.tables": _acpi,
    "modules.list": _modlist,
    "modules.entries": _modules,
    "cmdline": _cmdline,
    "memory.disjoint": _disjoint,
    "memory.payload": _payload,
}
