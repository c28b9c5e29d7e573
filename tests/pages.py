"""Reads a page of the documentation: its blocks of code, and what the HTML comments in front of them say.

docs/contributing.md has the rules; `page_of` finds what breaks them.
"""

import re
from pathlib import Path
from typing import NamedTuple

SESSION, SHELL, PYTHON, TESTS, FILE, EXCERPT, STILL, EXCUSED = (
    "session",
    "shell",
    "python",
    "tests",
    "file",
    "excerpt",
    "still",
    "excused",
)
STILL_LANGUAGES = ("asm", "c", "diff", "ini", "json", "toml", "yaml")  # shown, never run
STATUS, VARY, WRITE, NOT_RUN, ABOVE, SILENT = "status", "numbers vary", "file", "not run", "printed above", "no output"
SHORTEST_EXCUSE = 3  # words

_FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")
_NOTE = re.compile(rf" *<!-- ({STATUS}|{VARY}|{WRITE}|{NOT_RUN}|{ABOVE}|{SILENT})\b[: ]*(.*?) *-->")
_COMMENT = re.compile(r" *<!--.*-->")
_FORMS = {
    STATUS: re.compile(r"\d+( \d+)*"),
    WRITE: re.compile(r"(?!/)(?!.*\.\.)\S+"),
    NOT_RUN: re.compile(rf"\S+( \S+){{{SHORTEST_EXCUSE - 1},}}"),
}
_NOTHING = re.compile("")
_TEST = re.compile(r"^\s*def test_|^@pytest\.fixture", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: where it begins, its language, its text, and by note what the comments in front of it say."""

    line: int
    language: str
    text: str
    notes: dict[str, str]

    @property
    def kind(self) -> str | None:
        """What is to be done with it; None if nobody can know."""
        for note, kind in ((WRITE, FILE), (NOT_RUN, EXCUSED)):
            if note in self.notes:
                return kind
        if self.language == "python":
            return TESTS if _TEST.search(self.text) else PYTHON
        if self.language == "sh":
            return SHELL
        if self.language in STILL_LANGUAGES:
            return STILL
        if self.language:
            return None
        if self.text.startswith("$ "):
            return SESSION
        return EXCERPT if ABOVE in self.notes else STILL if SILENT in self.notes else None


class Page(NamedTuple):
    """A page's blocks from top to bottom, and what is wrong with them, a line each."""

    name: str
    blocks: list[Block]
    problems: list[str]

    @property
    def commands(self) -> str:
        """The text of all that is run."""
        return "".join(block.text for block in self.blocks if block.kind in (SESSION, SHELL, PYTHON, TESTS))

    @property
    def excuses(self) -> list[str]:
        """The blocks that are not run, each with its place and reason."""
        return [f"{self.name}:{block.line}: {block.notes[NOT_RUN]}" for block in self.blocks if block.kind == EXCUSED]


def page_of(path: Path, name: str) -> Page:
    """Reads a page."""
    blocks: list[Block] = []
    problems: list[str] = []
    notes: dict[str, str] = {}
    lines = path.read_text().splitlines()
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if found := _NOTE.fullmatch(line):
            notes[found[1]] = found[2]
            if not _FORMS.get(found[1], _NOTHING).fullmatch(found[2]):
                problems.append(f"{name}:{number}: not understood: {line.strip()}")
        elif fence := _FENCE.fullmatch(line):
            indent, marks, language = fence.groups()
            body = []
            while at < len(lines) and lines[at].strip() != marks:
                body.append(lines[at].removeprefix(indent))
                at += 1
            if at == len(lines):
                problems.append(f"{name}:{number}: the block does not end")
            at += 1
            block = Block(number, language, "".join(f"{each}\n" for each in body), notes)
            blocks.append(block)
            problems += [f"{name}:{number}: {problem}" for problem in _problems(block)]
            notes = {}
        elif notes:
            problems.append(f"{name}:{number - 1}: a comment that says something of a block, and no block follows")
            notes = {}
        elif _COMMENT.fullmatch(line) and at < len(lines) and _FENCE.fullmatch(lines[at]):
            problems.append(f"{name}:{number}: not understood: {line.strip()}")
    return Page(name, blocks, problems)


def _problems(block: Block) -> list[str]:
    """What is wrong with a block by itself."""
    if block.kind is None and block.language:
        return [f"a block of an unknown kind: {block.language}"]
    if block.kind is None:
        return ["a block without a command must say whether it was printed above, or is no output"]
    allowed = {
        SESSION: {STATUS, VARY},
        SHELL: {STATUS},
        EXCERPT: {ABOVE, VARY},
        STILL: {SILENT},
        FILE: {WRITE},
        EXCUSED: {NOT_RUN},
    }
    return [f"says nothing here: {note}" for note in block.notes.keys() - allowed.get(block.kind, set())]
