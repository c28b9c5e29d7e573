"""Assembly source to statements: comments, labels, directives, macros and conditions, each with its file and line."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from .encode import PREFIXES
from .errors import AssemblyError
from .expression import Expression
from .operands import SourceOperand, parse

_LABEL: Final = re.compile(r"\s*([A-Za-z_.$][\w.$]*|[0-9]{1,9})\s*:(?!:)")
_NAME: Final = re.compile(r"[A-Za-z_.$][\w.$]*")
_MNEMONIC: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_CONDITIONS: Final = (".if", ".ifdef", ".ifndef", ".else", ".endif")
_MAX_MACRO_DEPTH: Final = 32
_MAX_LINES: Final = 200_000  # macros included: they can call each other without a statement coming of it
_MAX_LINE: Final = 4096  # characters: an argument can double with each call
_MAX_STATEMENTS: Final = 100_000
_DATA: Final = {
    **dict.fromkeys((".byte", ".word", ".2byte", ".short", ".long", ".int", ".4byte", ".quad", ".8byte"), (1, 4096)),
    **dict.fromkeys((".skip", ".zero", ".space", ".balign"), (1, 2)),
}
_STRINGS: Final = (".ascii", ".asciz", ".string")
_NASM_DATA: Final = {"db": ".byte", "dw": ".word", "dd": ".long", "dq": ".quad"}
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
        elif char == '"' or (char == "'" and line[at + 2 : at + 3] == "'") or line.startswith("'\\", at):
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
        elif char == '"' or (char == "'" and text[at + 1 : at + 2]):
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


def _first_word(text: str) -> tuple[str, str]:
    """The first word and the rest, both without the white space around them."""
    word, *rest = text.split(None, 1) or [""]
    return word, rest[0].strip() if rest else ""


def _require_nothing(word: str, rest: str) -> None:
    if rest:
        raise ValueError(f"{word} takes nothing behind it: {rest!r}")


class _Expander:
    def __init__(self, symbols: Mapping[str, int]) -> None:
        self.statements: list[Statement] = []
        self._constants = dict(symbols)
        self._macros: dict[str, _Macro] = {}
        self._open_macro: tuple[Location, str, _Macro] | None = None
        self._conditions: list[tuple[Location, bool, bool]] = []  # (where, taken now, whether there was an .else)
        self._lines = 0

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
        self._lines += 1
        if self._lines > _MAX_LINES or len(text) > _MAX_LINE:
            raise ValueError(f"more than {_MAX_LINES} lines, macros included, or more than {_MAX_LINE} characters in this one")
        word, rest = _first_word(text)
        word = word.lower()
        if self._open_macro is not None:
            self._macro_line(line, word, rest)
            return
        if word in _CONDITIONS:
            self._condition(line.location, word, rest)
            return
        if word.startswith((".if", ".else")):  # even where nothing is taken: its .endif would end another condition
            raise ValueError(f"unknown directive {word}: the conditions are {', '.join(_CONDITIONS)}")
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
        self._statement(line.location, text, *_first_word(text), depth)

    def _add(self, statement: Statement) -> None:
        if len(self.statements) >= _MAX_STATEMENTS:
            raise ValueError(f"more than {_MAX_STATEMENTS} statements")
        self.statements.append(statement)

    def _statement(self, location: Location, text: str, word: str, rest: str, depth: int) -> None:
        lowered = word.lower()
        if word in self._macros:
            self._call(location, word, rest, depth)
        elif lowered == ".macro":
            name, parameters = _first_word(rest)
            if not _NAME.fullmatch(name):
                raise ValueError(".macro needs a name")
            if name in self._macros:
                raise ValueError(f"the macro {name} is defined twice")
            names = tuple(part for part in re.split(r"[\s,]+", parameters) if part)
            if not all(map(_NAME.fullmatch, names)) or len(set(names)) != len(names):
                raise ValueError(f".macro {name} takes plain parameter names, each one once")
            self._open_macro = (location, name, _Macro(names, []))
        elif lowered in _MODES:
            _require_nothing(lowered, rest)
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
            if not all(map(_STRING.fullmatch, strings)):
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
            word, rest = _first_word(rest)
            if not word:
                raise ValueError(f"{prefix} needs an instruction behind it")
        if (ours := _NASM_DATA.get(word.lower())) is not None:
            raise ValueError(f"{word} is NASM's: write {ours} for numbers, .ascii or .asciz for text")
        if not _MNEMONIC.fullmatch(word):
            raise ValueError(f"cannot read the instruction {word!r}")
        operands = tuple(map(parse, split_list(rest))) if rest.strip() else ()
        self._add(Statement("instruction", location, text, word.lower(), prefix, operands))

    def _constant(self, location: Location, text: str, rest: str) -> None:
        name, _, value = rest.partition(",")
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise ValueError(".equ takes a name and a value: .equ NAME, 5")
        expression = Expression(value)
        with contextlib.suppress(KeyError):  # of a label: the passes compute it then, and no condition can use it
            self._constants[name] = expression.evaluate(self._constants.__getitem__)
        self._add(Statement("equ", location, text, name, expressions=(expression,)))

    def _condition(self, location: Location, word: str, rest: str) -> None:
        outer = all(taken for _, taken, _ in self._conditions)
        if word in (".if", ".ifdef", ".ifndef"):
            self._conditions.append((location, outer and self._decide(word, rest), False))
            return
        _require_nothing(word, rest)
        if not self._conditions:
            raise ValueError(f"{word} without .if")
        where, taken, has_else = self._conditions.pop()
        if word == ".else":
            if has_else:
                raise ValueError("a second .else")
            self._conditions.append((where, not taken, True))

    def _decide(self, word: str, rest: str) -> bool:
        if word == ".if":
            try:
                return bool(Expression(rest).evaluate(self._constants.__getitem__))
            except KeyError as error:
                raise ValueError(f".if needs constants: {error.args[0]} is none that is known here") from None
        if not _NAME.fullmatch(rest):
            raise ValueError(f"{word} takes a name")
        return (rest in self._constants) == (word == ".ifdef")

    def _macro_line(self, line: _Line, word: str, rest: str) -> None:
        assert self._open_macro is not None
        _, name, macro = self._open_macro
        if word == ".macro":
            raise ValueError("a macro cannot be defined in another")
        if word == ".endm":
            _require_nothing(word, rest)
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
