"""Integer expressions of the assembly source, with the operators and the precedence of GNU as.

From the tightest: `* / % << >>`, then `| & ^`, then `+ -`, then the comparisons (1 if true, else 0). Unlike in C, `|` and
`&` bind tighter than `+`.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d\w*)|(?P<name>[A-Za-z_.$][\w.$]*)|(?P<char>'(?:\\.|[^\\'])')|(?P<op><<|>>|==|!=|<=|>=|[-+*/%|&^~()<>]))"
)
_NUMERIC_LABEL: Final = re.compile(r"\d+[bf]")
_ESCAPES: Final = {"n": 10, "r": 13, "t": 9, "0": 0, "\\": 92, "'": 39, '"': 34}


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    return a % b


def _shift(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise ValueError(f"shift count {b} is not between 0 and 63")
    return a << b


_LEVELS: Final[tuple[dict[str, Callable[[int, int], int]], ...]] = (
    {
        "==": lambda a, b: int(a == b),
        "!=": lambda a, b: int(a != b),
        "<": lambda a, b: int(a < b),
        ">": lambda a, b: int(a > b),
        "<=": lambda a, b: int(a <= b),
        ">=": lambda a, b: int(a >= b),
    },
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"|": lambda a, b: a | b, "&": lambda a, b: a & b, "^": lambda a, b: a ^ b},
    {
        "*": lambda a, b: a * b,
        "/": _divide,
        "%": _modulo,
        "<<": _shift,
        ">>": lambda a, b: a >> _shift(1, b).bit_length() - 1,
    },
)


class _Token(NamedTuple):
    kind: str
    text: str


def number(text: str) -> int:
    """A literal: decimal, 0x… or 0b…; ValueError for anything else, a leading zero (octal elsewhere) included."""
    lowered = text.lower()
    try:
        if lowered.startswith("0x"):
            return int(lowered[2:], 16)
        if lowered.startswith("0b"):
            return int(lowered[2:], 2)
        if len(lowered) > 1 and lowered[0] == "0":
            raise ValueError
        return int(lowered, 10)
    except ValueError:
        raise ValueError(f"{text!r} is no number: write 10, 0x0a or 0b1010") from None


def unescape(text: str) -> bytes:
    """The bytes of a quoted string's inside; ValueError for an escape that is not known."""
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
        elif at + 1 < len(text) and text[at + 1] in _ESCAPES:
            out.append(_ESCAPES[text[at + 1]])
            at += 2
        else:
            raise ValueError(f"unknown escape {text[at : at + 2]!r}")
    return bytes(out)


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    stripped = text.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise ValueError(f"cannot read {stripped[at:].strip()!r} in the expression {text.strip()!r}")
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match.group(kind)))
        at = match.end()
    return tokens


class Expression:
    """A parsed expression: parsed once, evaluated in every pass."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self._tokens = _tokens(text)
        if not self._tokens:
            raise ValueError("an expression is missing")

    @property
    def names(self) -> tuple[str, ...]:
        """The symbols that it mentions, `1b` and `1f` included."""
        return tuple(
            token.text
            for token in self._tokens
            if token.kind == "name" or token.kind == "number" and _NUMERIC_LABEL.fullmatch(token.text)
        )

    @property
    def sole_name(self) -> str | None:
        """The symbol, where the expression is nothing but a symbol plus or minus something."""
        first = self._tokens[0]
        return first.text if first.kind == "name" and len(self.names) == 1 else None

    def evaluate(self, lookup: Callable[[str], int]) -> int:
        """Its value; ValueError for a syntax error, and what `lookup` raises for a symbol that it does not know."""
        at = 0
        tokens = self._tokens

        def binary(level: int) -> int:
            nonlocal at
            if level == len(_LEVELS):
                return unary()
            value = binary(level + 1)
            while at < len(tokens) and tokens[at].kind == "op" and tokens[at].text in _LEVELS[level]:
                operator = _LEVELS[level][tokens[at].text]
                at += 1
                value = operator(value, binary(level + 1))
            return value

        def unary() -> int:
            nonlocal at
            if at == len(tokens):
                raise ValueError(f"the expression {self.text!r} ends too early")
            token = tokens[at]
            at += 1
            match token.kind:
                case "number":
                    return lookup(token.text) if _NUMERIC_LABEL.fullmatch(token.text) else number(token.text)
                case "name":
                    return lookup(token.text)
                case "char":
                    return unescape(token.text[1:-1])[0]
            match token.text:
                case "-":
                    return -unary()
                case "+":
                    return unary()
                case "~":
                    return ~unary()
                case "(":
                    value = binary(0)
                    if at == len(tokens) or tokens[at].text != ")":
                        raise ValueError(f"a ) is missing in {self.text!r}")
                    at += 1
                    return value
            raise ValueError(f"unexpected {token.text!r} in {self.text!r}")

        value = binary(0)
        if at != len(tokens):
            raise ValueError(f"unexpected {tokens[at].text!r} in {self.text!r}")
        return value
