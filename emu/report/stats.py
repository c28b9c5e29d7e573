"""What a boot took, as text and as plain data."""

from typing import Any, Final

from ..bus import IN, OUT, READ, WRITE
from ..session import Outcome
from ..stats import KERNEL, Stats

# Of what an engine counts, that for which its own name is no words (docs/speed.md has both side by side).
_NAMES: Final = {
    IN: "port reads",
    OUT: "port writes",
    READ: "device memory reads",
    WRITE: "device memory writes",
    "executed": "instructions, in all",
}
_INSTRUCTIONS: Final = "instructions"


def stats_to_json(stats: Stats, outcome: Outcome) -> dict[str, Any]:
    """Times are nanoseconds, sizes bytes; None is what the host or the engine does not say. `handoff_monotonic_ns` is a time of
    CLOCK_MONOTONIC, which other processes have, too."""
    memory = stats.memory
    return {
        "phases_ns": dict(stats.phases),
        "to_handoff_ns": stats.to_handoff_ns,
        "handoff_monotonic_ns": stats.handoff_ns,
        "kernel_cached": stats.cached,
        "cache_directory": stats.cache_directory,
        "memory": None if memory is None else {"copied": memory.copied, "mapped": memory.mapped, "mappings": memory.mappings},
        "page_faults": stats.faults._asdict(),
        "peak_resident": stats.peak,
        "counts": dict(outcome.run.counts),
    }


def stats_text(stats: Stats, outcome: Outcome) -> str:
    """Tables: what each phase took, what was counted of the guest, and what of this process."""
    rows = [(_phase_name(phase, stats), f"{ns / 1e6:.2f} ms") for phase, ns in stats.phases.items()]
    lines = ["what it took:", *_lines(rows)]
    if stats.to_handoff_ns is not None:
        lines.append(f"from the first of them to the handoff: {stats.to_handoff_ns / 1e6:.2f} ms")
    if stats.cached:
        lines.append(f"the kernel came out of the cache, {stats.cache_directory}: --no-cache goes without")
    counts = [(_count_name(name, outcome), f"{count}") for name, count in outcome.run.counts.items()]
    if (memory := stats.memory) is not None:
        counts += [
            ("bytes copied", f"{memory.copied}"),
            ("bytes mapped", f"{memory.mapped}"),
            ("mappings of files", f"{memory.mappings}"),
        ]
    if counts:
        lines += ["counted:", *_lines(counts)]
    process = [("page faults, minor", f"{stats.faults.minor}"), ("page faults, major", f"{stats.faults.major}")]
    if stats.peak is not None:
        process.append(("peak resident bytes", f"{stats.peak}"))
    return "\n".join([*lines, "of this process, to the end of the run:", *_lines(process)])


def _count_name(name: str, outcome: Outcome) -> str:
    """Of instructions it says so if none was counted behind the handoff."""
    handoff, counts = outcome.handoff, outcome.run.counts
    if name == _INSTRUCTIONS and handoff is not None and handoff.counts.get(name) == counts[name]:
        return f"{name}, to the handoff"
    return _NAMES.get(name, name.replace("_", " "))


def _phase_name(phase: str, stats: Stats) -> str:
    return f"{phase} (cached)" if stats.cached and phase == KERNEL else phase


def _lines(rows: list[tuple[str, str]]) -> list[str]:
    wide, long = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"  {name:<{wide}}  {value:>{long}}" for name, value in rows]
