"""Records of a trace as text for a person: one line an instruction."""

from collections.abc import Mapping
from typing import Final

from ..bus import LOADS, PORT_KINDS
from ..effects import DMA, LOAD, STORE, Effect
from ..engines.base import Stop, describe_stop
from ..trace import End, Record

_SHOWN: Final = 24  # characters of what several accesses have moved


def record_text(record: Record) -> str:
    """Number, mode, address (CS:IP in 16-bit code, else the linear one), bytes, instruction, place, and what it did."""
    address = f"{record.cs:04x}:{record.ip:04x}" if record.bits == 16 else f"{record.address:0{record.bits // 4}x}"
    text = record.text if record.times == 1 else f"{record.text}  (x {record.times})"
    place = "" if record.place is None else str(record.place)
    did = "  ".join([*(effect_text(effect) for effect in record.effects), *changes_text(record.changes)])
    return f"{record.number:>7} {record.bits} {address:<9} {record.code.hex():<16} {text:<36} {place:<34} {did}".rstrip()


def changes_text(changes: Mapping[str, int]) -> list[str]:
    """The registers with their values."""
    return [f"{name}={value:#x}" for name, value in changes.items()]


def effect_text(effect: Effect) -> str:
    """An access, with an arrow to where the value goes; how often, and what it moved, of several in a row."""
    where = f"{effect.at:#x}" if effect.kind in PORT_KINDS else f"[{effect.at:#x}]"
    arrow = "->" if effect.kind in (LOAD, *LOADS) else "<-"
    if effect.value is not None:
        moved = f"{effect.value:#0{2 * effect.size + 2}x}"
    else:
        data = effect.data if len(effect.data) <= _SHOWN else f"{effect.data[:_SHOWN]}…"
        moved = f"{effect.size} bytes {data}" if effect.times == 1 else f"{effect.times} x {effect.size} bytes {data}"
    device = "" if effect.kind in (LOAD, STORE, DMA) else f" ({effect.device or 'nobody'})"
    return f"{effect.kind} {where} {arrow} {moved}{device}"


def end_text(end: End) -> str:
    """How the run ended, and where."""
    how = describe_stop(Stop(end.reason, end.detail, end.address)) if end.reason else "the run was not over"
    return how + ("" if end.address is None else f", at {end.address:#x}")
