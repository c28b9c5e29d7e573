"""Coverage of firmware: which instructions were executed and which way their branches went, summed over runs; and the file that
this is kept in."""

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pvhboot.loader.codecs import decompressed, find_codec
from pvhboot.loader.image import BytesImage
from pvhboot.loader.packing import compress
from pvhboot.loader.printable import one_line
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.blob import Blob, listing_from_rows
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import FIRMWARES, MIB, ROM_MAX, low_rom_span, rom_span
from pvhboot.shim.stock import default_blob

from .board import Board
from .engines.base import Cpu, Watch

VERSION: Final = 1  # of the format
_FORMAT: Final = "pvhboot_coverage"
_FILE_MAX: Final = 256 * MIB  # bytes
_BITS: Final = (16, 32, 64)
_RUNS_MAX: Final = (1 << 63) - 1
_UNNAMED: Final = "firmware"
_GZIP: Final = "gzip"  # how a ROM is compressed

Edge = tuple[int, int]


class RomCoverage:
    """What was executed of one ROM. Addresses are those at the end of the 4 GiB, whichever copy was executed: `executed` says
    how many runs came to each, `edges` how many went from one (0: from elsewhere) to the next, and `bits` (16, 32 or 64) how
    each was decoded."""

    def __init__(self, name: str, blob: Blob) -> None:
        self.name = name
        self.blob = blob
        self.executed: Counter[int] = Counter()
        self.edges: Counter[Edge] = Counter()
        self.bits: dict[int, int] = {}

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """A Watcher of a run of this ROM: it sees it wherever the ROM lies, and the copy that a firmware makes of it in its
        place below 1 MiB."""
        rom = rom_span(len(self.blob.data))
        low = low_rom_span(board.plan.spec, rom.size)
        spans = (rom.bounds,) if low is None else (rom.bounds, low.bounds)
        up = 0 if low is None else rom.end - low.end
        start = rom.start
        previous = count = 0
        seen: set[Edge] = set()
        begun: set[int] = set()

        def on_instruction(address: int, _size: int) -> None:
            nonlocal previous, count
            if address < start:
                address += up
            # One more than before, or, uncounted, as many; else this one was not come to from there: other code was executed,
            # or the CPU was put back to a checkpoint.
            before, count = count, cpu.instructions
            edge = (previous if 0 <= count - before <= 1 else 0, address)
            previous = address
            if edge not in seen:
                seen.add(edge)
                self.edges[edge] += 1
                if address not in begun:
                    begun.add(address)
                    self.executed[address] += 1
                    if address not in self.bits:
                        self.bits[address] = cpu.bits

        return Watch(instruction=on_instruction, to_handoff=True, spans=spans)

    def add(self, other: "RomCoverage") -> None:
        """And the runs of another one, of the same ROM."""
        self.executed.update(other.executed)
        self.edges.update(other.edges)
        self.bits = {**other.bits, **self.bits}


class Coverage:
    """The coverage of any number of ROMs, each known by its bytes."""

    def __init__(self) -> None:
        self._roms: dict[str, RomCoverage] = {}

    @property
    def roms(self) -> tuple[RomCoverage, ...]:
        """In the order in which they came."""
        return tuple(self._roms.values())

    def of(self, blob: Blob, name: str = "") -> RomCoverage:
        """The one that watches the runs of a blob. `name` is what it is called in reports, without one the manifest's. Of blobs
        with the same bytes, one with a listing counts."""
        found = self._roms.get(blob.sha256)
        if found is None:
            name = one_line(name or str(blob.manifest.get("machine") or blob.manifest.get("file", _UNNAMED)))
            self._roms[blob.sha256] = found = RomCoverage(name, blob)
        elif not found.blob.listing:
            found.blob = blob
        return found

    def add(self, other: "Coverage") -> None:
        """And all that another one has."""
        for rom in other.roms:
            self.of(rom.blob, rom.name).add(rom)

    def to_json(self) -> str:
        """As `parse_coverage` reads it: the same coverage gives the same text."""
        return json.dumps({_FORMAT: VERSION, "roms": [_rom_to_json(rom) for rom in self.roms]}) + "\n"


def _rom_to_json(rom: RomCoverage) -> dict[str, Any]:
    blob = rom.blob
    return {
        "name": rom.name,
        "sha256": blob.sha256,
        "data": base64.b64encode(compress(blob.data, _GZIP, 9)).decode(),
        "symbols": dict(blob.symbols),
        "listing": [line.to_row() for line in blob.listing],
        "executed": [[address, rom.bits[address], runs] for address, runs in sorted(rom.executed.items())],
        "edges": [[*edge, runs] for edge, runs in sorted(rom.edges.items())],
    }


def parse_coverage(text: str, name: str) -> Coverage:
    """What `to_json` wrote; `name` is what an error calls it. BootError if it is something else."""
    coverage = Coverage()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
        if text.startswith(f'{{"{_FORMAT}"'):
            raise BootError(f"{name}: the file is cut off, or was changed: it is no whole JSON") from None
    if not isinstance(data, dict) or _FORMAT not in data:
        raise BootError(
            f"{name}: no coverage that pvhboot has written: `pvhboot boot --coverage FILE` and `pytest --pvh-cov=FILE` do"
        )
    try:
        if data[_FORMAT] != VERSION:
            raise BootError(f"{name}: coverage of version {data[_FORMAT]!r}: this pvhboot reads version {VERSION}")
        for rom in data["roms"]:
            coverage.add(_parse_rom(rom))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BootError(f"{name}: no coverage that pvhboot has written: {why}") from None
    return coverage


def _parse_rom(data: Mapping[str, Any]) -> Coverage:
    """ValueError, KeyError, TypeError and the like for what does not hold together."""
    rom = _unpack(base64.b64decode(data["data"], validate=True))
    if hashlib.sha256(rom).hexdigest() != data["sha256"]:
        raise ValueError("the bytes of a ROM are not those that its sha256 tells of")
    symbols = {label: _number(address, 0, ADDRESS_4G) for label, address in data["symbols"].items()}
    name = data["name"]
    if not isinstance(name, str) or not name.isprintable() or name != os.path.basename(name):
        raise ValueError(f"{name!r} is no name of a ROM")
    coverage = Coverage()
    found = coverage.of(Blob(rom, symbols, listing_from_rows(rom, data["listing"]), {}), name)
    start = rom_span(len(rom)).start
    for place, bits, runs in data["executed"]:
        address = _number(place, start, ADDRESS_4G - 1)
        found.executed[address] = _number(runs, 1, _RUNS_MAX)
        if bits not in _BITS:
            raise ValueError(f"an instruction of {bits} bits")
        found.bits[address] = int(bits)
    for before, after, runs in data["edges"]:
        edge = _number(before, 0, ADDRESS_4G - 1), _number(after, start, ADDRESS_4G - 1)
        found.edges[edge] = _number(runs, 1, _RUNS_MAX)
    return coverage


def _number(value: Any, lowest: int, highest: int) -> int:
    """It, if it is a number from `lowest` to `highest`, else ValueError."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ValueError(f"{value!r} instead of a number from {lowest} to {highest}")
    return value


def _unpack(packed: bytes) -> bytes:
    """The bytes of a ROM; ValueError if they are not packed as they are here, or are too many."""
    codec, rom = find_codec(packed), bytearray()
    if codec is None or codec.name != _GZIP:
        raise ValueError(f"a ROM is not compressed by {_GZIP}")
    try:
        for piece, _end in decompressed(BytesImage(packed), codec, 0, len(packed)):
            rom += piece
            if len(rom) > ROM_MAX:
                raise ValueError("a ROM is too large")
    except BootError as error:
        raise ValueError(str(error)) from None
    return bytes(rom)


def read_coverage(paths: Iterable[str]) -> Coverage:
    """The sum of such files. BootError if one cannot be read."""
    coverage = Coverage()
    for path in paths:
        try:
            coverage.add(parse_coverage(read_file(path, "coverage", _FILE_MAX).decode(), path))
        except UnicodeDecodeError:
            raise BootError(f"{path}: no coverage that pvhboot has written: no UTF-8") from None
    return coverage


def describe_own(coverage: Coverage) -> None:
    """Gives pvhboot's own default firmwares their listings, where they were booted as anybody's ROM."""
    unknown = {rom.blob.sha256: rom for rom in coverage.roms if not rom.blob.listing}
    for spec in FIRMWARES.values() if unknown else ():
        own = default_blob(spec)
        if own.sha256 in unknown:
            unknown[own.sha256].blob = own
