"""A story as text that reads well in a pipe, aloud and on a projector: nothing is said by colour or position alone."""

from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from typing import Final

from pvhboot.loader.picture import cut
from pvhboot.loader.printable import one_line

from ..bitfields import REGISTERS_OF_BITS
from .lines import ALWAYS
from .told import Chapter, Line, Routine, Section, Story, Written
from .words import counted, range_text

WIDTH: Final = 100  # columns
_INDENT: Final = "  "
_LINES: Final = 30  # of a chapter that are shown whole
_BARE_LINES: Final = 12  # of a longer one without sources
_LEAST: Final = 5  # of a section of a longer one
_COMMENT_COLUMN: Final = 36  # behind the start of a source line, as the sources have it
_GAP: Final = 2  # columns, at least, in front of a line and of its comment
_WHERE_MAX: Final = 40  # columns; what is longer has a line of its own
_DEVICES_FIRST, _DEVICES_LAST = 14, 8  # of more lines on devices than these, those in the middle are left out
_MEMORY: Final = 8  # lines on memory

_BOLD, _GREEN, _CYAN = "1", "32", "36"

Paint = Callable[[str, str], str]


def painted(text: str, code: str) -> str:
    """In a colour, by the escape sequences of a terminal."""
    return f"\x1b[{code}m{text}\x1b[0m"


def plain(text: str, _code: str) -> str:
    """As it is."""
    return text


def story_text(story: Story, chapters: Sequence[Chapter], paint: Paint = plain) -> Iterator[str]:
    """The lines of some of its chapters."""
    if len(chapters) == len(story.chapters):
        yield from _wrapped(story.subject)
        yield from _wrapped(
            f"From the reset to {'the kernel' if story.chapters[-1].name == 'check' else 'the end'}: "
            f"{counted(story.instructions, 'instruction')} (a rep counts once; pvhboot boot counts each round of it), "
            f"{counted(story.accesses, 'device access', 'device accesses')}, "
            f"told in {counted(len(story.chapters), 'chapter')}."
        )
        if not story.sees_memory:
            yield from _wrapped("This engine does not show loads and stores: of memory, only what devices wrote is told.")
        yield ""
    for number, chapter in enumerate(chapters):
        if number:
            yield ""
            yield ""
        yield from _chapter_lines(chapter, len(story.chapters), paint)


def list_text(chapters: Sequence[Chapter]) -> Iterator[str]:
    """A line for each."""
    for chapter in chapters:
        yield from _wrapped(f"{chapter.number}. {chapter.name}: {chapter.title}")


def _chapter_lines(chapter: Chapter, of: int, paint: Paint) -> Iterator[str]:
    yield paint(f"Chapter {chapter.number} of {of} ({chapter.name}): {chapter.title}", _BOLD)
    for paragraph in chapter.why:
        yield ""
        yield from _wrapped(paragraph)
    yield from _ran_lines(chapter, paint)
    yield from _changed_lines(chapter, paint)
    for exhibit in chapter.exhibits:
        yield ""
        yield from _heading(exhibit.title, paint)
        for row in exhibit.rows:
            indent = _INDENT + " " * (len(row.text) - len(row.text.lstrip()))
            yield from _wrapped(row.text.lstrip(), indent, indent + _INDENT)
    yield ""
    yield from _heading("In the specifications", paint)
    for place in chapter.see:
        yield from _item(place)


def _heading(text: str, paint: Paint) -> Iterator[str]:
    for line in _wrapped(f"{text}:"):
        yield paint(line, _BOLD)


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """In lines that begin with `first` and `rest`: whatever is in it cannot be taken for an escape sequence."""
    return wrap(one_line(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _item(text: str, depth: int = 1) -> list[str]:
    return _wrapped(text, _INDENT * depth, _INDENT * (depth + 1))


def _ran_lines(chapter: Chapter, paint: Paint) -> Iterator[str]:
    if chapter.first is None or chapter.last is None:
        return
    numbers = f"number {chapter.first:,}" if chapter.first == chapter.last else f"{chapter.first:,} to {chapter.last:,}"
    if chapter.last - chapter.first + 1 > chapter.instructions:
        numbers = f"of {numbers}"
    yield ""
    yield from _heading(f"What ran, {counted(chapter.instructions, 'instruction')} ({numbers})", paint)
    is_long = sum(len(section.lines) for section in chapter.ran) > _LINES
    most = _LINES if any(section.title for section in chapter.ran) else _BARE_LINES
    budget = max(_LEAST, most // max(1, len(chapter.ran))) if is_long else None
    title = ""
    for section in chapter.ran:
        if section.title != title:
            yield from _item(section.title)
            title = section.title
        if section.comment:
            yield from _wrapped(f"# {section.comment}", _INDENT * 2, f"{_INDENT * 2}# ")
        yield from _section_lines(section, _picked(section.lines, budget), paint)
    if chapter.calls:
        yield from _item("Called on the way:")
        for routine in chapter.calls:
            yield from _item(_routine_text(routine), 2)


def _picked(lines: Sequence[Line], most: int | None) -> set[int]:
    """Which of the lines are shown: of too many those that weigh most, and whatever is the only one between two of them."""
    if most is None or len(lines) <= most + 1:
        return set(range(len(lines)))
    heaviest = sorted(range(len(lines)), key=lambda at: -lines[at].weight)
    picked = {at for at in heaviest[:most] if lines[at].weight} or set(range(_LEAST))
    picked |= {at for at in heaviest if lines[at].weight >= ALWAYS}
    return picked | {at for at in range(len(lines)) if {at - 1, at + 1} <= picked | {-1, len(lines)}}


def _section_lines(section: Section, picked: set[int], paint: Paint) -> Iterator[str]:
    width = max((len(_where(section.lines[at])) for at in picked), default=0)
    hidden = 0
    for at, line in enumerate(section.lines):
        if at not in picked:
            hidden += 1
            continue
        if hidden:
            yield _hidden_text(hidden)
            hidden = 0
        yield from _line_text(line, width, paint)
    if hidden + section.left_out:
        yield _hidden_text(hidden + section.left_out)


def _hidden_text(count: int) -> str:
    return f"{_INDENT * 2}… {counted(count, 'more line')}"


def _where(line: Line) -> str:
    return line.where + (f" × {line.times:,}" if line.times > 1 else "")


def _line_text(line: Line, width: int, paint: Paint) -> Iterator[str]:
    """Where in so many columns, how often, and the line with its comment: below it, where it does not fit."""
    code, mark, comment = one_line(line.text.strip().expandtabs(1)).partition("#")
    code, comment = code.rstrip(), f"{mark} {comment.strip()}" if mark else ""
    head = f"{_INDENT * 2}{paint(_where(line), _CYAN)}"
    if width > _WHERE_MAX:
        yield from _item(_where(line), 2)
        head, width = _INDENT * 3, 0
    else:
        head += " " * (width - len(_where(line)) + _GAP)
    left = WIDTH - len(_INDENT * 2) - width - _GAP
    between = max(_GAP, min(_COMMENT_COLUMN - len(code), left - len(code) - len(comment)))
    if comment and len(code) + between + len(comment) <= left:
        yield f"{head}{code}{' ' * between}{paint(comment, _GREEN)}"
        return
    start = " " * (WIDTH - left)
    for number, part in enumerate(wrap(code, left, subsequent_indent=_INDENT)):
        yield f"{start if number else head}{part}"
    yield from (f"{start}{paint(part, _GREEN)}" for part in wrap(comment, left, subsequent_indent="# "))


def _routine_text(routine: Routine) -> str:
    calls = f"× {routine.calls:,}, " if routine.calls else ""
    purpose = f": {routine.purpose}" if routine.purpose else ""
    return f"{routine.name} ({routine.where}), {calls}{counted(routine.instructions, 'instruction')}{purpose}"


def _changed_lines(chapter: Chapter, paint: Paint) -> Iterator[str]:
    if not (chapter.registers or chapter.memory or chapter.devices):
        return
    yield ""
    yield from _heading("What changed", paint)
    for changed in chapter.registers:
        mark = ": " if changed.register in REGISTERS_OF_BITS else ", "
        meaning = f"{mark}{changed.meaning}" if changed.meaning else ""
        yield from _item(f"{changed.register}: from {changed.before:#x} to {changed.after:#x}{meaning}")
    if chapter.scratch:
        yield from _item(f"worked with, too: {', '.join(chapter.scratch)}")
    for written in chapter.memory[:_MEMORY]:
        yield from _item(f"memory: {_written_text(written)}")
    if len(chapter.memory) > _MEMORY:
        more = sum(written.size for written in chapter.memory[_MEMORY:])
        yield from _item(f"memory: {counted(len(chapter.memory) - _MEMORY, 'more range')}, {counted(more, 'byte')}")
    told, hidden = cut(chapter.devices, _DEVICES_FIRST, _DEVICES_LAST)
    between = sum(spoken.times for spoken in chapter.devices[_DEVICES_FIRST : _DEVICES_FIRST + hidden])
    for spoken in told:
        if spoken is None:
            yield from _item(f"… and {counted(between, 'access', 'accesses')} more")
        else:
            times = f" × {spoken.times:,}" if spoken.times > 1 else ""
            yield from _item(f"{spoken.access}{times}: {spoken.meaning}")


def _written_text(written: Written) -> str:
    span = written.last - written.start + 1
    by = {"device": ", by a device", "both": ", partly by a device"}.get(written.by, "")
    if written.size == span:
        return f"{range_text(written.start, span)}, {counted(written.size, 'byte')}{by}: {written.what}"
    return f"{counted(written.size, 'byte')} between {written.start:#x} and {written.last:#x}{by}: {written.what}"
