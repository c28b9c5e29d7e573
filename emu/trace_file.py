"""Traces as files: JSON Lines, first a header, then a record an instruction, and last how the run ended."""

import json
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, NamedTuple

from pvhboot.loader.fields import field, number
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob, Place
from pvhboot.shim.errors import BootError

from .effects import DMA, EFFECT_KINDS, Effect
from .trace import End, Record

VERSION: Final = 1
_FORMAT: Final = "pvhboot_trace"
_LINE_MAX: Final = 1 << 22  # bytes; no record of ours comes near
_ACCESS_MAX: Final = 8  # bytes: of more an engine makes several accesses
_MAX: Final = (1 << 64) - 1


class Header(NamedTuple):
    """What a trace is of. `kernel` and `entry` (physical) are those of the plan, `firmware` the ROM's SHA-256; `sees_memory`:
    the engine has told loads and stores; `filters` are the words that have chosen among the records (none: all are there)."""

    engine: str
    machine: str
    memory: int
    kernel: str
    entry: int
    firmware: str
    sees_memory: bool
    filters: tuple[str, ...] = ()


def header_of(plan: BootPlan, blob: Blob, engine: str, *, sees_memory: bool, filters: tuple[str, ...] = ()) -> Header:
    """The header of a trace of this boot."""
    kernel, entry = plan.kernel.path, plan.entry
    return Header(engine, plan.spec.name, plan.ram_size, kernel, entry, blob.sha256, sees_memory, filters)


def to_line(item: Header | Record | End) -> str:
    """A line of the file, with its newline."""
    return json.dumps(to_json(item), separators=(",", ":")) + "\n"


def to_json(item: Header | Record | End | Effect) -> dict[str, Any]:
    """As plain data. Numbers stay numbers."""
    if isinstance(item, Record):
        return _record_to_json(item)
    if isinstance(item, Effect):
        return _effect_to_json(item)
    if isinstance(item, Header):
        return {_FORMAT: VERSION, **item._asdict()}
    return {"end": item.reason, "detail": item.detail, "at": item.address, "instructions": item.instructions}


def _record_to_json(record: Record) -> dict[str, Any]:
    """Without what is empty or as usual."""
    data: dict[str, Any] = {
        "n": record.number,
        "mode": record.bits,
        "cs": record.cs,
        "ip": record.ip,
        "at": record.address,
        "code": record.code.hex(),
        "text": record.text,
    }
    if record.place is not None:
        data |= {"symbol": record.place.symbol, "offset": record.place.offset}
        if record.place.source:
            data["line"] = record.place.source
    if record.times != 1:
        data["times"] = record.times
    if record.changes:
        data["set"] = record.changes
    if record.effects:
        data["does"] = [_effect_to_json(effect) for effect in record.effects]
    if record.before is not None:
        data["before"] = record.before
    return data


def _effect_to_json(effect: Effect) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": effect.kind, "at": effect.at, "size": effect.size}
    if effect.value is not None:
        data["value"] = effect.value
    if effect.device:
        data["device"] = effect.device
    if effect.times != 1:
        data["times"] = effect.times
    if effect.data:
        data["data"] = effect.data
    return data


class TraceFile:
    """A trace that is read line by line. Raises BootError, with the line, for what is none."""

    def __init__(self, path: str) -> None:
        self._path, self._line = path, 0
        try:
            self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise BootError(f"{path}: cannot read the trace: {error.strerror}") from None
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TraceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Record | End]:
        """The records, and at last the end."""
        while True:
            data = self._read()
            where = f"{self._path}: line {self._line}"
            if data is None:
                raise BootError(
                    f"{self._path}: cut off: the trace ends behind line {self._line} without saying how the run ended"
                )
            if "end" not in data:
                yield _record_from(data, where)
                continue
            yield _end_from(data, where)
            if self._read() is not None:
                raise BootError(f"{self._path}: line {self._line}: the trace goes on behind its end")
            return

    def _read(self) -> dict[str, Any] | None:
        """The next line; None at the end of the file."""
        try:
            line = self._file.readline(_LINE_MAX)
        except OSError as error:
            raise BootError(f"{self._path}: cannot read the trace: {error.strerror}") from None
        if not line:
            return None
        self._line += 1
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            return data
        if self._line == 1:
            raise self._foreign()
        cut = "" if line.endswith(b"\n") else ": the file is cut off there"
        raise BootError(f"{self._path}: line {self._line} is no JSON object{cut}")

    def _foreign(self) -> BootError:
        return BootError(f"{self._path}: not a trace: `pvhboot trace -o FILE` writes one")

    def _read_header(self) -> Header:
        data = self._read()
        if data is None or _FORMAT not in data:
            raise self._foreign()
        if data[_FORMAT] != VERSION:
            raise BootError(f"{self._path}: a trace of format {data[_FORMAT]!r}: this pvhboot reads format {VERSION}")
        what = f"{self._path}: the header"
        filters = field(data, "filters", list, what)
        if not all(isinstance(word, str) for word in filters):
            raise BootError(f"{what} has filters that are no words")
        return Header(
            *(field(data, "engine", str, what), field(data, "machine", str, what), number(data, "memory", what, 0, _MAX)),
            *(field(data, "kernel", str, what), number(data, "entry", what, 0, _MAX), field(data, "firmware", str, what)),
            *(field(data, "sees_memory", bool, what), tuple(filters)),
        )


def _record_from(data: dict[str, Any], what: str) -> Record:
    place = None
    if "symbol" in data:
        source = field(data, "line", str, what) if "line" in data else ""
        place = Place(field(data, "symbol", str, what), number(data, "offset", what, 0, _MAX), source)
    try:
        code = bytes.fromhex(field(data, "code", str, what))
    except ValueError:
        raise BootError(f"{what} has a code that is not hexadecimal") from None
    effects = field(data, "does", list, what) if "does" in data else []
    mode = number(data, "mode", what, 16, 64)
    if mode not in (16, 32, 64):
        raise BootError(f"{what} has the mode {mode}: 16, 32 or 64 is possible")
    return Record(
        *(number(data, "n", what, 1, _MAX), mode, number(data, "cs", what, 0, 0xFFFF), number(data, "ip", what, 0, _MAX)),
        *(number(data, "at", what, 0, _MAX), code, field(data, "text", str, what), place),
        *(_registers(data, "set", what) if "set" in data else {}, tuple(_effect_from(effect, what) for effect in effects)),
        number(data, "times", what, 0, _MAX) if "times" in data else 1,
        _registers(data, "before", what) if "before" in data else None,
    )


def _registers(data: dict[str, Any], name: str, what: str) -> Mapping[str, int]:
    registers = field(data, name, dict, what)
    return {register: number(registers, register, f"{what}, {name},", 0, _MAX) for register in registers}


def _effect_from(data: Any, what: str) -> Effect:
    what += ", what it does,"
    kind = field(data, "kind", str, what)
    if kind not in EFFECT_KINDS:
        raise BootError(f"{what} has the kind {kind}: {', '.join(EFFECT_KINDS)} is possible")
    size = number(data, "size", what, 0 if kind == DMA else 1, _MAX if kind == DMA else _ACCESS_MAX)
    return Effect(
        kind,
        number(data, "at", what, 0, _MAX),
        size,
        number(data, "value", what, 0, (1 << 8 * min(size, _ACCESS_MAX)) - 1) if "value" in data else None,
        field(data, "device", str, what) if "device" in data else "",
        number(data, "times", what, 1, _MAX) if "times" in data else 1,
        field(data, "data", str, what) if "data" in data else "",
    )


def _end_from(data: dict[str, Any], what: str) -> End:
    reason, detail = field(data, "end", str, what), field(data, "detail", str, what)
    address = None if data.get("at") is None else number(data, "at", what, 0, _MAX)
    return End(reason, detail, address, number(data, "instructions", what, 0, _MAX))
