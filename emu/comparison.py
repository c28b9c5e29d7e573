"""The same boot on several engines: whether they leave the same, and what differs."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi import x86

from .session import Outcome
from .tables import Tables

# What the ABI and the firmware define; the rest of the registers holds what cpuid has left, which processors differ in.
_REGISTERS: Final = ("ebx", "esp", "eip", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit")
_SHOWN_MAX: Final = 400  # characters of a value
_SEGMENTS: Final = ("cs", "ds", "es", "ss")


class Difference(NamedTuple):
    """One thing that is not the same on all engines: what, and what it is on each."""

    what: str
    values: Mapping[str, str]


class Comparison(NamedTuple):
    """`compared` names what was looked at, `accesses` the engines whose device accesses were compared too."""

    compared: tuple[str, ...]
    accesses: tuple[str, ...]
    differences: tuple[Difference, ...]


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Compares the handoffs of those that have one, and the accesses of those that were seen making them."""
    reached = [outcome for outcome in outcomes if outcome.handoff is not None]
    differences = []
    for what, look in _LOOKS.items():
        seen = {outcome.engine: look(outcome) for outcome in reached}
        if len(set(seen.values())) > 1:
            differences.append(Difference(what, {engine: _shown(value) for engine, value in seen.items()}))
    logs = {outcome.engine: outcome.accesses for outcome in reached if outcome.accesses is not None}
    if len(set(logs.values())) > 1:
        differences.append(_first_difference(logs))
    return Comparison(tuple(_LOOKS), tuple(logs), tuple(differences))


def _first_difference(logs: Mapping[str, Sequence[Any]]) -> Difference:
    at = 0
    while len({log[at : at + 1] for log in logs.values()}) == 1:
        at += 1
    return Difference(f"device access {at}", {engine: _shown(log[at : at + 1]) for engine, log in logs.items()})


def _shown(value: object) -> str:
    text = re.sub(r"\b\d{2,}\b", lambda number: hex(int(number[0])), repr(value))
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _tables(look: Callable[[Tables], object]) -> Callable[[Outcome], object]:
    def of(outcome: Outcome) -> object:
        assert outcome.tables is not None
        return look(outcome.tables)

    return of


def _registers(outcome: Outcome) -> object:
    assert outcome.handoff is not None
    return tuple((name, outcome.handoff.registers[name]) for name in _REGISTERS)


def _segments(outcome: Outcome) -> object:
    """With the accessed bit set: a processor sets it in its hidden part or in memory only."""
    assert outcome.handoff is not None
    segments = outcome.handoff.segments
    return tuple((name, segments[name]._replace(type=segments[name].type | x86.TYPE_ACCESSED)) for name in _SEGMENTS)


_LOOKS: Final[Mapping[str, Callable[[Outcome], object]]] = {
    "registers": _registers,
    "segments": _segments,
    "start_info": _tables(lambda tables: tables.start_info),
    "memory map": _tables(lambda tables: tables.memmap),
    "modules": _tables(lambda tables: (tables.modules, tables.module_cmdlines)),
    "command line": _tables(lambda tables: tables.cmdline),
}
