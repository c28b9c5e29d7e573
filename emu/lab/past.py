"""Who did it: which instruction of a recorded boot was the last to write a piece of memory, or to change a register."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import zip_longest
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import CR0_PE, EFLAGS_DF

from ..bus import WRITE
from ..disassembly import words_of
from ..effects import DMA, STORE
from ..instruction import MEMORY, read_instruction
from ..recorded import Recorded
from ..trace import Record

_STORED: Final = (STORE, DMA, WRITE)  # a write, if no memory is there, or one that cannot be written
_STACK: Final = ("call", "push")
_WORD: Final = 4  # bytes: of what these store


class Write(NamedTuple):
    """Bytes that an instruction, or a device for it, has written: [start, end) of physical memory."""

    record: Record
    start: int
    end: int
    by_device: bool


class Past:
    """The instructions of the firmware in a recorded boot, asked from its end. On KVM, which tells no stores, they are what the
    instructions say, given the registers."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.records = recorded.firmware

    @cached_property
    def writes(self) -> tuple[Write, ...]:
        """All of them, the first one first."""
        return tuple(self._writes())

    @property
    def end(self) -> int:
        """A number behind that of the last instruction."""
        return self.records[-1].number + 1 if self.records else 0

    def last_write(self, start: int, size: int) -> Write | None:
        """The last one to any of these bytes; None: nobody has written there."""
        return next((one for one in reversed(self.writes) if one.start < start + size and start < one.end), None)

    def last_change(self, *names: str) -> Record | None:
        """The last instruction that has changed one of these registers; None: they are as the reset left them."""
        return self.last(lambda record: any(name in record.changes for name in names))

    def last(self, wanted: Callable[[Record], bool]) -> Record | None:
        """The last instruction that is wanted."""
        return next((record for record in reversed(self.records) if wanted(record)), None)

    def state_before(self, number: int) -> dict[str, int]:
        """All registers in front of the instruction of that number; at the end, if there are not so many."""
        for record, state in zip_longest(self.records, self.recorded.states()):
            if record is None or record.number >= number:
                return dict(state)
        return {}

    def where(self, record: Record, how: str = "") -> str:
        """Who and where: its name (or `how`), file and line, and where its routine was called, if it was."""
        caller = self._caller(record)
        called = f", called from {source_of(caller)}" if caller is not None else ""
        return f"{how or name_of(record)} at {source_of(record)}{called}"

    def _caller(self, record: Record) -> Record | None:
        """The call that the routine with this instruction has not come back from, if that stands in another file."""
        depth = 0
        for one in reversed(self.records[: record.number - self.records[0].number]):
            name = name_of(one)
            if name == "ret":
                depth += 1
            elif name == "call" and not depth:
                return one if file_of(one) != file_of(record) else None
            elif name == "call":
                depth -= 1
        return None

    def _writes(self) -> Iterator[Write]:
        states = self.recorded.states()
        for record, state in zip(self.records, states, strict=False):
            for effect in record.effects:
                if effect.kind in _STORED:
                    size = effect.size * effect.times
                    yield Write(record, effect.at, effect.at + size, effect.kind == DMA)
            if not self.recorded.sees_memory and state["cr0"] & CR0_PE:
                yield from self._said(record, state)

    def _said(self, record: Record, state: Mapping[str, int]) -> Iterator[Write]:
        """What an instruction says that it stores."""
        name = name_of(record)
        if name in _STACK:
            top = state["esp"] - _WORD
            yield Write(record, top, top + _WORD, False)
        for operand in read_instruction(record.code, record.address, record.bits, state).operands:
            if operand.kind == MEMORY and operand.written and operand.value is not None:
                count = record.times * operand.size
                start = operand.value - (count - operand.size if state["eflags"] & EFLAGS_DF and record.times > 1 else 0)
                yield Write(record, start, start + count, False)


def name_of(record: Record) -> str:
    """What an instruction is called, with its rep."""
    words = words_of(record.text)
    return f"{words.prefix} {words.name}".strip()


def source_of(record: Record) -> str:
    """File and line; the address where no source is known."""
    return record.place.source if record.place is not None and record.place.source else f"{record.address:#x}"


def file_of(record: Record) -> str:
    """The file that it stands in."""
    return source_of(record).partition(":")[0]
