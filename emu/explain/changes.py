"""What a chapter has changed: registers, with what their bits mean, and memory, by what lies there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pvhboot.shim.abi import x86
from pvhboot.shim.abi.pvh import MEMMAP_TYPE_ACPI
from pvhboot.shim.machines import Span

from ..bitfields import REGISTERS_OF_BITS, register_fields
from ..effects import DMA, STORE
from ..engines.base import GENERAL
from ..session import Outcome
from ..trace import Record
from .told import Changed, Written

_NAMELESS: Final = "other memory"
_GAP: Final = 4096  # bytes: what lies further apart is told apart
_SEGMENTS: Final = ("cs", "ds", "es", "ss", "fs", "gs", "tr")
_TABLES: Final = ("gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")
_CONTROL: Final = ("cr0", "cr3", "cr4", "efer", "eflags")
_ARITHMETIC: Final = frozenset(("eflags", x86.EFLAGS_NAMES[bit]) for bit in x86.EFLAGS_NAMES if bit & x86.EFLAGS_ARITHMETIC)


def registers_changed(
    before: Mapping[str, int], after: Mapping[str, int], meant: Mapping[str, str]
) -> tuple[list[Changed], list[str]]:
    """What matters to the machine, and what `meant` says is handed on; and the general registers that are left over."""
    changed = [_of_bits(name, before[name], after[name]) for name in _CONTROL if before[name] != after[name]]
    changed = [one for one in changed if one.meaning or one.register not in REGISTERS_OF_BITS]
    changed += [one for name in _SEGMENTS for one in _of_segment(name, before, after)]
    changed += [Changed(name, before[name], after[name], "") for name in _TABLES if before[name] != after[name]]
    scratch = []
    for name in GENERAL:
        if before[name] == after[name]:
            continue
        if name in meant:
            changed.append(Changed(name, before[name], after[name], meant[name]))
        else:
            scratch.append(name)
    return changed, scratch


def _of_bits(name: str, before: int, after: int) -> Changed:
    """With the bits that are others now, but for the flags of arithmetic."""
    if name not in REGISTERS_OF_BITS:
        return Changed(name, before, after, "")
    fields = zip(register_fields(name, before), register_fields(name, after), strict=True)
    told = [new for old, new in fields if old.value != new.value and (name, new.name) not in _ARITHMETIC]
    return Changed(name, before, after, "; ".join(f"{new.name} becomes {new.value}, {new.meaning}" for new in reversed(told)))


def _of_segment(name: str, before: Mapping[str, int], after: Mapping[str, int]) -> list[Changed]:
    """What is visible of it, and what is not."""
    parts = [part for part in ("", "_base", "_limit") if before[name + part] != after[name + part]]
    if not parts:
        return []
    hidden = [f"hidden {part[1:]} from {before[name + part]:#x} to {after[name + part]:#x}" for part in parts if part]
    return [Changed(name, before[name], after[name], ", ".join(hidden))]


def named_spans(outcome: Outcome) -> list[Span]:
    """What lies where: of pvhboot's firmware what it keeps there, of another one what %ebx leads to; then the ACPI
    tables, the modules, and the kernel."""
    plan = outcome.plan
    if outcome.blob.listing:
        spans = sorted(plan.spec.low.spans(), key=lambda span: span.size)
    elif outcome.tables is not None and outcome.handoff is not None:
        spans = outcome.tables.spans(outcome.handoff.registers["ebx"])
    else:
        spans = []
    tables = () if outcome.tables is None else outcome.tables.memmap
    acpi = [Span("ACPI tables", entry.addr, entry.end) for entry in tables if entry.type == MEMMAP_TYPE_ACPI]
    kernel = [Span("the kernel", segment.paddr, segment.end) for segment in plan.segments]
    return [*spans, *acpi, *(module.span for module in plan.modules), *kernel]


def memory_written(records: Iterable[Record], spans: Sequence[Span], stack: Span) -> list[Written]:
    """The ranges that were stored to, by the CPU, as far as the engine tells that, and by devices; not the firmware's stack."""
    pieces: dict[str, list[tuple[int, int, bool]]] = {}
    for record in records:
        for effect in record.effects:
            if effect.kind in (STORE, DMA):
                name = next((span.name for span in spans if span.start <= effect.at < span.end), "")
                end = effect.at + effect.size * effect.times
                pieces.setdefault(name, []).append((effect.at, end, effect.kind == DMA))
    written: list[Written] = []
    for name, found in pieces.items():
        if name != stack.name:
            written += [_written(name or _NAMELESS, near) for near in ([found] if name else _near(found))]
    return written


def _near(pieces: Sequence[tuple[int, int, bool]]) -> list[list[tuple[int, int, bool]]]:
    """Those that lie close together."""
    groups: list[list[tuple[int, int, bool]]] = []
    end = 0
    for piece in sorted(pieces):
        if not groups or piece[0] - end > _GAP:
            groups.append([])
        groups[-1].append(piece)
        end = max(end, piece[1])
    return groups


def _written(name: str, pieces: Sequence[tuple[int, int, bool]]) -> Written:
    size, end = 0, 0
    for start, stop, _ in sorted(pieces):
        size += max(0, stop - max(start, end))
        end = max(end, stop)
    devices = {device for _, _, device in pieces}
    return Written(
        name, min(pieces)[0], end - 1, size, "both" if len(devices) > 1 else "device" if devices == {True} else "cpu"
    )
