"""Facts on the CPU as a kernel gets it, and on the ROM: by the clauses that are violated."""

from collections.abc import Iterator, Mapping
from typing import Final

from pvhboot.shim.abi import paging, pvh, x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.machines import low_rom_span, rom_span

from ..causes.scene import counted
from ..handoff import Handoff
from ..trace import Record
from .fact import Fact, done_by
from .past import Past, name_of

DATA: Final = ("ds", "es", "ss")  # the data segments that the ABI speaks of
_FLAGS: Final = x86.EFLAGS_VM | x86.EFLAGS_IF | x86.EFLAGS_TF


def cpu_facts(past: Past, handoff: Handoff, violated: dict[str, str]) -> Iterator[Fact]:
    """One for each violated clause on the CPU; one for all data segments that nobody has loaded."""
    registers, segments = handoff.registers, handoff.segments
    if "cpu.cr0" in violated:
        yield done_by(past, _cr0(registers["cr0"]), past.last_change("cr0"))
    if "cpu.cr4" in violated:
        bits = ", ".join(name for bit, name in paging.CR4_NAMES.items() if registers["cr4"] & bit)
        yield done_by(past, f"CR4 is {registers['cr4']:#x} ({bits}), not 0", past.last_change("cr4"))
    if "cpu.eflags" in violated:
        wrong = registers["eflags"] & _FLAGS
        names = ", ".join(name for bit, name in x86.EFLAGS_NAMES.items() if wrong & bit)
        what = f"EFLAGS is {registers['eflags']:#x}: {names} is set, and must be clear"
        yield done_by(past, what, _flag_setter(past, wrong))
    stale = [name for name in DATA if f"cpu.{name}" in violated and past.last_change(name) is None]
    if stale:
        yield never_loaded(past, stale, segments[stale[0]].limit)
    for name in ("cs", *DATA):
        if f"cpu.{name}" in violated and name not in stale:
            yield segment_fact(past, segments, name, violated[f"cpu.{name}"])
    if "cpu.tr" in violated:
        yield _tr(past, handoff, violated["cpu.tr"])
    if "cpu.mtrr" in violated:
        writer = past.last(lambda record: name_of(record) == "wrmsr")
        yield done_by(past, violated["cpu.mtrr"] + ("" if writer else "; no wrmsr was executed"), writer)
    if "rom.unwritten" in violated:
        yield _rom(past, violated["rom.unwritten"])


def _cr0(cr0: int) -> str:
    extra = [name for bit, name in sorted(x86.CR0_NAMES.items(), reverse=True) if cr0 & bit & ~(x86.CR0_PE | x86.CR0_ET)]
    wanted = cr0 & x86.CR0_ET | x86.CR0_PE
    return f"CR0 is {cr0:#x}, not {wanted:#x}" + (f": {', '.join(extra)} set" if extra else "")


def _flag_setter(past: Past, wrong: int) -> Record | None:
    held, setter = 0, None
    for record in past.records:
        flags = record.changes.get("eflags", held)
        if flags & wrong & ~held:
            setter = record
        held = flags
    return setter


def never_loaded(past: Past, names: list[str], limit: int) -> Fact:
    """Data segments that still have what real mode has given them."""
    several = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    what = f"{several} still {'have' if len(names) > 1 else 'has'} the limit of real mode, {limit:#x}, not {x86.FLAT_LIMIT:#x}"
    jump = past.last_change("cs")
    fact = done_by(past, what, jump)
    return fact if jump is None else fact._replace(where=f"not loaded after the {fact.where}", number=past.end)


def segment_fact(past: Past, segments: Mapping[str, Segment], name: str, detail: str) -> Fact:
    """What is wrong with a segment that was loaded: by whom, and where its descriptor stands, if that is known."""
    record = past.last_change(name, f"{name}_base", f"{name}_limit")
    segment, fact = segments[name], done_by(past, detail, record)
    if record is None or not segment.selector:
        return fact
    at = past.state_before(record.number)["gdtr_base"] + (segment.selector & ~7)
    place = past.recorded.outcome.blob.locate(at)
    return fact if place is None else fact._replace(where=f"{fact.where}; descriptor {segment.selector:#x} at {place.source}")


def _tr(past: Past, handoff: Handoff, detail: str) -> Fact:
    tr, loader = handoff.segments["tr"], past.last_change("tr", "tr_base", "tr_limit")
    if loader is None and not tr.selector:
        what = f"TR is null, with the limit {tr.limit:#x}, not {pvh.TSS_LIMIT:#x}: no ltr was executed"
        return done_by(past, what, None)
    return done_by(past, detail if detail.startswith("TR") else f"TR: {detail}", loader)


def _rom(past: Past, detail: str) -> Fact:
    plan = past.recorded.outcome.plan
    low = low_rom_span(plan.spec, len(plan.rom))
    spans = [rom_span(len(plan.rom)), *([low] if low else [])]
    for write in past.writes:
        for span in spans:
            if write.start < span.end and span.start < write.end:
                count = counted(write.end - write.start, "byte", "bytes")
                what = f"the ROM is overwritten, and must not be: {count} at {write.start:#x}"
                return done_by(past, what, write.record)
    return done_by(past, detail, None)
