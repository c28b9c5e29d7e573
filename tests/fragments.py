"""Reads the HTML that a value draws itself with: strictly, as no browser would."""

from collections.abc import Iterator
from html.parser import HTMLParser

VOID = {"br", "wbr"}


class _Strict(HTMLParser):
    """Balanced elements, no attribute twice, nothing loose: what browsers mend in silence is an AssertionError."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        raise AssertionError(f"{tag} closes itself: HTML has no such thing ({attrs})")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        assert self.open or not data.strip(), f"text outside of all elements: {data!r}"
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")


class Fragment:
    """What one output consists of."""

    def __init__(self, html: str) -> None:
        parser = _Strict()
        parser.feed(html)
        parser.close()
        assert not parser.open, f"not closed: {parser.open}"
        self.elements = parser.elements
        self.text = " ".join(" ".join(parser.texts).split())

    def all(self, tag: str) -> Iterator[dict[str, str]]:
        """The attributes of each of these elements."""
        return (attributes for name, attributes in self.elements if name == tag)

    @property
    def titles(self) -> list[str]:
        """What is said where the pointer rests."""
        return [attributes["title"] for _, attributes in self.elements if "title" in attributes]
