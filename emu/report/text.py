"""The outcome of a boot, and a plan, as text for a person."""

from collections.abc import Mapping

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.pvh import MEMMAP_TYPE_NAMES
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span

from ..check import OK
from ..disassembly import decode
from ..engines.base import describe_stop
from ..reasons import FAULT
from ..session import Outcome


def subject_text(plan: BootPlan, blob: Blob) -> str:
    """One line: what is about to run."""
    moved = f", moved to {plan.segments[0].paddr:#x}" if plan.moved_by else ""
    kernel = f"{plan.kernel.path} ({plan.kernel.kind}, entry {plan.entry:#x}{moved})"
    return f"{kernel} on {plan.spec.name} with {show_size(plan.ram_size)}, firmware {blob.sha256[:12]}"


def _range(start: int, size: int) -> str:
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
        f"{_range(span.start, span.size)}  {kind:<4}  {show_size(span.size):>16}  {span.name}".rstrip() for kind, span in rows
    ]
    if plan.memmap is not None:
        lines += ["", "told to the guest (e820):"]
        lines += [f"{_range(e.addr, e.size)}  {_type_name(e.type):<8}  {show_size(e.size)}" for e in plan.memmap]
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


def outcome_text(outcome: Outcome, verbose: bool) -> str:
    """The handoff, the findings and how the run ended. `verbose` lists the clauses that are met, too."""
    lines: list[str] = []
    if outcome.handoff is not None:
        lines += _handoff_lines(outcome)
    if outcome.debug_console:
        lines += [f"debug console: {line}" for line in outcome.debug_console.decode(errors="replace").splitlines()]
    if outcome.post_codes:
        lines.append("POST codes: " + " ".join(f"{code:02x}" for code in outcome.post_codes))
    if outcome.handoff is not None:
        lines += ["", *_finding_lines(outcome, verbose)]
    lines += _end_lines(outcome)
    return "\n".join(lines)


def _handoff_lines(outcome: Outcome) -> list[str]:
    handoff, tables = outcome.handoff, outcome.tables
    assert handoff is not None
    assert tables is not None
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
        f"    memmap {_range(entry.addr, entry.size)}  {_type_name(entry.type):<8}  {show_size(entry.size)}"
        for entry in tables.memmap
    ]
    lines += [
        f"    module {_range(entry.paddr, entry.size)}  {show_size(entry.size)}"
        + ("" if line is None else f"  {line.decode(errors='replace')!r}")
        for entry, line in zip(tables.modules, tables.module_cmdlines, strict=True)
    ]
    if tables.cmdline is not None:
        lines.append(f"    cmdline {tables.cmdline.decode(errors='replace')!r}")
    return lines


def cost_text(counts: Mapping[str, int]) -> str:
    """What it took, as far as the engine has counted, as the end of a phrase."""
    if not counts:
        return ""
    executed = f"{counts['instructions']} instructions, " if "instructions" in counts else ""
    accesses = sum(counts.get(kind, 0) for kind in ("in", "out", "read", "write"))
    return f", after {executed}{accesses} device access{'' if accesses == 1 else 'es'}"


def _type_name(kind: int) -> str:
    return MEMMAP_TYPE_NAMES.get(kind, f"type {kind}")


def _finding_lines(outcome: Outcome, verbose: bool) -> list[str]:
    findings = outcome.findings
    good = sum(finding.status == OK for finding in findings)
    lines = [f"check: {good} of {len(findings)} clauses of the PVH ABI are met"]
    for finding in findings:
        if verbose or finding.status != OK:
            lines.append(f"  {finding.status:<12}  {finding.clause:<20}  {finding.detail}".rstrip())
    return lines


def _end_lines(outcome: Outcome) -> list[str]:
    stop, registers = outcome.run.stop, outcome.run.registers
    lines = [f"end: {describe_stop(stop)}"]
    if outcome.ended_as_asked:
        return lines
    if stop.rip is not None:
        place = outcome.blob.locate(stop.rip)
        lines.append(f"  at {stop.rip:#x}" + (f", {place}" if place else ""))
        if stop.reason == FAULT and registers:
            lines.append(f"  the instruction: {_instruction(outcome, stop.rip)}")
    values = [f"{name} {value:#x}" for name, value in registers.items()]
    lines += ["  " + "  ".join(values[at : at + 8]) for at in range(0, len(values), 8)]
    return lines


def _instruction(outcome: Outcome, rip: int) -> str:
    """Disassembles the instruction where a run in 16- or 32-bit code faulted, from the ROM or from RAM."""
    rom_start = outcome.blob.paddr
    if outcome.run.registers["cr0"] & x86.CR0_PG:
        return "not shown, since paging is on"
    if rip >= rom_start:
        code = outcome.blob.data[rip - rom_start :][: x86.INSTRUCTION_MAX]
    elif outcome.handoff is not None:
        try:
            code = outcome.handoff.try_read(rip, x86.INSTRUCTION_MAX) or b""
        except BootError:
            return "not known: its machine has gone"
    else:
        return "unknown"
    found = decode(code, rip, 32 if outcome.run.registers["cr0"] & x86.CR0_PE else 16)
    return f"{found.data.hex(' ')}  {found.text}".strip()
