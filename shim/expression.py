"""Integer expressions of the assembly source, with the operators and the precedence of GNU as.

From the tightest: `* / % << >>`, then `| & ^`, then `+ -`, then the comparisons (-1 if true, else 0). Unlike in C, `|` and
`&` bind tighter than `+`. `/` and `%` round towards zero, `>>` shifts zeros into a negative number of 64 bits. A value
beyond 64 bits, which GNU as would wrap, is an error.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d\w*)|(?P<name>[A-Za-z_.$][\w.$]*)|(?P<char>'(?:\\.|[^\\'])')|(?P<op><<|>>|==|!=|<=|>=|[-+*/%|&^~()<>]))"
)
_NUMERIC_LABEL: Final = re.compile(r"\d+[bf]")
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|0b[01]+|0|[1-9][0-9]*")
_MAX_NESTING: Final = 32
_MASK64: Final = (1 << 64) - 1
_ESCAPES: Final = {"n": 10, "r": 13, "t": 9, "0": 0, "\\": 92, "'": 39, '"': 34}


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise ValueError("division by zero")
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _modulo(a: int, b: int) -> int:
    return a - b * _divide(a, b)


def _shift_left(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise ValueError(f"shift count {b} is not between 0 and 63")
    return a << b


def _shift_right(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise ValueError(f"shift count {b} is not between 0 and 63")
    return (a & _MASK64 if a < 0 else a) >> b


def _bounded(value: int) -> int:
    if not -(1 << 63) <= value <= _MASK64:
        raise ValueError("a number of the expression does not fit into 64 bits")
    return value


_LEVELS: Final[tuple[dict[str, Callable[[int, int], int]], ...]] = (
    {
        "==": lambda a, b: -(a == b),
        "!=": lambda a, b: -(a != b),
        "<": lambda a, b: -(a < b),
        ">": lambda a, b: -(a > b),
        "<=": lambda a, b: -(a <= b),
        ">=": lambda a, b: -(a >= b),
    },
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"|": lambda a, b: a | b, "&": lambda a, b: a & b, "^": lambda a, b: a ^ b},
    {
        "*": lambda a, b: a * b,
        "/": _divide,
        "%": _modulo,
        "<<": _shift_left,
        ">>": _shift_right,
    },
)


class _Token(NamedTuple):
    kind: str
    text: str


def number(text: str) -> int:
    """A literal: decimal, 0x… or 0b…; ValueError for anything else, a leading zero (octal elsewhere) included."""
    lowered = text.lower()
    if not _NUMBER.fullmatch(lowered):
        raise ValueError(f"{text!r} is no number: write 10, 0x0a or 0b1010")
    if len(lowered) > 66:  # the longest of 64 bits is a binary one
        raise ValueError(f"{text[:16]}… does not fit into 64 bits")
    return _bounded(int(lowered, 0))


def unescape(text: str) -> bytes:
    """The bytes of a quoted string's inside; ValueError for an escape that is not known."""
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out += text[at].encode()
            at += 1
        elif text[at + 1 : at + 2] == "0" and text[at + 2 : at + 3].isdigit():
            raise ValueError(f"octal escapes are not taken: {text[at : at + 3]!r}")
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

    def evaluate(self, lookup: Callable[[str], int]) -> int:
        """Its value; ValueError for a syntax error, and what `lookup` raises for a symbol that it does not know."""
        at, nesting = 0, 0
        tokens = self._tokens

        def binary(level: int) -> int:
            nonlocal at
            if level == len(_LEVELS):
                return unary()
            value = binary(level + 1)
            while at < len(tokens) and tokens[at].kind == "op" and tokens[at].text in _LEVELS[level]:
                operator = _LEVELS[level][tokens[at].text]
                at += 1
                value = _bounded(operator(value, binary(level + 1)))
            return value

        def unary() -> int:
            nonlocal nesting
            if nesting == _MAX_NESTING:
                raise ValueError(f"more than {_MAX_NESTING} signs and parentheses inside each other")
            nesting += 1
            value = _bounded(primary())
            nesting -= 1
            return value

        def primary() -> int:
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
                    char = unescape(token.text[1:-1])
                    if len(char) != 1:
                        raise ValueError(f"{token.text} is more than one byte")
                    return char[0]
            match token.text:
                case "-":
                    return -unary()
                case "+":
                    return unary()
                case "~":
                    value = unary()
                    return ~value if value < 1 << 63 else value ^ _MASK64
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
