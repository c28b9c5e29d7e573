"""Instructions of a boot for a notebook: a row for each, with its source line and what it did."""

from collections.abc import Iterator, Sequence
from typing import Final

from pvhboot.loader.picture import cut

from ..bitfields import REGISTERS_OF_BITS, register_fields
from ..kit.steps import FIRST, LAST, Trace
from ..report.trace_text import effect_text
from ..source_lines import SourceLine
from ..trace import Record
from .markup import Markup, code, element, fragment, joined, row, table

_COLUMNS: Final = ("number", "mode", "place", "source line", "instruction", "registers after it", "what else it did")


def trace_html(trace: Trace) -> str:
    """Instructions in their order."""
    return fragment("trace", trace_table(trace))


def record_html(record: Record) -> str:
    """One instruction, whose source line is not at hand."""
    return fragment("instruction", _table(f"instruction {record.number}", [_row(record, None)]))


def trace_table(trace: Trace) -> Markup:
    """A row for each, and of a long trace its begin and its end."""
    return _table(repr(trace).strip("<>"), _rows(trace))


def _table(caption: str, rows: Iterator[Markup] | Sequence[Markup]) -> Markup:
    return table(caption, _COLUMNS, rows, classes="steps")


def _rows(trace: Trace) -> Iterator[Markup]:
    shown, hidden = cut(trace, FIRST, LAST)
    for record in shown:
        if record is None:
            yield _across("…", f"{hidden} more: a slice shows them, as in trace[100:140]")
            continue
        if record.number == trace.handoff:
            yield _across("", "the handoff: from here on it is the kernel that runs", classes="entry")
        yield _row(record, trace.source(record))


def _across(first: str, said: str, classes: str = "") -> Markup:
    return row(first, element("td", said, colspan=len(_COLUMNS) - 1), classes=classes)


def _row(record: Record, source: SourceLine | None) -> Markup:
    times = f"  (x {record.times})" if record.times > 1 else ""
    at = f"{record.cs:04x}:{record.ip:04x}" if record.bits == 16 else f"{record.address:#010x}"
    return row(
        record.number,
        record.bits,
        element("td", *_place(record, at)),
        "" if source is None else _source(source),
        code(record.text + times, title=record.code.hex(" ")),
        joined(_change(*change) for change in record.changes.items()),
        joined((code(_arrow(effect_text(effect))) for effect in record.effects), element("br")),
    )


def _place(record: Record, at: str) -> Iterator[Markup]:
    """The label, and small below it file and line."""
    place = record.place
    if place is None:
        yield code(at)
        return
    yield code(str(place._replace(source="")), title=at)
    if place.source:
        yield element("br")
        yield element("small", place.source, classes="dim")


def _source(line: SourceLine) -> Markup:
    """Without the blanks that align it with others; its comment stands back."""
    written, mark, comment = " ".join(line.text.split()).partition("#")
    return element("code", written, element("span", mark + comment, classes="dim") if mark else "")


def _arrow(told: str) -> str:
    """With arrows of one character, at which no line is broken in two."""
    return told.replace("->", "→").replace("<-", "←")


def _change(name: str, value: int) -> Markup:
    """Of a register whose bits have names, those that are set."""
    if name not in REGISTERS_OF_BITS:
        return code(f"{name}={value:#x}")
    fields = [field for field in register_fields(name, value) if field.value]
    bits = (element("span", field.name, classes="bit set", title=field.meaning) for field in fields)
    return joined([code(f"{name}={value:#x}"), *bits])
