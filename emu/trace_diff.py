"""Two traces side by side, to the first instruction or access at which they part."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import zip_longest
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import EFLAGS_ARITHMETIC

from .bus import READ, WRITE
from .effects import LOAD, STORE, Effect
from .flags import flags_of
from .own_values import OwnValues, gives_own_values
from .reasons import FAULT
from .trace import EFLAGS, End, Record

CONTEXT: Final = 5  # records in front of the difference that are shown

_MEMORY_KINDS: Final = (LOAD, STORE)


class Trace(NamedTuple):
    """What is compared: a trace's items, whether its engine has told loads and stores, and whether all records are there."""

    items: Iterable[Record | End]
    sees_memory: bool
    complete: bool


class Difference(NamedTuple):
    """What is not the same at one place, and how it is in either: a register by its name (with ` before`: in front of the
    first instruction), the `instruction`, an `effect` of it (None: there is none), or the `end` of a trace, where the other one
    goes on or ends otherwise."""

    what: str
    first: int | Effect | Record | End | None
    second: int | Effect | Record | End | None


class Divergence(NamedTuple):
    """Where two traces part: `first` and `second` are the items there, None where that trace has nothing more to compare."""

    first: Record | End | None
    second: Record | End | None
    differences: tuple[Difference, ...]


class TraceComparison(NamedTuple):
    """`same` counts what was found to be the same: instructions, or accesses. `before` are the records of the last of them.
    `own` are instructions that gave other values by right, as these are the processor's own, the first few places; and
    `own_reached`: such values have gone into the last instruction that was the same."""

    same: int
    before: tuple[Record, ...]
    divergence: Divergence | None
    own: tuple[Record, ...] = ()
    own_reached: bool = False


class _Known:
    """The registers of both runs, as far as their traces tell, and what of them need not be the same."""

    def __init__(self, ignored: Collection[str], *, complete: bool) -> None:
        self._ignored, self._complete = frozenset(ignored), complete
        self._first: dict[str, int] = {}
        self._second: dict[str, int] = {}
        self._undefined = 0  # bits of EFLAGS
        self._own = OwnValues()

    def start(self, first: Record, second: Record) -> list[Difference]:
        """Takes over what the traces say of all registers, and compares it."""
        if first.before is None or second.before is None:
            return []
        self._first, self._second = dict(first.before), dict(second.before)
        return [
            Difference(f"{name} before", value, self._second[name])
            for name, value in self._first.items()
            if name not in self._ignored and name in self._second and value != self._second[name]
        ]

    def step(self, first: Record, second: Record) -> tuple[list[Difference], bool]:
        """The registers that an instruction has left with other values, and whether the processor's own values go into it: then
        its results may differ."""
        # What was left out has done to flags and registers what nobody knows.
        flags = flags_of(first.text, self._first.get("ecx") if self._complete else None)
        undefined = self._undefined if self._complete else EFLAGS_ARITHMETIC
        self._undefined = (undefined & ~flags.defined) | flags.undefined
        self._first |= first.changes
        self._second |= second.changes
        reached = self._own.reach(first, (*first.effects, *second.effects))
        # A flag that was undefined, and is defined now, may have changed in neither.
        names = {**first.changes, **second.changes, **({EFLAGS: 0} if flags.defined else {})}
        differences = []
        for name in names:
            if name in self._ignored or not (self._complete or (name in first.changes and name in second.changes)):
                continue
            one, other = self._first.get(name), self._second.get(name)
            if one is None or other is None:
                continue
            if not (one ^ other) & ~(self._undefined if name == EFLAGS else 0):
                self._own.registers.discard(name)
            elif reached:
                self._own.registers.add(name)
            elif name not in self._own.registers:
                differences.append(Difference(name, one, other))
        return differences, reached


def compare_traces(first: Trace, second: Trace, ignored: Collection[str] = ()) -> TraceComparison:
    """Instruction by instruction: what is executed, what it leaves in the registers but the `ignored` ones, what it does to
    memory, if both engines have told that, and to devices. Flags that an instruction leaves undefined are not compared until
    one defines them, nor registers with what is the processor's own until they are the same."""
    known = _Known(ignored, complete=first.complete and second.complete)
    unseen = () if first.sees_memory and second.sees_memory else _MEMORY_KINDS
    before: deque[Record] = deque(maxlen=CONTEXT)
    own: dict[int, Record] = {}
    reached = False
    same = 0
    for one, other in zip_longest(first.items, second.items):
        if isinstance(one, Record) and isinstance(other, Record):
            differences = [] if same else known.start(one, other)
            if (one.bits, one.address, one.code) != (other.bits, other.address, other.code):
                differences.append(Difference("instruction", one, other))
            else:
                registers, reached = known.step(one, other)
                differences += [*registers, *_effect_differences(one, other, unseen, values=not reached)]
                if gives_own_values(one) and one.changes != other.changes and len(own) < CONTEXT:
                    own.setdefault(one.address, one)
        else:
            differences = _end_differences(one, other)
        if differences:
            divergence = Divergence(one, other, tuple(differences))
            return TraceComparison(same, tuple(before), divergence, tuple(own.values()), reached)
        if isinstance(one, Record):
            before.append(one)
            same += 1
    return TraceComparison(same, tuple(before), None, tuple(own.values()))


def compare_effects(first: Trace, second: Trace, kinds: Collection[str]) -> TraceComparison:
    """Access by access, whatever the instructions are that make them, and how it ends: two firmwares, or one at two places."""
    before: deque[Record] = deque(maxlen=CONTEXT)
    same = 0
    nothing = None, None
    for one, other in zip_longest(_effects(first.items, kinds), _effects(second.items, kinds), fillvalue=nothing):
        (item, effect), (other_item, other_effect) = one, other
        if effect != other_effect:
            differences = [Difference("effect", effect, other_effect)]
        else:
            differences = [] if effect else _end_differences(item, other_item)
        if differences:
            return TraceComparison(same, tuple(before), Divergence(item, other_item, tuple(differences)))
        if isinstance(item, Record):
            same += 1
            if not before or before[-1] is not item:
                before.append(item)
    return TraceComparison(same, tuple(before), None)


def _effects(items: Iterable[Record | End], kinds: Collection[str]) -> Iterator[tuple[Record | End, Effect | None]]:
    """Each with the instruction that has it; and the end."""
    for item in items:
        if isinstance(item, End):
            yield item, None
        else:
            yield from ((item, effect) for effect in item.effects if effect.kind in kinds)


def _effect_differences(first: Record, second: Record, unseen: Collection[str], *, values: bool) -> list[Difference]:
    """Without those of the kinds that one engine has not told; `values`: what was moved is compared, too."""
    one = _joined(effect for effect in first.effects if effect.kind not in unseen)
    other = _joined(effect for effect in second.effects if effect.kind not in unseen)
    pairs = [pair for pair in zip_longest(one, other) if pair[0] != pair[1]]
    return [Difference("effect", *pair) for pair in pairs if values or None in pair or _moved(pair[0]) != _moved(pair[1])]


def _joined(effects: Iterable[Effect]) -> list[Effect]:
    """The engines split an access to a device in memory each in its way: here it is one again."""
    joined: list[Effect] = []
    for effect in effects:
        last = joined[-1] if joined else None
        if (
            last is not None
            and effect.kind == last.kind
            and effect.kind in (READ, WRITE)
            and effect.value is not None
            and last.value is not None
            and (effect.at, effect.device) == (last.at + last.size, last.device)
        ):
            joined[-1] = last._replace(size=last.size + effect.size, value=last.value | effect.value << 8 * last.size)
        else:
            joined.append(effect)
    return joined


def _moved(effect: Effect) -> Effect:
    return effect._replace(value=None, data="")


def _end_differences(first: Record | End | None, second: Record | End | None) -> list[Difference]:
    """Two ends are the same if they have the same reason, of a fault at the same place if both know it: the words are the
    engine's, and of an access that ends the run one engine names the place before it, and one that behind it."""
    if isinstance(first, End) and isinstance(second, End):
        elsewhere = None not in (first.address, second.address) and first.address != second.address
        if first.reason == second.reason and not (first.reason == FAULT and elsewhere):
            return []
    return [Difference("end", first, second)]
