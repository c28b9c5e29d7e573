"""The front end of the assembler: files, labels, constants, macros, data and placement; errors and a listing by file and line.

The language is the part of GNU as's Intel syntax (`.intel_syntax noprefix`) that docs/assembly.md lists, so that GNU as is
an independent oracle for it. Source is expanded once (macros, conditions); then passes run until no label moves: a branch
starts short and becomes near when it does not reach, never the other way round, so they end.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from . import encode
from .errors import AssemblyError
from .expression import Expression, unescape
from .instruction import Instruction
from .operands import SourceImmediate, resolve
from .source import Location, Statement, Unit, expand

_MAX_PASSES: Final = 64
_MAX_BYTES: Final = 1 << 20  # of one program: what a wrong .skip may not exceed
_DATA_BYTES: Final = {".byte": 1, ".word": 2, ".2byte": 2, ".short": 2, ".long": 4, ".int": 4, ".4byte": 4, ".quad": 8, ".8byte": 8}


class ListingLine(NamedTuple):
    """What one source line became: its physical address, bytes, file name, line (from 1) and text."""

    address: int
    data: bytes
    file: str
    line: int
    text: str


class Assembly(NamedTuple):
    """A program: (address, bytes) pieces in source order, label and constant values, and the listing."""

    pieces: tuple[tuple[int, bytes], ...]
    labels: Mapping[str, int]
    constants: Mapping[str, int]
    listing: tuple[ListingLine, ...]


def assemble(units: Sequence[Unit], symbols: Mapping[str, int]) -> Assembly:
    """Assembles the units one behind the other, each at its `origin` or where the one before ended.

    `symbols` are the constants that the source may use. Raises AssemblyError, which names file and line.
    """
    program = _Program(expand(units, symbols), symbols)
    for _ in range(_MAX_PASSES):
        if program.run_pass():
            return program.result()
    raise AssemblyError(f"{units[0].name}: the labels still move after {_MAX_PASSES} passes: a size depends on itself")


def _is_numeric_reference(name: str) -> bool:
    return name[0].isdigit()


class _Program:
    def __init__(self, statements: Sequence[Statement], symbols: Mapping[str, int]) -> None:
        self._statements = statements
        self._symbols = symbols
        self._near: set[int] = set()  # statements whose branch has become near
        self._labels: dict[str, int] = {}  # as the pass before left them
        self._numeric: dict[int, list[tuple[int, int]]] = {}  # N -> [(statement, address)], likewise
        self._constants: dict[str, int] = {}
        self._undefined: AssemblyError | None = None
        self._listing: list[ListingLine] = []
        self._pieces: list[tuple[int, bytes]] = []
        self._first_pass = True

    def run_pass(self) -> bool:
        """One walk over the program; True when no label moved and every branch reached."""
        labels: dict[str, int] = {}
        numeric: dict[int, list[tuple[int, int]]] = {}
        grown = len(self._near)
        self._constants = dict(self._symbols)
        self._listing, self._pieces = [], []
        self._undefined = None
        address, mode, total = 0, 0, 0
        for index, statement in enumerate(self._statements):
            where = statement.location
            self._here = (index, address)
            data = b""
            match statement.kind:
                case "origin":
                    (origin,) = statement.expressions
                    address = origin.evaluate(lambda name: 0)
                case "label" if statement.name.isdigit():
                    numeric.setdefault(int(statement.name), []).append((index, address))
                case "label":
                    if statement.name in labels or statement.name in self._symbols:
                        raise where.error(f"{statement.name} is defined twice")
                    labels[statement.name] = address
                case "mode":
                    mode = int(statement.name)
                case "equ":
                    if statement.name in self._constants or statement.name in labels:
                        raise where.error(f"{statement.name} is defined twice")
                    self._constants[statement.name] = self._evaluate(statement, statement.expressions[0])
                case "instruction":
                    if not mode:
                        raise where.error("say .code16, .code32 or .code64 before the first instruction")
                    data = self._instruction(statement, index, mode, address)
                case "data":
                    data = self._data(statement, address, _MAX_BYTES - total)
            if data:
                total += len(data)
                self._listing.append(ListingLine(address, data, where.file, where.line, statement.text))
                self._pieces.append((address, data))
                address += len(data)
        settled = labels == self._labels and numeric == self._numeric and grown == len(self._near)
        self._labels, self._numeric = labels, numeric
        if self._undefined is not None and not self._first_pass:
            raise self._undefined
        self._first_pass = False
        return settled

    def result(self) -> Assembly:
        named = {name: value for name, value in self._constants.items() if name not in self._symbols}
        return Assembly(tuple(self._pieces), dict(self._labels), named, tuple(self._listing))

    def _lookup(self, name: str, location: Location) -> int:
        index, address = self._here
        if name == ".":
            return address
        if name in self._constants:
            return self._constants[name]
        if _is_numeric_reference(name):
            places = self._numeric.get(int(name[:-1]), [])
            near = [place for at, place in places if (at > index) == (name[-1] == "f")]
            if near:
                return near[0] if name[-1] == "f" else near[-1]
        elif name in self._labels:
            return self._labels[name]
        # In the first pass a label ahead is not known yet; the place where it is used is a first guess at it.
        self._undefined = self._undefined or location.error(f"{name} is not defined")
        return address

    def _evaluate(self, statement: Statement, expression: Expression) -> int:
        try:
            return expression.evaluate(lambda name: self._lookup(name, statement.location))
        except ValueError as error:
            raise statement.location.error(str(error)) from None

    def _instruction(self, statement: Statement, index: int, mode: int, address: int) -> bytes:
        for operand in statement.operands:
            if isinstance(operand, SourceImmediate):
                self._require_meaning(statement, operand)
        operands = tuple(
            resolve(operand, lambda expression: self._evaluate(statement, expression)) for operand in statement.operands
        )
        instruction = Instruction(mode, statement.prefix, statement.name, operands)
        try:
            try:
                return encode.encode(instruction, address, index in self._near)
            except encode.Unreachable:
                self._near.add(index)
                return encode.encode(instruction, address, near=True)
        except ValueError as error:
            if self._first_pass and self._undefined is not None:
                return b"\x90"  # a guess does not fit; the next pass knows the label
            raise statement.location.error(str(error)) from None

    def _require_meaning(self, statement: Statement, operand: SourceImmediate) -> None:
        """A bare label is an address to a branch, and ambiguous elsewhere: GNU as would load from it."""
        name = operand.expression.sole_name
        if name is None or operand.is_offset or statement.name in encode.BRANCHES or statement.name == "ljmp":
            return
        if name in self._labels:
            raise statement.location.error(f"write `offset {name}` for the address of {name}, `[{name}]` for what lies there")

    def _data(self, statement: Statement, address: int, room: int) -> bytes:
        values = [self._evaluate(statement, expression) for expression in statement.expressions]
        where = statement.location
        if statement.name in _DATA_BYTES:
            width = _DATA_BYTES[statement.name]
            out = bytearray()
            for value in values:
                if not -(1 << 8 * width - 1) <= value < 1 << 8 * width and not self._first_pass:
                    raise where.error(f"{value:#x} does not fit into {width} byte{'s' if width > 1 else ''}")
                out += (value & (1 << 8 * width) - 1).to_bytes(width, "little")
            return bytes(out)
        if statement.name in (".ascii", ".asciz", ".string"):
            end = b"" if statement.name == ".ascii" else b"\0"
            try:
                return b"".join(unescape(string) + end for string in statement.strings)
            except ValueError as error:
                raise where.error(str(error)) from None
        fill = values[1] if len(values) > 1 else 0
        if not 0 <= fill <= 0xFF:
            raise where.error(f"the fill {fill:#x} is no byte")
        if statement.name == ".balign":
            if values[0] < 1 or values[0] & (values[0] - 1):
                raise where.error(f"the alignment {values[0]} is no power of two")
            count = -address % values[0]
        else:
            count = values[0]
        if not 0 <= count <= room:
            raise where.error(f"{count} bytes of fill: there is room for {room}")
        return bytes([fill]) * count
