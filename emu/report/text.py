"""The outcome of a boot, and a plan, as text for a person."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import x86
from pvhboot.shim.machines import Span

from ..bus import KINDS
from ..check import OK, Finding
from ..engines.base import describe_stop
from ..handoff import Handoff
from ..memmap_words import type_name
from ..reasons import CONSOLE, FAULT
from ..session import Outcome
from ..tables import Tables

if TYPE_CHECKING:
    from ..diagnosis import Diagnosis

_SAID_LINES: Final = 64  # of the debug console, the last ones


def range_text(start: int, size: int) -> str:
    """A range of physical addresses, its last byte included."""
    if not size:
        return f"{start:#014x}, empty     "
    return f"{start:#014x}-{start + size - 1:#014x}"


def plan_text(plan: BootPlan) -> str:
    """The plan as a memory map: what lies where, and what is free between."""
    lines = [f"{plan.kernel.path}: {plan.kernel.kind}, PVH entry {plan.entry:#x}"]
    if plan.moved_by:
        linked, loaded = plan.kernel.segments[0].paddr, plan.segments[0].paddr
        lines.append(f"moved from {linked:#x} to {loaded:#x}, as its PHYS32_RELOC note allows")
    if plan.cmdline:
        lines.append(f"command line: {plan.cmdline.decode(errors='replace')}")
    lines.append("")
    at = 0
    rows: list[tuple[str, Span]] = []
    inside: list[Span] = []
    outside: list[Span] = []
    for span in plan.spans:
        in_ram = any(ram.start <= span.start and span.end <= ram.end for ram in plan.ram)
        (inside if in_ram else outside).append(span)
    for area in sorted([*plan.ram, *outside], key=lambda span: span.bounds):
        if area.start > at:
            rows.append(("hole", Span("", at, area.start)))
        rows += _ram_rows(area, inside) if area in plan.ram else [("ROM", area)]
        at = area.end
    lines += [
        f"{range_text(span.start, span.size)}  {kind:<4}  {show_size(span.size):>16}  {span.name}".rstrip()
        for kind, span in rows
    ]
    if plan.memmap is not None:
        lines += ["", "told to the guest (e820):"]
        lines += [f"{range_text(e.addr, e.size)}  {type_name(e.type):<8}  {show_size(e.size)}" for e in plan.memmap]
    return "\n".join(lines)


def _ram_rows(ram: Span, pieces: list[Span]) -> list[tuple[str, Span]]:
    """What lies in a span of RAM, and what is free between."""
    rows: list[tuple[str, Span]] = []
    at = ram.start
    for span in (piece for piece in pieces if ram.start <= piece.start and piece.end <= ram.end):
        if span.start > at:
            rows.append(("RAM", Span("free", at, span.start)))
        rows.append(("RAM", span))
        at = span.end
    if at < ram.end:
        rows.append(("RAM", Span("free", at, ram.end)))
    return rows


def outcome_text(outcome: Outcome, verbose: bool, diagnosis: "Diagnosis | None" = None) -> str:
    """The handoff, the findings and how the run ended; if that is not as asked, why, and the state of the CPU. `verbose` lists
    the clauses that are met, too."""
    lines: list[str] = []
    if outcome.handoff is not None:
        assert outcome.tables is not None
        lines += handoff_lines(outcome.handoff, outcome.tables)
    if outcome.debug_console:
        from .said import last_lines

        said = outcome.debug_console.decode(errors="replace")
        lines += [f"debug console: {line}" for line in last_lines(said, _SAID_LINES)]
    if outcome.post_codes:
        from .said import post_codes_text

        lines.append(post_codes_text(outcome.post_codes))
    if outcome.handoff is not None:
        lines += ["", *finding_lines(outcome.findings, verbose)]
    lines += _end_lines(outcome)
    if not outcome.ok:
        from .failure import failure_lines

        lines += failure_lines(outcome, diagnosis)
    return "\n".join(lines)


def session_text(outcome: Outcome, verbose: bool, _diagnosis: "Diagnosis | None" = None) -> str:
    """The same of a session at the console that went well, in short."""
    return "\n".join([*finding_lines(outcome.findings, verbose), *_end_lines(outcome)])


def handoff_lines(handoff: Handoff, tables: Tables) -> list[str]:
    """What is handed over: registers, segments, and what %ebx leads to."""
    registers = handoff.registers
    bits = " ".join(name for bit, name in x86.CR0_NAMES.items() if registers["cr0"] & bit)
    tr = handoff.segments["tr"]
    lines = [
        f"handoff at {registers['eip']:#x}{cost_text(handoff.counts)}",
        f"  ebx {registers['ebx']:#x}   cr0 {registers['cr0']:#x} ({bits})   cr4 {registers['cr4']:#x}   "
        f"eflags {registers['eflags']:#x}   tr {tr.selector:#x} base {tr.base:#x} limit {tr.limit:#x}",
    ]
    for name in ("cs", "ds", "es", "ss"):
        segment = handoff.segments[name]
        lines.append(
            f"  {name} {segment.selector:#06x} base {segment.base:#x} limit {segment.limit:#x} "
            f"{'32-bit' if segment.db else '16-bit'} {'code' if segment.type & x86.TYPE_CODE else 'data'}"
        )
    info = tables.start_info
    if info is not None:
        lines.append(
            f"  start_info version {info.version}, {info.nr_modules} modules, {info.memmap_entries} memory map entries"
        )
    lines += [
        f"    memmap {range_text(entry.addr, entry.size)}  {type_name(entry.type):<8}  {show_size(entry.size)}"
        for entry in tables.memmap
    ]
    lines += [
        f"    module {range_text(entry.paddr, entry.size)}  {show_size(entry.size)}"
        + ("" if line is None else f"  {line.decode(errors='replace')!r}")
        for entry, line in zip(tables.modules, tables.module_cmdlines, strict=True)
    ]
    if tables.cmdline is not None:
        lines.append(f"    cmdline {tables.cmdline.decode(errors='replace')!r}")
    return lines


def cost_text(counts: Mapping[str, int], *, to_handoff: int | None = None) -> str:
    """What it took, as far as the engine has counted, as the end of a phrase. `to_handoff`: so many instructions were counted
    up to the handoff, and not all of those behind it."""
    if not counts:
        return ""
    executed = f"{counts['instructions']} instructions, " if "instructions" in counts else ""
    if to_handoff is not None:
        executed = f"{to_handoff} instructions up to the handoff (from there they were not all counted), "
    accesses = sum(counts.get(kind, 0) for kind in KINDS)
    return f", after {executed}{accesses} device access{'' if accesses == 1 else 'es'}"


def finding_lines(findings: Sequence[Finding], verbose: bool) -> list[str]:
    """How many clauses are met, and a line for each that is not; `verbose` lists all."""
    good = sum(finding.status == OK for finding in findings)
    lines = [f"check: {good} of {len(findings)} clauses of the PVH ABI are met"]
    for finding in findings:
        if verbose or finding.status != OK:
            lines.append(f"  {finding.status:<12}  {finding.clause:<20}  {finding.detail}".rstrip())
    return lines


def _end_lines(outcome: Outcome) -> list[str]:
    stop = outcome.run.stop
    lines = [f"end: {describe_stop(stop)}"]
    if outcome.ended_as_asked:
        return lines
    if stop.rip is not None:
        place = outcome.stop_place
        lines.append(f"  at {stop.rip:#x}" + (f", {place}" if place else ""))
        if stop.reason == FAULT and outcome.run.bits:
            from ..disassembly import decode

            found = decode(outcome.run.code, stop.rip, outcome.run.bits)
            shown = "  ".join(part for part in (found.data.hex(" "), found.text) if part)
            lines.append(f"  the instruction: {shown}")
    until = outcome.until
    if until is not None and until.kind == CONSOLE:
        from ..com1 import last_line

        last = last_line(outcome.console)
        said = f"its last line: {last}" if last else "it has printed nothing"
        lines.append(f"  COM1 has never printed {until.text!r}; {said}")
    return lines
