"""What was booted, on what, and how it ended: for the head of the page."""

import os

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.printable import one_line
from pvhboot.loader.sizes import show_size
from pvhboot.shim.blob import Blob
from pvhboot.shim.version import VERSION

from ..bus import KINDS
from ..check import OK
from ..engines.base import describe_stop
from ..engines.names import KVM
from ..reasons import HANDOFF
from ..recorded import Recorded
from ..session import Outcome


def title(plan: BootPlan, blob: Blob) -> str:
    """What on what, and by what firmware if it is not pvhboot's."""
    file = blob.manifest.get("file")
    return f"{_name(plan.kernel.path)} on {plan.spec.name}" + (f" by {one_line(str(file))}" if file else "")


def verdict(outcome: Outcome) -> str:
    """In a sentence: the handoff and the check, and where it ended if that is elsewhere."""
    said = []
    if outcome.handoff is None:
        said.append("the kernel was never entered")
    else:
        good = sum(finding.status == OK for finding in outcome.findings)
        said.append(f"handoff, {good} of {len(outcome.findings)} clauses met")
    stop = outcome.run.stop
    if outcome.until is None or outcome.until.kind != HANDOFF or outcome.handoff is None:
        said.append(f"end: {one_line(describe_stop(stop))}")
    return "; ".join(said)


def facts_json(outcome: Outcome, recorded: Recorded, *, is_cut: bool) -> list[list[str]]:
    """A label and a text each. `is_cut`: the firmware went on behind the last step."""
    plan, blob = outcome.plan, outcome.blob
    moved = f", moved to {plan.segments[0].paddr:#x}" if plan.moved_by else ""
    modules = [
        ["module", f"{_name(module.payload.path)}, {module.payload.size} bytes at {module.paddr:#x}"] for module in plan.modules
    ]
    return [
        ["kernel", f"{_name(plan.kernel.path)}, {plan.kernel.kind}, entry {plan.entry:#x}{moved}"],
        ["machine", plan.spec.name + (", fw_cfg without DMA" if not plan.dma else "")],
        ["memory", show_size(plan.ram_size)],
        ["engine", _ENGINES.get(outcome.engine, outcome.engine)],
        ["firmware", _firmware(blob)],
        ["command line", one_line((plan.cmdline or b"").decode(errors="replace")) or "none"],
        *modules,
        ["steps", _steps(recorded, is_cut=is_cut)],
        *([["cost", _cost(outcome)]] if outcome.handoff is not None else []),
        ["SHA-256", blob.sha256],
        ["made by", f"pvhboot {VERSION}"],
    ]


_ENGINES = {KVM: "kvm, which shows no loads and stores: memory fills by DMA alone here"}


def _name(path: str) -> str:
    return one_line(os.path.basename(path) or path)


def _firmware(blob: Blob) -> str:
    file, machine = blob.manifest.get("file"), blob.manifest.get("machine")
    patched = f", patched at {', '.join(blob.patched)}" if blob.patched else ""
    size = f"{len(blob.data) // 1024} KiB"
    if machine is None:
        return one_line(f"{file or 'a ROM'}, {size}, of which no source is known")
    return one_line(f"pvhboot's for {machine}, {size}{patched}")


def _cost(outcome: Outcome) -> str:
    assert outcome.handoff is not None
    counts = outcome.handoff.counts
    executed = f"{counts['instructions']} instructions (of a rep each round counts) and " if "instructions" in counts else ""
    accesses = sum(counts.get(kind, 0) for kind in KINDS)
    return f"{executed}{accesses} accesses to devices up to the handoff"


def _steps(recorded: Recorded, *, is_cut: bool) -> str:
    count = len(recorded.firmware)
    if recorded.handoff is not None:
        return f"{count} to the handoff, and the kernel's first {len(recorded.kernel)}"
    return f"the first {count}; what follows is told without steps" if is_cut else f"all that were executed: {count}"
