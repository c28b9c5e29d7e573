"""Markdown, written by programs."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

# A page has `<!-- generated: NAME ARGUMENT -->`, what was generated, and `<!-- end of generated -->`.
_BLOCK = re.compile(r"(<!-- generated: (\S+)(?: ([^\n]+?))? -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def cell(text: str) -> str:
    """Of a table: one line, in which a bar is no border."""
    return " ".join(text.split()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """With a head; the cells are Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(map(cell, line))} |") for line in lines)


def code(text: str) -> str:
    """As code within a line."""
    return f"`{text}`"


def block(lines: Iterable[str]) -> str:
    """Lines of code or a drawing, that nobody types and no program prints."""
    return "\n".join(f"    {line}".rstrip() for line in lines)


def filled(page: str, generators: Mapping[str, Callable[[str], str]]) -> str:
    """The text of a page with its blocks made anew; KeyError for one that nobody makes."""

    def made(match: re.Match[str]) -> str:
        text = generators[match[2]](match[3] or "").strip("\n")  # not its indent: that makes a block of code
        return f"{match[1]}\n{text}\n\n{match[4]}"

    return _BLOCK.sub(made, page)
