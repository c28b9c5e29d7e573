"""A fact: one thing that is wrong in a boot, what should be, and who did it."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..trace import Record
from .past import Past, Write

_PLACE: Final = re.compile(r"([\w.-]+\.s):(\d+)")


class Fact(NamedTuple):
    """`what` was found and what should be; `where`: the instruction, with its source line, "" where it is not known; `number`
    that of the instruction in the trace, by which facts have an order."""

    what: str
    where: str
    number: int

    @property
    def places(self) -> list[tuple[str, int]]:
        """The source lines that it names: file and line."""
        return [(file, int(line)) for file, line in _PLACE.findall(str(self))]

    def __str__(self) -> str:
        return f"{self.what} ({self.where})" if self.where else self.what

    def to_json(self) -> Mapping[str, Any]:
        """As plain data."""
        return {"what": self.what, "where": self.where or None, "instruction": self.number}


def done_by(past: Past, what: str, record: Record | None, how: str = "") -> Fact:
    """A fact that an instruction has brought about; None: that none has, which shows at the end."""
    if record is None:
        return Fact(what, "", past.end)
    return Fact(what, past.where(record, how), record.number)


def stored(past: Past, what: str, write: Write | None) -> Fact:
    """A fact that a store has brought about; None: nobody has stored there."""
    if write is None:
        return Fact(what, "nobody stores it", past.end)
    return done_by(past, what, write.record, "by DMA, started" if write.by_device else "stored")
