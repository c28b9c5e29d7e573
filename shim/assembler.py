"""The front end of the assembler: files, labels, constants, macros, data and placement; errors and a listing by file and line.

The language is the part of GNU as's Intel syntax (`.intel_syntax noprefix`) that docs/firmware.md lists, so that GNU as is
an independent oracle for it. Source is expanded once (macros, conditions); then passes run until no label moves: a branch
starts short and becomes near when it does not reach, never the other way round, so they end.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from . import encode
from .errors import AssemblyError
from .expression import Expression, unescape
from .instruction import Instruction, require_fit
from .listing import ListingLine
from .operands import REGISTER_BYTES, SourceImmediate, resolve
from .source import Location, Statement, Unit, expand

_MAX_PASSES: Final = 512  # a chain of branches, each of which makes the one before it grow, takes a pass for each
_MAX_BYTES: Final = 1 << 20  # of one program: what a wrong .skip may not exceed
_DATA_BYTES: Final = {
    **dict.fromkeys((".byte",), 1),
    **dict.fromkeys((".word", ".2byte", ".short"), 2),
    **dict.fromkeys((".long", ".int", ".4byte"), 4),
    **dict.fromkeys((".quad", ".8byte"), 8),
}
_ELSEWHERE: Final = 1 << 32  # how far a program is moved to see which values move with it


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
    raise program.problem or AssemblyError(
        f"{units[0].name}: the labels still move after {_MAX_PASSES} passes: a size depends on itself"
    )


def _is_numeric_reference(name: str) -> bool:
    return name[0].isdigit()


class _Program:
    def __init__(self, statements: Sequence[Statement], symbols: Mapping[str, int]) -> None:
        self._statements = statements
        self._symbols = symbols
        self._near: set[int] = set()  # statements whose branch has become near
        # Where each statement lies and what each label is, as the pass before found them and as this one does.
        self._addresses_before: list[int] = []
        self._addresses: list[int] = []
        self._labels_before: dict[str, int] = {}
        self._labels: dict[str, int] = {}
        self._numeric: dict[int, list[int]] = {}  # N -> the statements that are the label N
        for index, statement in enumerate(statements):
            if statement.kind == "label" and statement.name.isdigit():
                self._numeric.setdefault(int(statement.name), []).append(index)
        self._constants: dict[str, int] = {}
        self._moving: set[str] = set()  # constants that are addresses
        self._listing: list[ListingLine] = []
        self._pieces: list[tuple[int, bytes]] = []
        self.problem: AssemblyError | None = None  # the first of this pass: it counts once all addresses are right

    def run_pass(self) -> bool:
        """One walk over the program; True when nothing moved and every branch reached. AssemblyError if that is wrong."""
        self._addresses_before, self._addresses = self._addresses, []
        self._labels_before, self._labels = self._labels, {}
        self._constants, self._moving = dict(self._symbols), set()
        self._listing, self._pieces = [], []
        self.problem = None
        grown = len(self._near)
        address, mode, total = 0, 0, 0
        for statement in self._statements:
            where = statement.location
            self._addresses.append(address)
            data = b""
            match statement.kind:
                case "origin":
                    address = self._evaluate(statement, statement.expressions[0])
                case "label" if not statement.name.isdigit():
                    self._require_new(statement)
                    self._labels[statement.name] = address
                case "mode":
                    mode = int(statement.name)
                case "equ":
                    self._require_new(statement)
                    self._constant(statement)
                case "instruction":
                    if not mode:
                        raise where.error("say .code16, .code32 or .code64 before the first instruction")
                    data = self._instruction(statement, mode, address)
                case "data":
                    data = self._data(statement, address, _MAX_BYTES - total)
            if data:
                total += len(data)
                self._listing.append(ListingLine(address, data, where.file, where.line, statement.text))
                self._pieces.append((address, data))
                address += len(data)
        settled = self._addresses == self._addresses_before and grown == len(self._near)
        if settled and self.problem is not None:
            raise self.problem
        return settled

    def result(self) -> Assembly:
        named = {name: value for name, value in self._constants.items() if name not in self._symbols}
        return Assembly(tuple(self._pieces), dict(self._labels), named, tuple(self._listing))

    def _report(self, location: Location, message: str) -> None:
        self.problem = self.problem or location.error(message)

    def _require_new(self, statement: Statement) -> None:
        name = statement.name
        if name in self._labels or name in self._constants:
            raise statement.location.error(f"{name} is defined twice")
        if name == "." or name.lower() in REGISTER_BYTES:
            raise statement.location.error(f"{name} cannot be the name of a label or constant")

    def _lookup(self, name: str, location: Location, elsewhere: int = 0) -> int:
        """The value of a symbol; `elsewhere`: as if the program lay this many bytes higher."""
        index = len(self._addresses) - 1
        address = self._addresses[index]
        if name in self._constants:
            return self._constants[name] + (elsewhere if name in self._moving else 0)
        # What lies ahead has moved, since the pass before, by as much as this statement has.
        moved = address - self._addresses_before[index] if self._addresses_before else 0
        if name == ".":
            return address + elsewhere
        if _is_numeric_reference(name):
            places = self._numeric.get(int(name[:-1]), [])
            if name[-1] == "b" and (behind := [place for place in places if place < index]):
                return self._addresses[behind[-1]] + elsewhere
            if name[-1] == "f" and (ahead := [place for place in places if place > index]):
                return (self._addresses_before[ahead[0]] + moved if self._addresses_before else address) + elsewhere
        elif name in self._labels:
            return self._labels[name] + elsewhere
        elif name in self._labels_before:
            return self._labels_before[name] + moved + elsewhere
        # In the first pass a label ahead is not known yet; the place where it is used is a first guess at it.
        self._report(location, f"{name} is not defined")
        return address + elsewhere

    def _evaluate(self, statement: Statement, expression: Expression, elsewhere: int = 0) -> int:
        try:
            return expression.evaluate(lambda name: self._lookup(name, statement.location, elsewhere))
        except ValueError as error:
            self._report(statement.location, str(error))
            return 0

    def _is_address(self, statement: Statement, expression: Expression) -> bool:
        """Whether the value moves with the program: a label's does, the difference of two does not."""
        return self._evaluate(statement, expression) != self._evaluate(statement, expression, _ELSEWHERE)

    def _constant(self, statement: Statement) -> None:
        (expression,) = statement.expressions
        self._constants[statement.name] = self._evaluate(statement, expression)
        if self._is_address(statement, expression):
            self._moving.add(statement.name)

    def _instruction(self, statement: Statement, mode: int, address: int) -> bytes:
        index = len(self._addresses) - 1
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
            self._report(statement.location, str(error))
            return b"\x90"  # a guess may not fit; a later pass knows better

    def _require_meaning(self, statement: Statement, operand: SourceImmediate) -> None:
        """A bare label is an address to a branch, and ambiguous elsewhere: GNU as would load from it."""
        if operand.is_offset or statement.name in encode.BRANCHES or statement.name in encode.FAR_BRANCHES:
            return
        if self._is_address(statement, operand.expression):
            text = operand.expression.text
            self._report(statement.location, f"write `offset {text}` for this address, `[{text}]` for what lies there")

    def _data(self, statement: Statement, address: int, room: int) -> bytes:
        values = [self._evaluate(statement, expression) for expression in statement.expressions]
        try:
            return _data_bytes(statement, values, address, room)
        except ValueError as error:
            self._report(statement.location, str(error))
            return b""


def _data_bytes(statement: Statement, values: Sequence[int], address: int, room: int) -> bytes:
    """What a data directive emits; ValueError for a value that does not fit, or for more than `room` bytes of fill."""
    if statement.name in _DATA_BYTES:
        width = _DATA_BYTES[statement.name]
        for value in values:
            require_fit(value, width)
        return b"".join((value & (1 << 8 * width) - 1).to_bytes(width, "little") for value in values)
    if statement.strings:
        end = b"" if statement.name == ".ascii" else b"\0"
        return b"".join(unescape(string) + end for string in statement.strings)
    fill = values[1] if len(values) > 1 else 0
    if not 0 <= fill <= 0xFF:
        raise ValueError(f"the fill {fill:#x} is no byte")
    count = values[0]
    if statement.name == ".balign":
        if count < 1 or count & (count - 1):
            raise ValueError(f"the alignment {count} is no power of two")
        count = -address % count
    if not 0 <= count <= room:
        raise ValueError(f"{count} bytes of fill: there is room for {room}")
    return bytes([fill]) * count
