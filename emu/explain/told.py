"""What a story is made of, before it is text or JSON."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A line that ran: where it stands (file:line, or the address of an instruction without a source), its text as written, how
    often it ran, and why it is one of those to be shown where not all are (0: it is not)."""

    where: str
    text: str
    times: int
    weight: int = 0


class Section(NamedTuple):
    """Lines that stand together: what they are of, what the source says above them, and how many instructions they took.
    `left_out`: so many lines more are not kept."""

    title: str
    comment: str
    lines: tuple[Line, ...]
    instructions: int
    left_out: int = 0


class Routine(NamedTuple):
    """A routine that was called: its name, where it stands, what its comment says first, how often it was called, and how many
    instructions it took without those that it called itself."""

    name: str
    where: str
    purpose: str
    calls: int
    instructions: int


class Changed(NamedTuple):
    """A register that a chapter has changed: its values before and after, and what that means."""

    register: str
    before: int
    after: int
    meaning: str


class Written(NamedTuple):
    """Memory that a chapter has written: what it is, its first and its last byte (physical addresses), and how many bytes
    between them were written. `by`: cpu, device, or both."""

    what: str
    start: int
    last: int
    size: int
    by: str


class Spoken(NamedTuple):
    """What was said to a device, and what that means; `times` in a row."""

    access: str
    meaning: str
    times: int = 1


class Row(NamedTuple):
    """A row of an exhibit: as text, and as data."""

    text: str
    data: Mapping[str, Any]


class Exhibit(NamedTuple):
    """Something to look at: what it is, and its rows."""

    title: str
    rows: tuple[Row, ...]


class Chapter(NamedTuple):
    """A chapter. `first` and `last` are the numbers of its instructions in the trace (None: it has none), `instructions` is how
    many it has: those between may be another's. `scratch`: registers that it has changed besides, but hands to nobody. `see`:
    the places in specifications."""

    number: int
    name: str
    title: str
    why: tuple[str, ...]
    first: int | None
    last: int | None
    instructions: int
    ran: tuple[Section, ...]
    calls: tuple[Routine, ...]
    registers: tuple[Changed, ...]
    scratch: tuple[str, ...]
    memory: tuple[Written, ...]
    devices: tuple[Spoken, ...]
    exhibits: tuple[Exhibit, ...]
    see: tuple[str, ...]


class Story(NamedTuple):
    """All chapters of a boot: what it is of, instructions and device accesses up to the handoff, whether the engine has told
    loads and stores, and whether it has come to a clean handoff."""

    subject: str
    instructions: int
    accesses: int
    sees_memory: bool
    clean: bool
    chapters: tuple[Chapter, ...]


def as_data(value: Any) -> Any:
    """A story, or what it is made of, as JSON has it: each NamedTuple an object, without what is only for the eye."""
    if isinstance(value, Row):
        return {"text": value.text, **value.data}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: as_data(part) for name, part in value._asdict().items() if name != "weight"}
    if isinstance(value, tuple | list):
        return [as_data(part) for part in value]
    return value
