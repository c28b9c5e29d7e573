"""The same boot on several engines: whether they leave the same, and what differs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi import x86

from .engines.base import describe_stop
from .session import Outcome
from .tables import Tables

# What the ABI and the firmware define; the rest of the registers holds what cpuid has left, which processors differ in.
REGISTERS: Final = ("ebx", "esp", "eip", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit")
SEGMENTS: Final = ("cs", "ds", "es", "ss")


class Difference(NamedTuple):
    """One thing that is not the same on all engines: what, and what it is on each."""

    what: str
    values: Mapping[str, str]


class Comparison(NamedTuple):
    """`reached` are the engines that reached the kernel's entry: what they left was compared, if they are two or more.
    `accesses` are those of them whose device accesses were compared, each with every other."""

    reached: tuple[str, ...]
    accesses: tuple[str, ...]
    differences: tuple[Difference, ...]


def compare(outcomes: Sequence[Outcome]) -> Comparison:
    """Compares outcomes of different engines. That one reaches the entry and another does not is a difference, too."""
    reached = [outcome for outcome in outcomes if outcome.handoff is not None]
    differences = []
    if 0 < len(reached) < len(outcomes):
        differences.append(Difference("the end", {outcome.engine: describe_stop(outcome.run.stop) for outcome in outcomes}))
    for what, look in COMPARED.items():
        if found := _difference(what, {outcome.engine: look(outcome) for outcome in reached}):
            differences.append(found)
    logs = {outcome.engine: outcome.accesses for outcome in reached if outcome.accesses is not None}
    if found := _difference("device access", logs):
        differences.append(found)
    return Comparison(tuple(outcome.engine for outcome in reached), tuple(logs), tuple(differences))


def _difference(what: str, values: Mapping[str, Any]) -> Difference | None:
    """The first element of the sequences in which they differ, if there is one; anything else as a whole."""
    if len(set(values.values())) < 2:
        return None
    if all(type(value) is tuple for value in values.values()):
        at = 0
        while len({value[at : at + 1] for value in values.values()}) == 1:
            at += 1
        parts = {engine: _shown(value[at]) if at < len(value) else "none" for engine, value in values.items()}
        return Difference(f"{what} {at}", parts)
    return Difference(what, {engine: _shown(value) for engine, value in values.items()})


def _shown(value: object) -> str:
    """A value for a person: numbers in hexadecimal, the fields of a record by name."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        parts = [_shown(part) for part in value]
        if fields is not None:
            parts = [f"{name}={part}" for name, part in zip(fields, parts, strict=True)]
        return " ".join(parts)
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    return repr(value)


def _tables(look: Callable[[Tables], object]) -> Callable[[Outcome], object]:
    def of(outcome: Outcome) -> object:
        assert outcome.tables is not None
        return look(outcome.tables)

    return of


def _registers(outcome: Outcome) -> object:
    assert outcome.handoff is not None
    return tuple((name, outcome.handoff.registers[name]) for name in REGISTERS)


def _segments(outcome: Outcome) -> object:
    """With the accessed bit set: a processor sets it in its hidden part or in memory only."""
    assert outcome.handoff is not None
    segments = outcome.handoff.segments
    return tuple((name, segments[name]._replace(type=segments[name].type | x86.TYPE_ACCESSED)) for name in SEGMENTS)


COMPARED: Final[Mapping[str, Callable[[Outcome], object]]] = {
    "register": _registers,
    "segment": _segments,
    "start_info": _tables(lambda tables: tables.start_info),
    "memory map entry": _tables(lambda tables: tables.memmap),
    "module": _tables(lambda tables: tables.modules),
    "command line of module": _tables(lambda tables: tables.module_cmdlines),
    "command line": _tables(lambda tables: tables.cmdline),
}
