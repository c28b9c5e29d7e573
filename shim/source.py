"""Assembly source to statements: comments, labels, directives, macros and conditions, each with the file and line it is from."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from .encode import PREFIXES
from .errors import AssemblyError
from .expression import Expression
from .operands import SourceOperand, parse

_LABEL: Final = re.compile(r"\s*([A-Za-z_.$][\w.$]*|\d+)\s*:(?!:)")
_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*")
_MAX_MACRO_DEPTH: Final = 32
_MAX_STATEMENTS: Final = 100_000
_DATA: Final = {
    **dict.fromkeys((".byte", ".word", ".2byte", ".short", ".long", ".int", ".4byte", ".quad", ".8byte"), (1, 4096)),
    **dict.fromkeys((".skip", ".zero", ".space", ".balign"), (1, 2)),
}
_STRINGS: Final = (".ascii", ".asciz", ".string")
_MODES: Final = {".code16": "16", ".code32": "32", ".code64": "64"}


class Unit(NamedTuple):
    """A source file: its name for messages, its text, and the physical address that it starts at (None: goes on)."""

    name: str
    text: str
    origin: int | None = None


class Location(NamedTuple):
    """A line of a source file; lines count from 1."""

    file: str
    line: int

    def error(self, message: str) -> AssemblyError:
        """An error about this line."""
        return AssemblyError(f"{self.file}:{self.line}: {message}")


class Statement(NamedTuple):
    """One thing to assemble. `kind` is origin, label, mode, equ, data or instruction; the other fields go with it."""

    kind: str
    location: Location
    text: str
    name: str = ""
    prefix: str = ""
    operands: tuple[SourceOperand, ...] = ()
    expressions: tuple[Expression, ...] = ()
    strings: tuple[str, ...] = ()


class _Line(NamedTuple):
    location: Location
    text: str


class _Macro(NamedTuple):
    parameters: tuple[str, ...]
    body: list[_Line]


def expand(units: Sequence[Unit], symbols: Mapping[str, int]) -> list[Statement]:
    """The statements of all units, macros expanded and conditions decided by `symbols` and the constants before them."""
    expander = _Expander(symbols)
    for unit in units:
        start = Location(unit.name, 1)
        if unit.origin is not None:
            expander.statements.append(Statement("origin", start, "", expressions=(Expression(f"{unit.origin:#x}"),)))
        lines = [
            _Line(Location(unit.name, number), strip_comment(line)) for number, line in enumerate(unit.text.split("\n"), 1)
        ]
        expander.run(lines, 0)
        expander.finish()
    return expander.statements


def strip_comment(line: str) -> str:
    """The line without what follows `#` or `//` outside of quotes."""
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        if quote:
            at += char == "\\"
            if char == quote:
                quote = ""
        elif char == '"' or char == "'" and line[at + 2 : at + 3] == "'" or line.startswith("'\\", at):
            quote = char
        elif char == "#" or line.startswith("//", at):
            return line[:at].rstrip()
        at += 1
    return line.rstrip()


def split_list(text: str) -> list[str]:
    """The parts between the commas that stand outside of quotes, brackets and parentheses."""
    parts: list[str] = []
    depth, quote, part = 0, "", ""
    at = 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                part += char
                at += 1
                char = text[at : at + 1]
            elif char == quote:
                quote = ""
        elif char == '"' or char == "'" and text[at + 1 : at + 2]:
            quote = char
        elif char in "[(":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(part.strip())
            part = ""
            at += 1
            continue
        part += char
        at += 1
    parts.append(part.strip())
    return parts


class _Expander:
    def __init__(self, symbols: Mapping[str, int]) -> None:
        self.statements: list[Statement] = []
        self._constants = dict(symbols)
        self._macros: dict[str, _Macro] = {}
        self._open_macro: tuple[Location, str, _Macro] | None = None
        self._conditions: list[tuple[Location, bool, bool]] = []  # (where, taken now, any branch taken so far)

    def run(self, lines: Sequence[_Line], depth: int) -> None:
        for line in lines:
            try:
                self._line(line, depth)
            except ValueError as error:
                raise line.location.error(str(error)) from None

    def finish(self) -> None:
        """A file ends: nothing may be left open."""
        if self._open_macro is not None:
            raise self._open_macro[0].error(".macro without .endm")
        if self._conditions:
            raise self._conditions[-1][0].error(".if without .endif")

    def _line(self, line: _Line, depth: int) -> None:
        text = line.text
        word, _, rest = text.strip().partition(" ")
        word, rest = word.lower().strip(), rest.strip()
        if self._open_macro is not None:
            self._macro_line(line, word)
            return
        if word in (".if", ".ifdef", ".ifndef", ".else", ".endif"):
            self._condition(line.location, word, rest)
            return
        if not all(taken for _, taken, _ in self._conditions):
            return
        while match := _LABEL.match(text):
            self._add(Statement("label", line.location, "", match.group(1)))
            text = text[match.end() :]
        text = text.strip()
        if not text:
            return
        if ";" in text and '"' not in text and "'" not in text:
            raise ValueError("a comment starts with #, and each instruction has a line of its own: `;` is neither")
        word, _, rest = text.replace("\t", " ").partition(" ")
        self._statement(line.location, text, word, rest.strip(), depth)

    def _add(self, statement: Statement) -> None:
        if len(self.statements) >= _MAX_STATEMENTS:
            raise ValueError(f"more than {_MAX_STATEMENTS} statements")
        self.statements.append(statement)

    def _statement(self, location: Location, text: str, word: str, rest: str, depth: int) -> None:
        lowered = word.lower()
        if word in self._macros:
            self._call(location, word, rest, depth)
        elif lowered == ".macro":
            name, _, parameters = rest.partition(" ")
            if not _NAME.fullmatch(name):
                raise ValueError(".macro needs a name")
            names = tuple(part for part in re.split(r"[\s,]+", parameters) if part)
            self._open_macro = (location, name, _Macro(names, []))
        elif lowered in _MODES:
            self._add(Statement("mode", location, text, _MODES[lowered]))
        elif lowered in (".equ", ".set"):
            self._constant(location, text, rest)
        elif lowered in _DATA:
            least, most = _DATA[lowered]
            parts = split_list(rest)
            if not least <= len(parts) <= most or not parts[0]:
                raise ValueError(f"{lowered} takes {least} to {most} values")
            self._add(Statement("data", location, text, lowered, expressions=tuple(map(Expression, parts))))
        elif lowered in _STRINGS:
            strings = split_list(rest)
            if not all(len(part) >= 2 and part[0] == part[-1] == '"' for part in strings):
                raise ValueError(f'{lowered} takes strings: "…"')
            self._add(Statement("data", location, text, lowered, strings=tuple(part[1:-1] for part in strings)))
        elif lowered.startswith("."):
            raise ValueError(f"unknown directive {word}")
        else:
            self._instruction(location, text, word, rest)

    def _instruction(self, location: Location, text: str, word: str, rest: str) -> None:
        prefix = ""
        if word.lower() in PREFIXES:
            prefix = word.lower()
            word, _, rest = rest.partition(" ")
            if not word:
                raise ValueError(f"{prefix} needs an instruction behind it")
        operands = tuple(map(parse, split_list(rest))) if rest.strip() else ()
        self._add(Statement("instruction", location, text, word.lower(), prefix, operands))

    def _constant(self, location: Location, text: str, rest: str) -> None:
        name, _, value = rest.partition(",")
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise ValueError(".equ takes a name and a value: .equ NAME, 5")
        expression = Expression(value)
        try:
            self._constants[name] = expression.evaluate(self._constants.__getitem__)
        except KeyError:
            pass  # it depends on a label: the passes compute it, and no condition can use it
        self._add(Statement("equ", location, text, name, expressions=(expression,)))

    def _condition(self, location: Location, word: str, rest: str) -> None:
        outer = all(taken for _, taken, _ in self._conditions)
        if word in (".if", ".ifdef", ".ifndef"):
            taken = outer and self._decide(word, rest)
            self._conditions.append((location, taken, taken))
            return
        if not self._conditions:
            raise ValueError(f"{word} without .if")
        where, _, before = self._conditions.pop()
        if word == ".else":
            self._conditions.append((where, not before, True))

    def _decide(self, word: str, rest: str) -> bool:
        if word == ".if":
            try:
                return bool(Expression(rest).evaluate(self._constants.__getitem__))
            except KeyError as error:
                raise ValueError(f".if needs constants: {error.args[0]} is none that is known here") from None
        return (rest in self._constants) == (word == ".ifdef")

    def _macro_line(self, line: _Line, word: str) -> None:
        assert self._open_macro is not None
        _, name, macro = self._open_macro
        if word == ".macro":
            raise ValueError("a macro cannot be defined in another")
        if word == ".endm":
            self._macros[name] = macro
            self._open_macro = None
        else:
            macro.body.append(line)

    def _call(self, location: Location, name: str, rest: str, depth: int) -> None:
        macro = self._macros[name]
        arguments = split_list(rest) if rest else []
        if len(arguments) != len(macro.parameters):
            raise ValueError(f"{name} takes {len(macro.parameters)} arguments, not {len(arguments)}")
        if depth >= _MAX_MACRO_DEPTH:
            raise ValueError(f"macro {name}: more than {_MAX_MACRO_DEPTH} calls inside each other")
        values = dict(zip(macro.parameters, arguments, strict=True))

        def argument(match: re.Match[str]) -> str:
            if match.group(1) not in values:
                raise ValueError(f"macro {name} has no parameter {match.group(1)}")
            return values[match.group(1)]

        # An error or a listing line speaks of the line of the call: that is where its reader looks first.
        body = [_Line(location, re.sub(r"\\(\w+)", argument, line.text)) for line in macro.body]
        self.run(body, depth + 1)
