"""Timelines of boots as a picture: a bar each, side by side on one scale, a colour for each phase.

Colours: Okabe and Ito, "Color Universal Design" (2008), which people with any of the usual kinds of colour vision can tell
apart. SVG 1.1 without scripts; widths are in user units of the view box, so that the picture fits whatever shows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from ..timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    PROTECTED_MODE,
    START_KERNEL,
    Timeline,
)


class _Phase(NamedTuple):
    """What lies in front of a mark: in words, its colour, and that of figures on it."""

    words: str
    colour: str
    ink: str


_DARK, _LIGHT = "#000", "#fff"
_PHASES: Final[Mapping[str, _Phase]] = {
    FIRST_INSTRUCTION: _Phase("set-up of the VM", "#999999", _DARK),
    PROTECTED_MODE: _Phase("firmware, 16-bit", "#f0e442", _DARK),
    HANDOFF: _Phase("firmware to the handoff", "#e69f00", _DARK),
    KERNEL_64: _Phase("to the 64-bit kernel", "#56b4e9", _DARK),
    START_KERNEL: _Phase("to start_kernel", "#0072b2", _LIGHT),
    CONSOLE: _Phase("to the console", "#009e73", _DARK),
    INIT: _Phase("to init", "#cc79a7", _DARK),
    EXIT: _Phase("to the guest's exit", "#d55e00", _DARK),
}
_BOUNDS: Final = frozenset((*MARKS, EXIT))

_WIDTH: Final = 800
_MARGIN: Final = 16
_CHARACTER: Final = 0.62  # of the font size: the mean width of one in a wide font
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 18, 14, 12
_LABEL_MAX: Final = 30  # characters
_TOTAL_WIDTH: Final = 84  # room for "12345.6 ms"
_TITLE_HEIGHT: Final = 48
_ROW_HEIGHT, _BAR_HEIGHT = 34, 22
_AXIS_HEIGHT: Final = 44
_LEGEND_HEIGHT: Final = 24
_SWATCH: Final = 14
_TICKS: Final = 6  # about so many on the axis
_BOLD: Final = ' font-weight="600"'
_MIDDLE: Final = ' text-anchor="middle"'  # of text: what its x means
_END: Final = ' text-anchor="end"'
_FAINT: Final = ' class="pvhboot-faint"'

_STYLE: Final = """
    .pvhboot-paper { fill: #ffffff }
    .pvhboot-timeline text { font-family: system-ui, sans-serif; fill: #1f2328 }
    .pvhboot-timeline .pvhboot-faint { fill: #57606a }
    .pvhboot-line { stroke: #d0d7de; stroke-width: 1 }
    .pvhboot-marker { stroke: #1f2328; stroke-width: 1.5 }
    @media (prefers-color-scheme: dark) {
      .pvhboot-paper { fill: #0d1117 }
      .pvhboot-timeline text { fill: #e6edf3 }
      .pvhboot-timeline .pvhboot-faint { fill: #9da7b3 }
      .pvhboot-line { stroke: #3d444d }
      .pvhboot-marker { stroke: #e6edf3 }
    }"""


class _Span(NamedTuple):
    """A phase of a boot: the mark at its end; nanoseconds."""

    name: str
    start: int
    end: int


def timelines_svg(timelines: Sequence[Timeline], title: str) -> str:
    """An SVG document. Marks that are no bounds of a phase (those of marker ports) are strokes across the bar."""
    spans = [list(_spans(timeline)) for timeline in timelines]
    longest = max((row[-1].end for row in spans if row), default=0) or 1
    labels = [_short(timeline.label) for timeline in timelines]
    left = _MARGIN + max((_text_width(label, _TEXT_SIZE) for label in labels), default=0) + 12
    scale = (_WIDTH - _MARGIN - _TOTAL_WIDTH - left) / longest  # units of the picture for a nanosecond
    legend, height = _legend(_words(spans), _TITLE_HEIGHT + _ROW_HEIGHT * len(timelines) + _AXIS_HEIGHT)
    body = [*_axis(left, scale, longest, _TITLE_HEIGHT + _ROW_HEIGHT * len(timelines))]
    for number, (timeline, label, row) in enumerate(zip(timelines, labels, spans, strict=True)):
        body += _bar(timeline, label, row, left, scale, _TITLE_HEIGHT + _ROW_HEIGHT * number)
    summary = "; ".join(_summary(timeline, row) for timeline, row in zip(timelines, spans, strict=True))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="pvhboot-timeline" viewBox="0 0 {_WIDTH} {height}" width="100%" '
            'role="img" aria-labelledby="pvhboot-title pvhboot-desc">',
            f'  <title id="pvhboot-title">{_escaped(title)}</title>',
            f'  <desc id="pvhboot-desc">{_escaped(summary)}</desc>',
            f"  <style>{_STYLE}\n  </style>",
            f'  <rect class="pvhboot-paper" width="{_WIDTH}" height="{height}"/>',
            f"  {_text(_MARGIN, 30, title, size=_TITLE_SIZE, more=_BOLD)}",
            *(f"  {line}" for line in (*body, *legend)),
            "</svg>\n",
        ]
    )


def _spans(timeline: Timeline) -> Iterator[_Span]:
    bounds = [mark for mark in timeline.marks if mark.name in _BOUNDS]
    for before, mark in pairwise(bounds):
        yield _Span(mark.name, before.ns, mark.ns)


def _summary(timeline: Timeline, row: Sequence[_Span]) -> str:
    reached = ", ".join(f"{span.name} after {_figure(span.end)} ms" for span in row)
    return f"{timeline.label}: {reached or 'nothing reached'}"


def _bar(timeline: Timeline, label: str, row: Sequence[_Span], left: float, scale: float, top: int) -> Iterator[str]:
    middle = top + _ROW_HEIGHT / 2
    line = middle + 5  # the base line of text in the middle
    name = f"<title>{_escaped(timeline.label)}</title>"
    yield f"<g>{name}{_text(left - 12, line, label, more=_END)}</g>"
    for span in row:
        x, width = left + span.start * scale, (span.end - span.start) * scale
        phase, figure = _PHASES[span.name], _figure(span.end - span.start)
        told = f"{span.name}: {figure} ms, from {_figure(span.start)} to {_figure(span.end)} ms"
        yield (
            f'<rect x="{x:.2f}" y="{middle - _BAR_HEIGHT / 2:.1f}" width="{width:.2f}" height="{_BAR_HEIGHT}" '
            f'fill="{phase.colour}" data-phase="{span.name}"><title>{_escaped(told)}</title></rect>'
        )
        if width > _text_width(figure, _SMALL_SIZE) + 8:
            more = f'{_MIDDLE} style="fill: {phase.ink}"'
            yield _text(x + width / 2, middle + 4.5, figure, size=_SMALL_SIZE, more=more)
    for mark in timeline.marks:
        if mark.name not in _BOUNDS:
            x = left + mark.ns * scale
            yield (
                f'<path class="pvhboot-marker" d="M{x:.2f} {middle - _BAR_HEIGHT / 2 - 3:.1f}v{_BAR_HEIGHT + 6}">'
                f"<title>{_escaped(f'{mark.name}: {_figure(mark.ns)} ms')}</title></path>"
            )
    end = row[-1].end if row else 0
    yield _text(left + end * scale + 8, line, f"{_figure(end)} ms" if row else "not run")


def _axis(left: float, scale: float, longest: int, top: int) -> Iterator[str]:
    step = _tick(longest)
    for ns in range(0, longest + 1, step):
        x = left + ns * scale
        yield f'<path class="pvhboot-line" d="M{x:.2f} {_TITLE_HEIGHT}V{top + 6}"/>'
        yield _text(x, top + 22, f"{ns / 1e6:g}", size=_SMALL_SIZE, more=_MIDDLE + _FAINT)
    yield _text(_WIDTH - _MARGIN, top + 22, "ms", size=_SMALL_SIZE, more=_END + _FAINT)


def _tick(longest: int) -> int:
    """The nanoseconds between two ticks: 1, 2 or 5, and zeros."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if longest <= digit * power * _TICKS:
                return digit * power
        power *= 10


def _words(spans: Sequence[Sequence[_Span]]) -> dict[str, str]:
    """The phases that are shown, with their words; of a single boot with the milliseconds, too, as the bar has not room for
    all of them."""
    words = {name: phase.words for name, phase in _PHASES.items() if any(span.name == name for row in spans for span in row)}
    if len(spans) == 1:
        words |= {span.name: f"{words[span.name]}: {_figure(span.end - span.start)}" for span in spans[0]}
    return words


def _legend(shown: Mapping[str, str], top: int) -> tuple[list[str], int]:
    """Each phase in its words, in as many lines as it takes; and where the picture ends."""
    lines: list[str] = []
    x, y = float(_MARGIN), top
    for name, words in shown.items():
        width = _SWATCH + 6 + _text_width(words, _SMALL_SIZE) + 18
        if x + width > _WIDTH - _MARGIN + 18 and x > _MARGIN:
            x, y = float(_MARGIN), y + _LEGEND_HEIGHT
        lines.append(f'<rect x="{x:.1f}" y="{y}" width="{_SWATCH}" height="{_SWATCH}" fill="{_PHASES[name].colour}"/>')
        lines.append(_text(x + _SWATCH + 6, y + _SWATCH - 2, words, size=_SMALL_SIZE))
        x += width
    return lines, y + _LEGEND_HEIGHT + (_MARGIN - _LEGEND_HEIGHT + _SWATCH if shown else 0)


def _text(x: float, y: float, text: str, *, size: int = _TEXT_SIZE, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{more}>{_escaped(text)}</text>'


def _text_width(text: str, size: int) -> float:
    return len(text) * size * _CHARACTER


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_MAX else f"{label[: _LABEL_MAX - 1]}…"


def _figure(ns: int) -> str:
    """Nanoseconds as milliseconds with three digits or more that count."""
    value = ns / 1e6
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _escaped(text: str) -> str:
    from xml.sax.saxutils import escape

    return escape("".join(char if char.isprintable() else "?" for char in text))
