"""Causes and the last instructions as text for a person."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from ..causes.scene import Cause
from ..recent import Executed

_WIDTH: Final = 110
_BYTES: Final = 10  # of an instruction that are shown; few have more
_INDENT: Final = "  "


def cause_lines(cause: Cause, heading: str = "likely cause") -> list[str]:
    """Title, why, what was seen, what to do."""
    lines = [f"{heading}: {cause.title}"]
    lines += wrap(cause.why, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    lines += [f"{_INDENT}{'seen:' if not number else '     '} {line}" for number, line in enumerate(cause.evidence)]
    lines += wrap(
        f"what to do: {cause.remedy}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT * 2, break_on_hyphens=False
    )
    return lines


def executed_lines(executed: Sequence[Executed]) -> list[str]:
    """A line each: address, bytes, text, how often in a row, place."""
    rows = [(_bytes(one.data), one.text + _times(one), one) for one in executed]
    data_width = max((len(data) for data, _, _ in rows), default=0)
    text_width = max((len(text) for _, text, _ in rows), default=0)
    return [
        f"{one.address:#010x}  {data:<{data_width}}  {text:<{text_width}}  {one.place or ''}".rstrip()
        for data, text, one in rows
    ]


def _times(one: Executed) -> str:
    return f"  (x {one.times})" if one.times > 1 and not one.text.startswith("rep") else ""


def _bytes(data: bytes) -> str:
    return data[:_BYTES].hex(" ") + (" …" if len(data) > _BYTES else "")
