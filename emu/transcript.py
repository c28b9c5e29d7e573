"""Transcripts: every access of a firmware to a device up to the handoff, and what the devices then did to memory, as a file.

JSON, an object a line: first what was booted and how it ended, then an access each, in order. Numbers that are addresses or
values are hexadecimal text. Bytes are hexadecimal, many are compressed (gzip, base64); the whole of a module is named by its
number, and has to be there when the transcript is replayed.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from pvhboot.loader.codecs import decompressed, find_codec
from pvhboot.loader.fields import field, number
from pvhboot.loader.image import BytesImage, SizedSource, pieces
from pvhboot.loader.memory import ShadowPart
from pvhboot.loader.packing import compress
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.sizes import PADDR_END, show_size
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.pam import SHADOW_END, SHADOW_START
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import MACHINES, MIB

from .bus import KINDS, LOG_LIMIT, Access

VERSION: Final = 1  # of the format
TRANSCRIPT_MAX: Final = 256 * MIB  # bytes of a file
PIECE_MAX: Final = 64 * MIB  # bytes that one access moves, and are in the file
UNPACKED_MAX: Final = 1024 * MIB  # bytes of all that accesses move
_HEX_BYTES: Final = 64  # as many are not compressed
_PADDR_MAX: Final = (1 << 64) - 1
_TYPE_MAX: Final = (1 << 32) - 1  # of an e820 entry
_WIDTHS: Final = (1, 2, 4, 8)
_GZIP: Final = "gzip"


class Piece(NamedTuple):
    """Bytes of memory at a physical address."""

    paddr: int
    data: bytes


class ModulePiece(NamedTuple):
    """A module of the plan, by its number, whole, at a physical address."""

    paddr: int
    module: int


class Exchange(NamedTuple):
    """An access, and what the devices did to memory for it: what they read there (`fetched`), what they wrote (`stored`), in
    this order, and what the shadow RAM shows from then on (None: what it did before)."""

    access: Access
    fetched: tuple[Piece, ...] = ()
    stored: tuple[Piece | ModulePiece, ...] = ()
    shadow: tuple[ShadowPart, ...] | None = None


class ModuleDigest(NamedTuple):
    """A module: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Subject(NamedTuple):
    """What was booted, as far as a replay must have it, too: the engine that it was recorded on, the firmware's SHA-256, the
    machine's name, bytes of RAM, the kernel's entry and command line, the modules, what was to be reserved of RAM (start and
    end) and what the host reserved beside it (BootPlan), and what the check has to know of the host (Handoff.host_acpi,
    host_appends)."""

    engine: str
    firmware: str
    machine: str
    memory: int
    entry: int
    cmdline: str | None
    modules: tuple[ModuleDigest, ...]
    reserved: tuple[tuple[int, int], ...]
    host_reserved: tuple[E820Entry, ...]
    host_acpi: bool
    host_appends: bool


class Transcript(NamedTuple):
    """`end` is the word of `reasons` for how the run ended: handoff, if the kernel's entry was reached."""

    subject: Subject
    end: str
    exchanges: tuple[Exchange, ...]

    def to_jsonl(self) -> str:
        """As `parse_transcript` reads it: the same transcript gives the same text."""
        subject = self.subject
        head = {
            "transcript": VERSION,
            **subject._asdict(),
            "entry": hex(subject.entry),
            "modules": [module._asdict() for module in subject.modules],
            "reserved": [[hex(start), hex(end)] for start, end in subject.reserved],
            "host_reserved": [[hex(entry.addr), hex(entry.size), entry.type] for entry in subject.host_reserved],
            "end": self.end,
            "accesses": len(self.exchanges),
        }
        return "".join(json.dumps(each) + "\n" for each in (head, *map(_exchange_json, self.exchanges)))


def digest(source: SizedSource) -> ModuleDigest:
    """BootError if it cannot be read."""
    found = hashlib.sha256()
    for part in pieces(source, 0, source.size):
        found.update(part)
    return ModuleDigest(source.size, found.hexdigest())


def plan_subject(plan: BootPlan, engine: str, *, host_acpi: bool, host_appends: bool) -> Subject:
    """What a transcript of this boot says of it. BootError for a module that cannot be read."""
    return Subject(
        engine,
        hashlib.sha256(plan.rom).hexdigest(),
        plan.spec.name,
        plan.ram_size,
        plan.entry,
        _cmdline(plan),
        tuple(digest(module.payload) for module in plan.modules),
        tuple(span.bounds for span in plan.reserved),
        plan.host_reserved,
        host_acpi,
        host_appends,
    )


def require_same(subject: Subject, plan: BootPlan) -> None:
    """BootError unless the plan boots what the transcript was recorded with. The firmware may be another one."""
    if plan.spec.name != subject.machine:
        raise BootError(f"the transcript is of {subject.machine}, not {plan.spec.name}: give --machine {subject.machine}")
    if plan.ram_size != subject.memory:
        raise BootError(f"the transcript is of a machine with {subject.memory} bytes of RAM, not {plan.ram_size}")
    if plan.entry != subject.entry:
        raise BootError(
            f"the transcript is of a kernel that is entered at {subject.entry:#x}, {plan.kernel.path} is at {plan.entry:#x}: "
            "give the same kernel"
        )
    if (cmdline := _cmdline(plan)) != subject.cmdline:
        told = ["none" if line is None else repr(line) for line in (subject.cmdline, cmdline)]
        raise BootError(f"the transcript is of a boot with the command line {told[0]}, not {told[1]}: give the same --append")
    if tuple(span.bounds for span in plan.reserved) != subject.reserved:
        spans = ", ".join(f"{start:#x}-{end:#x}" for start, end in subject.reserved) or "nothing"
        raise BootError(f"the transcript is of a boot where of the RAM {spans} was reserved: give the same --reserve")
    if len(plan.modules) != len(subject.modules):
        raise BootError(f"the transcript is of a boot with {_modules(len(subject.modules))}, not {len(plan.modules)}")
    for module, recorded in zip(plan.modules, subject.modules, strict=True):
        if digest(module.payload) != recorded:
            raise BootError(
                f"{module.payload.path}: is not the module of the transcript, which has {recorded.size} bytes and the SHA-256 "
                f"{recorded.sha256}"
            )


def _cmdline(plan: BootPlan) -> str | None:
    return None if plan.cmdline is None else plan.cmdline.decode("utf-8", "surrogateescape")


def _modules(count: int) -> str:
    return f"{count} module{'' if count == 1 else 's'}"


def _exchange_json(exchange: Exchange) -> dict[str, Any]:
    access = exchange.access
    data: dict[str, Any] = {access.kind: hex(access.address), "size": access.size, "value": hex(access.value)}
    if access.device:
        data["device"] = access.device
    if exchange.fetched:
        data["fetched"] = [_piece_json(piece) for piece in exchange.fetched]
    if exchange.stored:
        data["stored"] = [_piece_json(piece) for piece in exchange.stored]
    if exchange.shadow is not None:
        data["shadow"] = [[hex(part.start), hex(part.end), part.readonly] for part in exchange.shadow]
    return data


def _piece_json(piece: Piece | ModulePiece) -> dict[str, Any]:
    if isinstance(piece, ModulePiece):
        return {"paddr": hex(piece.paddr), "module": piece.module}
    if len(piece.data) <= _HEX_BYTES:
        return {"paddr": hex(piece.paddr), "hex": piece.data.hex()}
    packed = base64.b64encode(compress(piece.data, _GZIP, 9)).decode()
    return {"paddr": hex(piece.paddr), "size": len(piece.data), _GZIP: packed}


def read_transcript(path: str) -> Transcript:
    """A transcript from a file; BootError says what is wrong with it."""
    data = read_file(path, "transcript", TRANSCRIPT_MAX)
    try:
        return parse_transcript(data)
    except BootError as error:
        raise BootError(f"{path}: {error}") from None


def parse_transcript(data: bytes) -> Transcript:
    """A transcript from its lines; BootError says which one is wrong."""
    lines = data.splitlines()
    try:
        head = _object(lines[0] if lines else b"", "the transcript")
    except BootError:
        head = {}
    if "transcript" not in head:
        raise BootError("not a transcript: `pvhboot boot --record-io FILE` writes one")
    version = head["transcript"]
    if version != VERSION:
        raise BootError(f"a transcript of version {version!r}: this pvhboot reads version {VERSION}")
    count = number(head, "accesses", "the transcript", 0, LOG_LIMIT)
    if len(lines) - 1 != count:
        raise BootError(f"the transcript has {count} accesses by its first line, and {len(lines) - 1} lines of them")
    subject = _subject(head)
    exchanges = tuple(_exchanges(lines[1:], len(subject.modules)))
    if MACHINES[subject.machine].chipset is None and any(each.shadow is not None for each in exchanges):
        raise BootError(f"the transcript has shadow RAM, which the machine {subject.machine} does not have")
    return Transcript(subject, field(head, "end", str, "the transcript"), exchanges)


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BootError(f"{what}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise BootError(f"{what}: no JSON object")
    return found


def _subject(head: dict[str, Any]) -> Subject:
    what = "the transcript"
    machine = field(head, "machine", str, what)
    if machine not in MACHINES:
        raise BootError(f"a transcript of the machine {machine!r}; there is: {', '.join(MACHINES)}")
    cmdline = head.get("cmdline")
    if cmdline is not None and not isinstance(cmdline, str):
        raise BootError(f"{what} has a cmdline that is no text")
    modules: list[Any] = field(head, "modules", list, what)
    return Subject(
        field(head, "engine", str, what),
        field(head, "firmware", str, what),
        machine,
        number(head, "memory", what, 1, PADDR_END),
        _hex(head, "entry", what),
        cmdline,
        tuple(ModuleDigest(number(each, "size", what, 0, PADDR_END), field(each, "sha256", str, what)) for each in modules),
        tuple(_two(each) for each in field(head, "reserved", list, what)),
        tuple(_reserved(each) for each in field(head, "host_reserved", list, what)),
        field(head, "host_acpi", bool, what),
        field(head, "host_appends", bool, what),
    )


def _reserved(each: Any) -> E820Entry:
    what = "the transcript's host_reserved"
    start, size, kind = _three(each, what)
    if not 0 <= kind <= _TYPE_MAX:
        raise BootError(f"{what} has the type {kind}: 0 to {_TYPE_MAX} is possible")
    return E820Entry(_hex_text(start, what), _hex_text(size, what), int(kind))


def _two(each: Any) -> tuple[int, int]:
    what = "the transcript's reserved"
    if not isinstance(each, list) or len(each) != 2:
        raise BootError(f"{what} is not two addresses")
    return _hex_text(each[0], what), _hex_text(each[1], what)


def _exchanges(lines: Iterable[bytes], modules: int) -> Iterator[Exchange]:
    """BootError also if all of them together are too large to be kept."""
    unpacked = 0
    for at, line in enumerate(lines, 1):
        data = _object(line, f"access {at}")
        exchange = _exchange(data, f"access {at}", modules)
        unpacked += sum(len(piece.data) for piece in (*exchange.fetched, *exchange.stored) if isinstance(piece, Piece))
        if unpacked > UNPACKED_MAX:
            raise BootError(f"the transcript has more than {show_size(UNPACKED_MAX)} of memory: too much to replay")
        yield exchange


def _exchange(data: dict[str, Any], what: str, modules: int) -> Exchange:
    kinds = [kind for kind in KINDS if kind in data]
    if len(kinds) != 1:
        raise BootError(f"{what} is not one of {', '.join(KINDS)}")
    size = number(data, "size", what, 1, max(_WIDTHS))
    value = _hex(data, "value", what)
    if size not in _WIDTHS or value >> 8 * size:
        raise BootError(f"{what} has {size} bytes and the value {value:#x}")
    device = field(data, "device", str, what) if "device" in data else ""
    shadow = None
    if "shadow" in data:
        shadow = _shadow(field(data, "shadow", list, what), what)
    return Exchange(
        Access(kinds[0], _hex(data, kinds[0], what), size, value, device),
        tuple(piece for piece in _pieces(data, "fetched", what, 0) if isinstance(piece, Piece)),
        tuple(_pieces(data, "stored", what, modules)),
        shadow,
    )


def _shadow(parts: list[Any], what: str) -> tuple[ShadowPart, ...]:
    shadow = []
    at = SHADOW_START
    for each in parts:
        first, second, readonly = _three(each, f"the shadow of {what}")
        start, end = _hex_text(first, what), _hex_text(second, what)
        if not at <= start < end <= SHADOW_END or (start | end) % PAGE_SIZE:
            raise BootError(f"the shadow of {what} has a part {start:#x}-{end:#x}: there is RAM in pages from {at:#x} on")
        shadow.append(ShadowPart(start, end, bool(readonly)))
        at = end
    return tuple(shadow)


def _three(each: Any, what: str) -> Sequence[Any]:
    if not isinstance(each, list) or len(each) != 3 or not isinstance(each[2], int):
        raise BootError(f"{what} is not two addresses and a number")
    return each


def _pieces(data: dict[str, Any], name: str, what: str, modules: int) -> Iterator[Piece | ModulePiece]:
    for each in field(data, name, list, what) if name in data else ():
        paddr = _hex(each, "paddr", f"{name} of {what}")
        if "module" in each:
            if not modules:
                raise BootError(f"{name} of {what} is a module, and there is none")
            yield ModulePiece(paddr, number(each, "module", f"{name} of {what}", 0, modules - 1))
        else:
            yield Piece(paddr, _bytes(each, f"{name} of {what}"))


def _bytes(each: dict[str, Any], what: str) -> bytes:
    try:
        if "hex" in each:
            return bytes.fromhex(field(each, "hex", str, what))
        packed = base64.b64decode(field(each, _GZIP, str, what), validate=True)
    except (ValueError, binascii.Error):
        raise BootError(f"{what}: not bytes in hexadecimal or base64") from None
    size = number(each, "size", what, 0, PIECE_MAX)
    data = _unpacked(packed, size, what)
    if len(data) != size:
        raise BootError(f"{what} has {'more' if len(data) > size else 'fewer'} bytes than its size {size}")
    return data


def _unpacked(packed: bytes, size: int, what: str) -> bytes:
    codec = find_codec(packed)
    if codec is None or codec.name != _GZIP:
        raise BootError(f"{what}: not compressed by gzip")
    out = bytearray()
    for piece, _end in decompressed(BytesImage(packed), codec, 0, len(packed)):
        out += piece
        if len(out) > size:
            break
    return bytes(out)


def _hex(where: Any, name: str, what: str) -> int:
    return _hex_text(field(where, name, str, what), f"{name} of {what}")


def _hex_text(text: Any, what: str) -> int:
    try:
        value = int(text, 16) if isinstance(text, str) and text.startswith("0x") else -1
    except ValueError:
        value = -1
    if not 0 <= value <= _PADDR_MAX:
        raise BootError(f"{what}: {text!r} is no number of 64 bits in hexadecimal (0x…)")
    return value
