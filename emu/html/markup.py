"""HTML from Python's values: whatever is not made here is text, and is escaped."""

from collections.abc import Iterable
from html import escape
from typing import Final

from pvhboot.loader.printable import one_line

_PREFIX: Final = "pvhb"  # of every class, so that no style of ours is anybody else's
_VOID: Final = ("br", "wbr")


class Markup(str):
    """HTML: it is not escaped once more."""

    __slots__ = ()


def text(value: str | int) -> Markup:
    """A value as HTML, on one line: what cannot be seen, or would turn the line around, is written as Python does. Markup stays
    as it is."""
    return value if isinstance(value, Markup) else Markup(escape(one_line(str(value))))


def element(name: str, *content: str | int, classes: str = "", **attributes: str | int | None) -> Markup:
    """An element around texts and other elements. `classes` get our prefix; an attribute that is None is left out."""
    classes = " ".join(f"{_PREFIX}-{word}" for word in classes.split())
    named = {"class": classes or None, **attributes}
    head = "".join(f' {key}="{escape(one_line(str(value)))}"' for key, value in named.items() if value is not None)
    if name in _VOID:
        return Markup(f"<{name}{head}>")
    return Markup(f"<{name}{head}>{''.join(map(text, content))}</{name}>")


def code(value: str | int, *, title: str | None = None) -> Markup:
    """A number or an instruction, as they stand in a terminal."""
    return element("code", value, title=title)


def joined(parts: Iterable[str], separator: str = " ") -> Markup:
    """Parts one after the other."""
    return Markup(text(separator).join(map(text, parts)))


def table(caption: str, columns: Iterable[str], rows: Iterable[Markup], classes: str = "") -> Markup:
    """A table with a caption and a head of columns; its rows are `row`s. One that is too wide is scrolled, by keys as well."""
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    whole = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", *rows),
        classes=classes,
    )
    return element("div", whole, classes="wide", role="region", tabindex="0", **{"aria-label": caption})


def row(first: str | int, *cells: str | int, classes: str = "") -> Markup:
    """A row with the cell that names it, and the others; those that are `element("td", …)` already stay as they are."""
    others = (cell if isinstance(cell, Markup) and cell.startswith("<td") else element("td", cell) for cell in cells)
    return element("tr", element("th", first, scope="row"), *others, classes=classes)


def folded(title: str, *content: str | int, is_open: bool = False) -> Markup:
    """What is shown at a click, or at once."""
    return element("details", element("summary", title), *content, open="" if is_open else None)


def fragment(title: str, *content: str | int) -> str:
    """All of one output, with its style."""
    from .style import STYLE

    return element("section", element("style", Markup(STYLE)), *content, classes="output", **{"aria-label": title})
