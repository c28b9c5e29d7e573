"""The trace as columns: distinct instructions, which one each step is, what it changed, what it did, and what that means."""

from codecs import IncrementalDecoder
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, NamedTuple

from pvhboot.loader.printable import text_decoder
from pvhboot.shim.blob import Place

from ..effects import DMA, EFFECT_KINDS, LOAD, STORE, Effect
from ..engines.base import STATE_REGISTERS
from ..recorded import Recorded
from ..trace import EFLAGS, Record
from .accesses import DEVICES, AccessWords
from .beside import Beside
from .columns import Json, Table, plain
from .says import says
from .sources import SourceFiles
from .stored import addressed

_NONE: Final = -1
_MEMORY: Final = (LOAD, STORE, DMA)


class _Site(NamedTuple):
    """An instruction at its place, as the table of them has it."""

    address: int
    bits: int
    code: bytes
    text: str
    place: Place | None
    segment: int | None
    offset: int | None


class _Effects:
    """The columns of effects."""

    def __init__(self, sentences: Table[str], words: AccessWords) -> None:
        self._sentences, self._words = sentences, words
        self._devices: Table[str] = Table()
        self.columns: dict[str, list[int | str | None]] = {
            name: [] for name in ("step", "kind", "at", "size", "value", "device", "meaning")
        }
        self.more: dict[str, list[int | str]] = {}
        self.console: list[list[int | str]] = []
        self._decoders = defaultdict[str, IncrementalDecoder](text_decoder)  # by device

    def add(self, index: int, effect: Effect, fetched: bytes | None, stored: Mapping[int, str], printed: bytes | None) -> None:
        """That of the record of an index; `printed`: the bytes of one that prints; the rest as AccessWords.tell has it."""
        is_memory = effect.kind in _MEMORY
        whole = effect if printed is None or effect.value is not None else effect._replace(data=printed.hex())
        meaning = "" if is_memory else self._words.tell(whole, fetched, stored)
        if not is_memory and self._words.printed:
            self.console.append([index + 1, effect.device, self._decoders[effect.device].decode(self._words.printed)])
        if effect.times != 1 or effect.value is None:
            self.more[str(len(self.columns["step"]))] = [effect.times, effect.data]
        row = {
            "step": index,
            "kind": EFFECT_KINDS.index(effect.kind),
            "at": plain(effect.at),
            "size": effect.size,
            "value": None if effect.value is None else plain(effect.value),
            "device": _NONE if is_memory else self._devices.number(effect.device),
            "meaning": self._sentences.number(meaning) if meaning else _NONE,
        }
        for name, value in row.items():
            self.columns[name].append(value)

    def devices(self) -> list[list[str]]:
        """Name and words of each, by their numbers."""
        return [[name, DEVICES.get(name, name)] for name in self._devices.entries()]


def steps_json(recorded: Recorded, beside: Beside, sources: SourceFiles, words: AccessWords) -> Json:
    """From `sites` to `console` in the page's data."""
    sites: Table[_Site] = Table()
    sentences: Table[str] = Table()
    effects = _Effects(sentences, words)
    fetched = _fetched(beside)
    numbers = {name: number for number, name in enumerate(STATE_REGISTERS)}
    steps: list[int] = []
    times: dict[str, int] = {}
    said: dict[str, int] = {}
    changed: dict[str, list[int | str]] = {"counts": [], "registers": [], "values": []}
    for index, (record, state) in enumerate(zip(recorded.records, recorded.states(), strict=False)):
        steps.append(sites.number(_site(record)))
        if record.times != 1:
            times[str(index)] = record.times
        changed["counts"].append(len(record.changes))
        changed["registers"] += [numbers[name] for name in record.changes]
        changed["values"] += [plain(value) for value in record.changes.values()]
        stored = {effect.at: effect.data for effect in record.effects if effect.kind == DMA}
        for effect in record.effects:
            told = addressed(effect, state[EFLAGS]) if effect.kind in (LOAD, STORE) else effect
            effects.add(index, told, fetched.get(index), stored, beside.printed.get((index, effect.at)))
        if phrase := says(record, state):
            said[str(index)] = sentences.number(phrase)
    first = recorded.records[0].before if recorded.records else None
    return {
        "sites": [_site_json(site, sources) for site in sites.entries()],
        "steps": steps,
        "times": times,
        "registers": list(STATE_REGISTERS),
        "before": [plain(value) for value in (first or {}).values()],
        "changes": changed,
        "effects": {**effects.columns, "more": effects.more},
        "effect_kinds": list(EFFECT_KINDS),
        "devices": effects.devices(),
        "sentences": sentences.entries(),
        "says": said,
        "console": effects.console,
    }


def _fetched(beside: Beside) -> Mapping[int, bytes]:
    """What a device has read for a record: of several times, the first."""
    found: dict[int, bytes] = {}
    for fetch in beside.fetches:
        found.setdefault(fetch.record, fetch.data)
    return found


def _site(record: Record) -> _Site:
    segmented = record.bits == 16
    return _Site(
        record.address,
        record.bits,
        record.code,
        record.text,
        record.place,
        record.cs if segmented else None,
        record.ip if segmented else None,
    )


def _site_json(site: _Site, sources: SourceFiles) -> list[object]:
    place = "" if site.place is None else str(site.place._replace(source=""))
    file, line = sources.locate(site.address)
    return [plain(site.address), site.bits, site.code.hex(), site.text, place, file, line, site.segment, site.offset]
