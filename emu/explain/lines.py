"""The lines that ran, as somebody wrote them, and the routines that were called: of what is long, what matters."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ..bus import KINDS
from ..disassembly import words_of
from ..recorded import Recorded
from ..source_lines import SourceLine
from ..trace import Record
from .division import chapter_at
from .told import Line, Routine, Section

ALWAYS: Final = 16  # the weight from which on a line is shown, however many there are

_BARE_MAX: Final = 2048  # instructions without a source that are kept of a chapter
_COMMENT: Final = "#"
_CONDITION_END: Final = ".endif"
_CALLS: Final = ("call", "lcall")
_JUMPS: Final = ("jmp",)
_TELLING: Final = ("lgdt", "lidt", "ltr", "ljmp", "cpuid", "wrmsr", "rdmsr", "cld", "hlt", "rep")  # instructions
_CONTROL: Final = frozenset(("cr0", "cr3", "cr4", "efer", "gdtr_base", "idtr_base", "cs", "ds", "es", "ss", "tr"))
_SENTENCE: Final = re.compile(r"\.(?: |$)")


class _Row(NamedTuple):
    file: str
    number: int
    text: str
    times: int
    weight: int
    instructions: int


class Sources:
    """What the lines of a trace's firmware say, and where its routines begin."""

    def __init__(self, recorded: Recorded) -> None:
        self._sources = recorded.sources
        self._labels = {value: name for name, value in recorded.outcome.blob.symbols.items()}
        self._starts = self._routine_starts(recorded.firmware)

    def ran(self, records: Iterable[Record], shown_routines: Sequence[str] = ()) -> list[Section]:
        """The lines of a chapter, by file and by what the source says above them; of routines only those that are named."""
        counted = Counter[int]()
        first: dict[int, Record] = {}
        for record in records:
            counted[record.address] += 1
            first.setdefault(record.address, record)
        rows: dict[tuple[str, int], _Row] = {}
        bare: list[Line] = []
        for address, record in first.items():
            line = self._sources.at(address)
            times = counted[address]
            if line is None:
                bare.append(Line(f"{address:#x}", record.text, times, _weight(record, "")))
                continue
            weight = _weight(record, line.text)
            if self._is_routine(line):
                if self._routine_of(line.file, address)[0] not in shown_routines:
                    continue
                weight += ALWAYS
            at = line.file, line.number
            known = rows.get(at, _Row(line.file, line.number, line.text, 0, 0, 0))
            rows[at] = known._replace(
                times=max(known.times, times),
                weight=max(known.weight, weight),
                instructions=known.instructions + times,
            )
        return [*self._sections(rows), *_bare_sections(bare, counted)]

    def called(self, records: Iterable[Record]) -> list[Routine]:
        """The routines, in the order in which they are called first."""
        own = Counter[tuple[str, int]]()
        calls = Counter[tuple[str, int]]()
        files: dict[tuple[str, int], str] = {}
        for record in records:
            line = self._sources.at(record.address)
            if line is None or not self._is_routine(line):
                continue
            routine = self._routine_of(line.file, record.address)
            files[routine] = line.file
            own[routine] += 1
            calls[routine] += record.address == routine[1]
        return [self._routine(name, at, file, calls[name, at], own[name, at]) for (name, at), file in files.items()]

    def _routine(self, name: str, at: int, file: str, calls: int, instructions: int) -> Routine:
        line = self._sources.at(at)
        number = 0 if line is None else line.number
        return Routine(name, f"{file}:{number}", _sentence(self._comment_above(file, number)), calls, instructions)

    def _is_routine(self, line: SourceLine) -> bool:
        return chapter_at(self._sources, line.file, line.number) is None

    def _routine_starts(self, records: Sequence[Record]) -> Mapping[str, list[int]]:
        """Where calls have gone, and jumps from other files, by file."""
        starts: dict[str, set[int]] = {}
        before, name = "", ""
        for record in records:
            line = self._sources.at(record.address)
            file = "" if line is None else line.file
            if name in _CALLS or (name in _JUMPS and file != before):
                starts.setdefault(file, set()).add(record.address)
            before, name = file, words_of(record.text).name
        return {file: sorted(found) for file, found in starts.items()}

    def _routine_of(self, file: str, address: int) -> tuple[str, int]:
        """Name and start of the routine that an address of a file lies in."""
        start = max((at for at in self._starts.get(file, ()) if at <= address), default=address)
        return self._labels.get(start, f"{start:#x}"), start

    def _sections(self, rows: Mapping[tuple[str, int], _Row]) -> list[Section]:
        """Files in the order in which they ran, lines in that of the file."""
        sections: list[Section] = []
        for file in dict.fromkeys(file for file, _ in rows):
            said = _sentence(_paragraph(self._sources.file(file), 0))
            title = f"{file}: {said}" if said else file
            parts: dict[int, list[_Row]] = {}
            for (name, number), row in sorted(rows.items()):
                if name == file:
                    parts.setdefault(self._part_of(file, number), []).append(row)
            for start, found in parts.items():
                lines = tuple(Line(f"{file}:{row.number}", row.text, row.times, row.weight) for row in found)
                comment = self._comment_above(file, start)
                sections.append(Section(title, comment, lines, sum(row.instructions for row in found)))
        return sections

    def _part_of(self, file: str, number: int) -> int:
        """The first line behind the last comment of its own in front of a line, or behind the end of a condition that such a
        comment may be within; 0: only that of the whole file."""
        lines = self._sources.file(file)
        head = len(_head(lines))
        for at in range(min(number, len(lines)) - 1, head, -1):
            if lines[at - 1].startswith((_COMMENT, _CONDITION_END)):
                return at + 1
        return 0

    def _comment_above(self, file: str, number: int) -> str:
        """What is said right above a line, its label not counted."""
        lines = self._sources.file(file)
        at = end = number - 1
        while 0 < at <= len(lines) and lines[at - 1].rstrip().endswith(":") and not lines[at - 1].startswith(_COMMENT):
            at = end = at - 1
        while 0 < at <= len(lines) and lines[at - 1].startswith(_COMMENT):
            at -= 1
        return _paragraph(lines[:end], at)


def _head(lines: Sequence[str]) -> list[str]:
    """The comment that a file opens with."""
    found = []
    for line in lines:
        if line and not line.startswith(_COMMENT):
            break
        found.append(line)
    return found


def _paragraph(lines: Sequence[str], at: int) -> str:
    """The first paragraph of a comment, as one line, without the contract of a routine."""
    words = []
    for line in lines[at:]:
        text = line.removeprefix(_COMMENT).strip()
        if not line.startswith(_COMMENT) or not text or text.startswith(("In: ", "Out: ", "Clobbers: ")):
            break
        words.append(text)
    return " ".join(words)


def _sentence(text: str) -> str:
    """The first one."""
    return _SENTENCE.split(text, maxsplit=1)[0]


def _weight(record: Record, text: str) -> int:
    """How much a line tells: what it does to devices and to the CPU before what somebody has written beside it."""
    weight = 4 * any(effect.kind in KINDS for effect in record.effects)
    weight += 4 * bool(_CONTROL.intersection(record.changes))
    weight += 3 * record.text.startswith(_TELLING)
    weight += 2 * (_COMMENT in text)
    return weight + 2 * record.text.startswith(_CALLS)


def _bare_sections(lines: Sequence[Line], counted: Mapping[int, int]) -> list[Section]:
    """Instructions without a source."""
    if not lines:
        return []
    instructions = sum(counted[int(line.where, 16)] for line in lines)
    return [Section("", "", tuple(lines[:_BARE_MAX]), instructions, max(0, len(lines) - _BARE_MAX))]
