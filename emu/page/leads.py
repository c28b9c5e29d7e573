"""From a finding of the check to the steps that had to do with it, with what each of them did."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi import pvh, x86

from ..bus import WRITE
from ..check import OK, Finding
from ..effects import DMA, STORE
from ..engines.base import STATE_SEGMENTS
from ..recorded import Recorded
from ..session import Outcome
from ..trace import EFLAGS
from .stored import Stored
from .structures import Line

_MOST: Final = 6  # of a finding
_INDEX: Final = re.compile(r"\b(?:entry|module) (\d+)\b")
_PLANNED: Final = re.compile(r"planned w[^;]*")
_CHANGED_AT: Final = re.compile(r"was changed at (0x[0-9a-f]+)$")
_FLAGS: Final = x86.EFLAGS_VM | x86.EFLAGS_IF | x86.EFLAGS_TF  # that the check asks for

_REGISTERS: Final[Mapping[str, str]] = {
    "cpu.cr0": "cr0",
    "cpu.cr4": "cr4",
    "start_info.location": "ebx",
    **{f"cpu.{name}": name for name in STATE_SEGMENTS},
}
# The fields of start_info that a clause looks at.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "start_info.magic": ("magic",),
    "start_info.fields": ("version", "flags", "reserved"),
    "memmap.location": ("memmap_paddr", "memmap_entries"),
    "memmap.count": ("memmap_entries",),
    "acpi.tables": ("rsdp_paddr",),
    "modules.list": ("nr_modules", "modlist_paddr"),
    "cmdline": ("cmdline_paddr",),
}
# The structures of entries, and how an entry lies there.
_ENTRIES: Final = {"memmap": pvh.HVM_MEMMAP_ENTRY.fields, "modlist": pvh.HVM_MODLIST_ENTRY.fields}

_WORDS: Final = {"reserved": "reserved field"}


class Lead(NamedTuple):
    """What a step has done, in words; a step of 0: what none did."""

    step: int
    words: str


class Leads:
    """Those of one boot."""

    def __init__(self, outcome: Outcome, recorded: Recorded, stored: Sequence[Stored]) -> None:
        self._outcome, self._recorded = outcome, recorded
        self._stored = {one.structure.kind: one for one in stored if " of module " not in one.structure.name}
        self._changed: dict[str, int] = {}  # by register the last step that changes it
        self._mtrr = self._rom = self._flags = 0
        for step, (record, state) in enumerate(zip(recorded.firmware, recorded.states(), strict=False), 1):
            self._changed.update(dict.fromkeys(record.changes, step))
            if (state[EFLAGS] ^ record.changes.get(EFLAGS, state[EFLAGS])) & _FLAGS:
                self._flags = step
            if record.text == "wrmsr" and state["ecx"] & 0xFFFFFFFF == x86.MSR_MTRR_DEF_TYPE:
                self._mtrr = step
            if any(effect.kind == WRITE and effect.device == "rom" for effect in record.effects):
                self._rom = step

    def of(self, finding: Finding) -> list[Lead]:
        """In the order of the steps; none if the trace tells nothing of it. What no step did is said only of what is amiss."""
        found = set(self._leads(finding))
        return sorted(lead for lead in found if lead.step or (finding.status != OK and self._is_whole))[:_MOST]

    @property
    def _is_whole(self) -> bool:
        """All that the firmware did is told."""
        return self._recorded.handoff is not None and self._recorded.sees_memory

    def _leads(self, finding: Finding) -> Iterator[Lead]:
        clause = finding.clause
        if clause == "entry.eip" and self._recorded.handoff:
            yield Lead(self._recorded.handoff, "the jump to the kernel")
        elif clause in _REGISTERS:
            yield self._register(_REGISTERS[clause])
        elif clause == "cpu.eflags":
            yield Lead(self._flags, self._words(self._flags, "IF, TF or VM"))
        elif clause == "cpu.mtrr":
            yield Lead(self._mtrr, "the last write to MTRRdefType" if self._mtrr else "no step writes MTRRdefType")
        elif clause == "rom.unwritten" and self._rom:
            yield Lead(self._rom, "the last write to the ROM")
        elif clause == "memory.payload":
            yield from self._payload(finding.detail)
        else:
            yield from self._structures(finding)

    def _register(self, name: str) -> Lead:
        step = max(self._changed.get(part, 0) for part in (name, f"{name}_base", f"{name}_limit"))
        return Lead(step, self._words(step, name))

    def _words(self, step: int, what: str) -> str:
        if not step:
            return f"no step changes {what}: it is as the reset left it"
        return f"the last change of {what}, {self._recorded.records[step - 1].text}"

    def _structures(self, finding: Finding) -> Iterator[Lead]:
        kind = {"modules": "modlist"}.get(head := finding.clause.partition(".")[0], head)
        lines = self._lines(kind, finding)
        for line in lines:
            yield from self._entry(kind, line)
        fields = _FIELDS.get(finding.clause, ())
        if any(name in finding.detail for name in fields):
            fields = tuple(name for name in fields if name in finding.detail)
        for line in self._named("start_info", fields):
            if step := self._stored["start_info"].last(line.offset, line.size):
                yield Lead(step, f"the last store to start_info's {line.name}")
        if not lines and not (fields and kind != "cmdline") and kind in self._stored and (step := self._stored[kind].last()):
            yield Lead(step, f"the last store to the {self._stored[kind].structure.name}")

    def _named(self, kind: str, names: Sequence[str]) -> list[Line]:
        return [line for line in self._stored[kind].structure.lines if line.name in names] if kind in self._stored else []

    def _lines(self, kind: str, finding: Finding) -> list[Line]:
        """The entries that a finding names, by their addresses or else by their numbers."""
        if kind not in self._stored or kind not in _ENTRIES or finding.status == OK:
            return []
        lines, detail = self._stored[kind].structure.lines, _PLANNED.sub("", finding.detail)
        memmap = self._outcome.tables.memmap if kind == "memmap" and self._outcome.tables is not None else ()
        if finding.clause == "memmap.ram" and "is said to be" not in detail:
            return [line for line, entry in zip(lines, memmap, strict=False) if entry.type == pvh.MEMMAP_TYPE_RAM]
        named = [line for line, entry in zip(lines, memmap, strict=False) if f"{entry.addr:#x}-{entry.end:#x}" in detail]
        return named or [lines[number] for number in map(int, _INDEX.findall(detail)) if number < len(lines)]

    def _entry(self, kind: str, line: Line) -> Iterator[Lead]:
        """Where what it holds was begun, and where it was ended."""
        writers = self._stored[kind].writers[line.offset : line.offset + line.size]
        last, begun = max(writers), min((step for step in writers if step), default=0)
        if begun != last:
            fields = self._parts(kind, writers, begun, ", with its ")
            yield Lead(begun, f"begins what {line.name} holds{fields}")
        fields = self._parts(kind, writers, last, "'s ")
        yield Lead(last, f"the last store to {line.name}{fields}" if last else f"no step stores to {line.name}")

    def _parts(self, kind: str, writers: Sequence[int], step: int, link: str) -> str:
        """Which fields of an entry are what that step has stored, behind a word; empty: all of them."""
        fields = _ENTRIES[kind].items()
        names = [_WORDS.get(name, name) for name, (offset, size) in fields if step in writers[offset : offset + size]]
        return "" if len(names) == len(fields) else f"{link}{', '.join(names)}"

    def _payload(self, detail: str) -> Iterator[Lead]:
        if (found := _CHANGED_AT.search(detail)) is None:
            return
        at = int(found[1], 16)
        leads = [
            Lead(step, f"{'a device writes' if effect.kind == DMA else 'a store'} to {at:#x}")
            for step, record in enumerate(self._recorded.firmware, 1)
            for effect in record.effects
            if effect.kind in (STORE, DMA) and effect.at <= at < effect.at + effect.size * effect.times
        ]
        yield from leads or [Lead(0, f"no step stores to {at:#x}")]
