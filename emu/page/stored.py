"""What the fields of a structure held at each step, and which steps have stored what they hold in the end."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi import x86

from ..effects import DMA, STORE, Effect
from ..trace import EFLAGS, Record
from .structures import Structure, field_text

_LONG: Final = 64  # bytes of a field: of a longer one, a string, only what it holds in the end is told
_IN_PART = "written in part"


class Version(NamedTuple):
    """Behind a step a field, by its index, holds a value of a meaning."""

    step: int
    field: int
    value: str
    meaning: str


class _Write(NamedTuple):
    """A step has put bytes at an offset, which may lie in front of the structure; None: only the engine knows them."""

    step: int
    offset: int
    size: int
    data: bytes | None


class Stored:
    """The stores of all records to a structure. What no step stores was there before; of what is stored and not told, as is
    much at once, it is taken that it stayed."""

    def __init__(self, structure: Structure, records: Sequence[Record]) -> None:
        self.structure = structure
        size = len(structure.content)
        self.writers = [0] * size  # of each byte the last step that has stored it; 0: none has
        writes = list(_stores(structure, records))
        held: list[int | None] = list(structure.content)
        for write in writes:
            for offset in _offsets(write, size):
                held[offset] = None
        self._versions: list[Version] = []
        for write in writes:
            data = structure.content if write.data is None else write.data
            begin = 0 if write.data is None else write.offset
            for offset in _offsets(write, size):
                held[offset] = data[offset - begin]
                self.writers[offset] = write.step
            self._versions += self._changed(write, held)

    def last(self, offset: int = 0, size: int | None = None) -> int:
        """The last step that has stored any of these bytes (None: all); 0: none has."""
        return max(self.writers[offset : None if size is None else offset + size], default=0)

    def to_json(self) -> list[list[object]]:
        """The versions of all fields, by steps."""
        return [list(version) for version in self._versions]

    def _changed(self, write: _Write, held: Sequence[int | None]) -> Iterator[Version]:
        structure = self.structure
        for index, line in enumerate(structure.lines):
            end = line.offset + line.size
            if line.offset >= write.offset + write.size or end <= write.offset:
                continue
            data = [byte for byte in held[line.offset : end] if byte is not None]
            if line.size > _LONG:
                text = (line.value, line.meaning)
            elif len(data) < line.size:
                text = (_IN_PART, "")
            else:
                text = field_text(structure.kind, line.name, line.offset, bytes(data))
            yield Version(write.step, index, *text)


def addressed(effect: Effect, eflags: int) -> Effect:
    """A load or a store whose data are in the order of their addresses: where strings go down, they were moved in another."""
    if effect.times == 1 or not eflags & x86.EFLAGS_DF or ":" in effect.data:
        return effect
    data = bytes.fromhex(effect.data)
    parts = [data[at : at + effect.size] for at in range(0, len(data), effect.size)]
    return effect._replace(data=b"".join(reversed(parts)).hex())


def _stores(structure: Structure, records: Iterable[Record]) -> Iterator[_Write]:
    eflags = 0
    for step, record in enumerate(records, 1):
        if record.before is not None:
            eflags = record.before[EFLAGS]
        for effect in record.effects:
            if effect.kind in (STORE, DMA) and _reaches(structure, effect):
                yield _Write(step, effect.at - structure.start, effect.size * effect.times, _data(addressed(effect, eflags)))
        eflags = record.changes.get(EFLAGS, eflags)


def _reaches(structure: Structure, effect: Effect) -> bool:
    return effect.at < structure.end and structure.start < effect.at + effect.size * effect.times


def _data(effect: Effect) -> bytes | None:
    if effect.value is not None:
        return effect.value.to_bytes(effect.size, "little")
    return None if ":" in effect.data else bytes.fromhex(effect.data)


def _offsets(write: _Write, size: int) -> range:
    """Which bytes of a structure it has written."""
    return range(max(write.offset, 0), min(write.offset + write.size, size))
