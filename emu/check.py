"""The check of a handoff against the PVH ABI and the plan, clause by clause. Every clause gives one Finding.

Sources: Xen docs/misc/pvh.pandoc and start_info.h; what Linux and FreeBSD need beyond them is said in the clause.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi import pvh, x86
from pvhboot.shim.abi.pvh import MemmapEntry, ModlistEntry
from pvhboot.shim.abi.x86 import ADDRESS_4G, Segment
from pvhboot.shim.machines import Span, low_rom_span, rom_span

from .acpi import acpi_problems
from .handoff import UNOBSERVABLE_CLAUSES, Handoff
from .tables import MODULE_BOUND, Tables, read_tables

OK: Final = "ok"
VIOLATED: Final = "violated"
UNOBSERVABLE: Final = "unobservable"


# What QEMU's microvm appends for its virtio-mmio devices (hw/i386/microvm.c).
_APPENDED: Final = re.compile(rb"( virtio_mmio\.device=\S+)+$")


class Finding(NamedTuple):
    """What the check says of one clause: `status` is ok, violated or unobservable, `detail` what was seen."""

    clause: str
    status: str
    detail: str


# A clause yields what is wrong, a sentence each; nothing if all is well. None: this engine cannot see it.
_Problems = Iterator[str] | None


def check(handoff: Handoff, plan: BootPlan) -> list[Finding]:
    """Every clause in a fixed order, whatever the others said."""
    subject = _Subject(handoff, plan, read_tables(handoff))
    findings: list[Finding] = []
    for clause, function in CLAUSES.items():
        problems = function(subject)
        if problems is None:
            findings.append(Finding(clause, UNOBSERVABLE, f"the engine {handoff.engine} cannot see it"))
        else:
            said = list(problems)
            findings.append(Finding(clause, VIOLATED if said else OK, "; ".join(said)))
    return findings


def is_clean(engine: str, findings: Sequence[Finding]) -> bool:
    """Nothing violated, and nothing unobserved but what the engine is known not to observe."""
    unseen = {finding.clause for finding in findings if finding.status == UNOBSERVABLE}
    return not any(finding.status == VIOLATED for finding in findings) and unseen <= UNOBSERVABLE_CLAUSES.get(
        engine, frozenset()
    )


class _Subject(NamedTuple):
    handoff: Handoff
    plan: BootPlan
    tables: Tables

    def located(self, what: str, start: int, size: int) -> Iterator[str]:
        """Problems with where a boot structure lies: in RAM, below 1 GiB, not at 0."""
        if start == 0:
            yield f"{what} is at 0, which means that there is none"
        elif not _inside(start, size, self.writable()):
            yield f"{what} at {start:#x} is not in RAM"
        elif start + size > pvh.BOOT_STRUCTURES_END:
            yield f"{what} at {start:#x} ends above 1 GiB, where early page tables of Linux and FreeBSD do not reach"

    def map_without_tables(self) -> list[tuple[int, int, int]]:
        """The memory map as (address, size, type), with the ACPI tables taken for the RAM that they lie in: where in it a
        firmware puts them is its own business."""
        whole: list[tuple[int, int, int]] = []
        for entry in self.tables.memmap:
            kind = pvh.MEMMAP_TYPE_RAM if self.plan.spec.acpi and entry.type == pvh.MEMMAP_TYPE_ACPI else entry.type
            if (
                whole
                and self.plan.spec.acpi
                and kind == pvh.MEMMAP_TYPE_RAM == whole[-1][2]
                and sum(whole[-1][:2]) == entry.addr
            ):
                addr, size, _ = whole.pop()
                whole.append((addr, size + entry.size, kind))
            else:
                whole.append((entry.addr, entry.size, kind))
        return whole

    def writable(self) -> list[Span]:
        """RAM, and the low copy of a ROM that can be written as if it were RAM."""
        low_rom = low_rom_span(self.plan.spec, len(self.plan.rom))
        return [*self.plan.ram, *([low_rom] if low_rom and self.plan.spec.rom_writable else [])]


def _inside(start: int, size: int, spans: Sequence[Span]) -> bool:
    return any(span.start <= start and start + size <= span.end for span in spans)


def _entry(subject: _Subject) -> Iterator[str]:
    eip = subject.handoff.registers["eip"]
    if eip != subject.plan.entry:
        yield f"eip is {eip:#x}, the kernel's entry {subject.plan.entry:#x}"


def _cr0(subject: _Subject) -> Iterator[str]:
    cr0 = subject.handoff.registers["cr0"]
    if not cr0 & x86.CR0_PE:
        yield f"PE is clear (cr0 = {cr0:#x})"
    extra = cr0 & ~(x86.CR0_PE | x86.CR0_ET)
    if extra:
        names = [name for bit, name in x86.CR0_NAMES.items() if extra & bit]
        yield f"{', '.join(names) or hex(extra)} set (cr0 = {cr0:#x}); every bit but PE must be clear"


def _cr4(subject: _Subject) -> Iterator[str]:
    cr4 = subject.handoff.registers["cr4"]
    if cr4:
        yield f"cr4 is {cr4:#x}, not 0"


def _eflags(subject: _Subject) -> Iterator[str]:
    eflags = subject.handoff.registers["eflags"]
    for name, bit in (("VM", x86.EFLAGS_VM), ("IF", x86.EFLAGS_IF), ("TF", x86.EFLAGS_TF)):
        if eflags & bit:
            yield f"{name} is set (eflags = {eflags:#x})"


def _flat(segment: Segment, code: bool) -> Iterator[str]:
    if not segment.present or not segment.s:
        yield "is no present code or data segment"
        return
    if segment.base:
        yield f"has base {segment.base:#x}, not 0"
    if segment.limit != x86.FLAT_LIMIT:
        yield f"has limit {segment.limit:#x}, not {x86.FLAT_LIMIT:#x}"
    if not segment.db or segment.long:
        yield "is not 32-bit"
    is_code = bool(segment.type & x86.TYPE_CODE)
    if is_code != code:
        yield "is no code segment" if code else "is a code segment"
    elif not segment.type & (x86.TYPE_READABLE if code else x86.TYPE_WRITABLE):
        yield "is not readable" if code else "is not writable"


def _segment_clause(name: str) -> Callable[[_Subject], Iterator[str]]:
    def clause(subject: _Subject) -> Iterator[str]:
        for problem in _flat(subject.handoff.segments[name], name == "cs"):
            yield f"{name} {problem}"

    return clause


def _tr(subject: _Subject) -> Iterator[str]:
    tr = subject.handoff.segments["tr"]
    if not tr.selector & ~7:
        yield "TR was never loaded (null selector)"
    if tr.base:
        yield f"its base is {tr.base:#x}, not 0"
    if tr.limit != pvh.TSS_LIMIT:
        yield f"its limit is {tr.limit:#x}, not {pvh.TSS_LIMIT:#x}"
    # KVM shows the busy type; Unicorn and QEMU's TCG keep what the descriptor said before ltr.
    if not tr.present or tr.s or tr.type not in (x86.TYPE_TSS32_BUSY, x86.TYPE_TSS32_AVAILABLE):
        yield "it is no present 32-bit TSS"
    elif tr.type == x86.TYPE_TSS32_AVAILABLE and tr.selector & ~7 and not _busy_in_memory(subject.handoff):
        yield "its descriptor is not marked busy"


def _busy_in_memory(handoff: Handoff) -> bool:
    at = handoff.registers["gdtr_base"] + (handoff.segments["tr"].selector & ~7)
    data = handoff.try_read(at, x86.DESC_SIZE)
    if data is None:
        return False
    return bool(int.from_bytes(data, "little") >> x86.DESC_TYPE_SHIFT & x86.TYPE_TSS_BUSY_BIT)


def _mtrr(subject: _Subject) -> Iterator[str] | None:
    handoff = subject.handoff
    if handoff.has_mtrr is None or (handoff.has_mtrr and handoff.mtrr_def_type is None):
        return None
    wanted = x86.MTRR_DEF_TYPE_WRITE_BACK
    if handoff.has_mtrr and handoff.mtrr_def_type != wanted:
        return iter((f"MTRRdefType is {handoff.mtrr_def_type:#x}, not {wanted:#x}: memory is not write-back by default",))
    return iter(())


def _rom(subject: _Subject) -> Iterator[str]:
    for access in subject.handoff.rom_writes[:4]:
        yield f"{access.size} bytes stored to the ROM at {access.address:#x}"
    # Where stores are not seen, the contents tell. A firmware that is not ours may well keep variables in a ROM that is none.
    if subject.plan.spec.rom_writable and subject.plan.memmap is None:
        return
    wanted = subject.plan.rom
    rom = rom_span(len(wanted))
    found = subject.handoff.try_read(rom.start, rom.size)
    if found is not None and found != wanted:
        changed = [at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other]
        yield f"{len(changed)} bytes of the ROM have changed, the first at {rom.start + changed[0]:#x}"


def _start_info_location(subject: _Subject) -> Iterator[str]:
    yield from subject.located("start_info (%ebx)", subject.handoff.registers["ebx"], pvh.HVM_START_INFO.size)


def _start_info_magic(subject: _Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no memory where %ebx points"
    elif info.magic != pvh.XEN_HVM_START_MAGIC_VALUE:
        yield f"the magic is {info.magic:#x}, not {pvh.XEN_HVM_START_MAGIC_VALUE:#x}"


def _start_info_fields(subject: _Subject) -> Iterator[str]:
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


def _acpi(subject: _Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no start_info"
    elif not info.rsdp_paddr:
        if subject.handoff.host_acpi:
            yield "rsdp_paddr is 0, and the host has ACPI tables"
    elif not subject.plan.spec.acpi:
        yield f"rsdp_paddr is {info.rsdp_paddr:#x}, and this machine has no ACPI"
    else:
        yield from acpi_problems(subject.handoff, subject.tables.memmap, info.rsdp_paddr)


def _cmdline(subject: _Subject) -> Iterator[str]:
    info, tables, wanted = subject.tables.start_info, subject.tables, subject.plan.cmdline
    if info is None:
        yield "there is no start_info"
        return
    if info.cmdline_paddr:
        yield from subject.located("the command line", info.cmdline_paddr, len(tables.cmdline or b"") + 1)
    line = tables.cmdline
    if subject.handoff.host_appends and line is not None:
        line = _APPENDED.sub(b"", line)
    if line != wanted:
        yield f"the command line is {_shown(tables.cmdline)}, planned was {_shown(wanted)}"


def _shown(text: bytes | None) -> str:
    return "absent" if text is None else repr(text[:60].decode(errors="replace"))


def _modlist(subject: _Subject) -> Iterator[str]:
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


def _modules(subject: _Subject) -> Iterator[str]:
    tables = subject.tables
    for index, (entry, line) in enumerate(zip(tables.modules, tables.module_cmdlines, strict=True)):
        yield from (f"module {index} {problem}" for problem in _module(subject, index, entry, line))


def _module(subject: _Subject, index: int, entry: ModlistEntry, line: bytes | None) -> Iterator[str]:
    if entry.reserved:
        yield f"has {entry.reserved:#x} in its reserved field"
    if not entry.paddr or entry.paddr + entry.size > ADDRESS_4G:
        yield f"at {entry.paddr:#x} is not below 4 GiB, or at 0"
    if not _inside(entry.paddr, entry.size, subject.plan.ram):
        yield f"at {entry.paddr:#x} is not in RAM"
    if entry.cmdline_paddr:
        yield from subject.located("its command line", entry.cmdline_paddr, len(line or b"") + 1)
    if index >= len(subject.plan.modules):
        return
    wanted = subject.plan.modules[index]
    if (entry.paddr, entry.size) != (wanted.paddr, wanted.payload.size):
        yield f"is {entry.size:#x} bytes at {entry.paddr:#x}, planned were {wanted.payload.size:#x} at {wanted.paddr:#x}"
    if line != wanted.cmdline:
        yield f"has the command line {_shown(line)}, planned was {_shown(wanted.cmdline)}"


def _memmap_location(subject: _Subject) -> Iterator[str]:
    info = subject.tables.start_info
    if info is None:
        yield "there is no start_info"
        return
    if not 1 <= info.memmap_entries <= pvh.MEMMAP_MAX_ENTRIES:
        yield f"{info.memmap_entries} entries: Linux takes 1 to {pvh.MEMMAP_MAX_ENTRIES}"
    size = min(info.memmap_entries, pvh.MEMMAP_MAX_ENTRIES) * pvh.HVM_MEMMAP_ENTRY.size
    yield from subject.located("the memory map", info.memmap_paddr, size)


def _memmap_count(subject: _Subject) -> Iterator[str]:
    info, memmap, wanted = subject.tables.start_info, subject.tables.memmap, subject.plan.memmap
    if info is None:
        yield "there is no start_info"
    elif wanted is not None and (told := info.memmap_entries - len(memmap) + len(subject.map_without_tables())) != len(wanted):
        yield f"memmap_entries is {told}, planned were {len(wanted)}"
    elif wanted is None and memmap and _is_no_entry(memmap[-1]):
        good = max((at + 1 for at, entry in enumerate(memmap) if not _is_no_entry(entry)), default=0)
        yield f"memmap_entries is {info.memmap_entries}, and what lies behind entry {good - 1} is none"


def _is_no_entry(entry: MemmapEntry) -> bool:
    return entry.type not in pvh.MEMMAP_TYPE_NAMES or not entry.size


def _memmap_entries(subject: _Subject) -> Iterator[str]:
    for index, entry in enumerate(subject.tables.memmap):
        if entry.reserved:
            yield f"entry {index} has {entry.reserved:#x} in its reserved field"
        if entry.type not in pvh.MEMMAP_TYPE_NAMES:
            yield f"entry {index} has the unknown type {entry.type}"
        if not entry.size or entry.end > 1 << 64:
            yield f"entry {index} is empty or wraps ({entry.addr:#x}, {entry.size:#x} bytes)"


def _memmap_sorted(subject: _Subject) -> Iterator[str]:
    entries = subject.tables.memmap
    for index, (before, after) in enumerate(pairwise(entries)):
        if after.addr < before.addr:
            yield f"entry {index + 1} at {after.addr:#x} comes after entry {index} at {before.addr:#x}"


def _memmap_disjoint(subject: _Subject) -> Iterator[str]:
    entries = sorted(subject.tables.memmap)
    for before, after in pairwise(entries):
        if after.addr < before.end:
            yield f"{after.addr:#x}-{after.end:#x} overlaps {before.addr:#x}-{before.end:#x}"


def _memmap_ram(subject: _Subject) -> Iterator[str]:
    ram = [(addr, size) for addr, size, kind in subject.map_without_tables() if kind == pvh.MEMMAP_TYPE_RAM]
    told, real = sum(size for _, size in ram), sum(span.size for span in subject.plan.ram)
    # A firmware that is not ours may keep some for itself.
    if not told or (told != real and subject.plan.memmap is not None):
        yield f"the map says {told:#x} bytes of RAM, the machine has {real:#x}"
    yield from (
        f"{addr:#x}-{addr + size:#x} is said to be RAM and is not"
        for addr, size in ram
        if not _inside(addr, size, subject.plan.ram)
    )


def _memmap_plan(subject: _Subject) -> Iterator[str]:
    told = subject.map_without_tables()
    wanted = tuple(tuple(entry) for entry in subject.plan.memmap or ())
    for index, (one, other) in enumerate(zip(told, wanted, strict=False)):
        if one != other:
            yield f"entry {index} is {_entry_text(one)}, planned was {_entry_text(other)}"


def _entry_text(entry: tuple[int, ...]) -> str:
    addr, size, kind = entry
    return f"{addr:#x}-{addr + size:#x} type {kind}"


def _disjoint(subject: _Subject) -> Iterator[str]:
    """Nothing that %ebx leads to lies in the kernel, in a module, in the ROM, or in another of these structures."""
    tables, plan = subject.tables, subject.plan
    info = tables.start_info
    if info is None:
        yield "there is no start_info"
        return
    spans = [Span("kernel", segment.paddr, segment.end) for segment in plan.kernel.segments]
    spans += [module.span for module in plan.modules]
    spans.append(rom_span(len(plan.rom)))
    ebx = subject.handoff.registers["ebx"]
    spans.append(Span("start_info", ebx, ebx + pvh.HVM_START_INFO.size))
    if tables.memmap:
        size = len(tables.memmap) * pvh.HVM_MEMMAP_ENTRY.size
        spans.append(Span("the memory map", info.memmap_paddr, info.memmap_paddr + size))
    if tables.modules:
        size = len(tables.modules) * pvh.HVM_MODLIST_ENTRY.size
        spans.append(Span("the module list", info.modlist_paddr, info.modlist_paddr + size))
    spans += [
        Span(f"the command line of module {index}", entry.cmdline_paddr, entry.cmdline_paddr + len(line) + 1)
        for index, (entry, line) in enumerate(zip(tables.modules, tables.module_cmdlines, strict=True))
        if line is not None
    ]
    if tables.cmdline is not None:
        spans.append(Span("the command line", info.cmdline_paddr, info.cmdline_paddr + len(tables.cmdline) + 1))
    ordered = sorted(spans, key=lambda span: (span.start, span.end))
    for before, after in pairwise(ordered):
        if after.start < before.end:
            yield f"{after.name} at {after.start:#x} overlaps {before.name} at {before.start:#x}-{before.end:#x}"


def _payload(subject: _Subject) -> Iterator[str]:
    difference = subject.plan.first_difference(subject.handoff.memory)
    if difference:
        yield difference


# In the order of the walk: the CPU, then what %ebx leads to, then memory.
CLAUSES: Final[Mapping[str, Callable[[_Subject], _Problems]]] = {
    "entry.eip": _entry,
    "cpu.cr0": _cr0,
    "cpu.cr4": _cr4,
    "cpu.eflags": _eflags,
    **{f"cpu.{name}": _segment_clause(name) for name in ("cs", "ds", "es", "ss")},
    "cpu.tr": _tr,
    "cpu.mtrr": _mtrr,
    "rom.unwritten": _rom,
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
