"""How two values of a test differ, line by line, `<` for the left one and `>` for the right one: LEGEND says so."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import paging, x86
from pvhboot.shim.abi.x86 import Segment

from ..bus import OUT, Access
from ..memmap_words import type_name
from ..report.state import bits_text
from ..report.text import range_text
from .values import MemoryRange, Registers

LEGEND: Final = "(< is the left side, > the right one)"
_ROW: Final = 16  # bytes of memory in a line
_ROWS: Final = 6  # lines of memory that are shown
_CONTEXT: Final = 3  # accesses that are shown before the first that differs, and behind it
_BIT_NAMES: Final = {
    "cr0": x86.CR0_NAMES,
    "cr4": paging.CR4_NAMES,
    "efer": paging.EFER_NAMES,
    "eflags": x86.EFLAGS_NAMES,
}


def differences(left: Mapping[str, object], right: Mapping[str, object]) -> list[str]:
    """Of two handoffs, by the names of their parts: a line that names each part that differs, and how, indented."""
    lines = []
    for name, ours in left.items():
        theirs = right[name]
        if ours != theirs:
            lines += [f"{name}:", *(f"  {line}" for line in _part(ours, theirs))]
    return lines


def _part(ours: object, theirs: object) -> list[str]:
    if isinstance(ours, Registers) and isinstance(theirs, Registers):
        return register_differences(ours, theirs)
    if isinstance(ours, list) and isinstance(theirs, list) and holds(MemoryRange, ours, theirs):
        return memmap_differences(ours, theirs)
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return [
            line
            for name in ours
            if name in theirs and ours[name] != theirs[name]
            for line in (f"{name}:", *(f"  {line}" for line in _part(ours[name], theirs[name])))
        ]
    fields = getattr(ours, "_fields", None)
    if fields is not None and type(ours) is type(theirs):
        assert isinstance(ours, tuple)
        assert isinstance(theirs, tuple)
        return [
            f"{name} < {_shown(mine)} > {_shown(others)}"
            for name, mine, others in zip(fields, ours, theirs, strict=True)
            if mine != others
        ]
    if isinstance(ours, list) and isinstance(theirs, list):
        return list(_sequence([_shown(item) for item in ours], [_shown(item) for item in theirs]))
    return [f"< {_shown(ours)}", f"> {_shown(theirs)}"]


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    fields = getattr(value, "_fields", None)
    if fields is not None:
        assert isinstance(value, tuple)
        return " ".join(f"{name} {_shown(part)}" for name, part in zip(fields, value, strict=True))
    return repr(value)


def holds(kind: type, *sequences: Sequence[object]) -> bool:
    """Whether one of the sequences is made of values of that kind."""
    return any(values and all(isinstance(value, kind) for value in values) for values in sequences)


def segment_differences(left: Mapping[str, object], right: Mapping[str, object]) -> list[str]:
    """Of each segment register the fields that are not the same."""
    alone = [
        f"{name}: only on the {side} side"
        for side, here, there in (("left", left, right), ("right", right, left))
        for name in here
        if name not in there
    ]
    return [*_part(left, right), *alone]


def field_differences(left: Segment, right: Segment) -> list[str]:
    """A line a field that is not the same."""
    return _part(left, right)


def value_differences(name: str, left: int, right: int) -> list[str]:
    """A register that is not the same, with the names of its bits."""
    return [f"< {_register(name, left)}", f"> {_register(name, right)}"]


def register_differences(left: Mapping[str, int], right: Mapping[str, int]) -> list[str]:
    """A line a register that is not the same, with the names of its bits where they have names."""
    names = dict.fromkeys((*left, *right))
    return [
        f"{name:<10} < {_register(name, left.get(name)):<12} > {_register(name, right.get(name))}"
        for name in names
        if left.get(name) != right.get(name)
    ]


def _register(name: str, value: int | None) -> str:
    if not isinstance(value, int):
        return "none" if value is None else repr(value)
    names = _BIT_NAMES.get(name)
    return hex(value) if names is None else bits_text("", value, names).lstrip()


def memmap_differences(left: Sequence[object], right: Sequence[object]) -> list[str]:
    """Both maps as one table: what is in both, only in the left one, only in the right one."""
    return list(_sequence(memmap_lines(left), memmap_lines(right)))


def memmap_lines(entries: Sequence[object]) -> list[str]:
    """A line an entry."""
    return [_range(entry) for entry in entries]


def _range(entry: object) -> str:
    if not isinstance(entry, tuple) or len(entry) != len(MemoryRange._fields) or not all(type(x) is int for x in entry):
        return f"{entry!r}, which is no (start, size, type)"
    start, size, kind = entry
    return f"{range_text(start, size)}  {type_name(kind):<8}  {show_size(size)}"


def _sequence(left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    for what, i, end_i, j, end_j in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if what == "equal":
            yield from (f"  {line}" for line in left[i:end_i])
        else:
            yield from (f"< {line}" for line in left[i:end_i])
            yield from (f"> {line}" for line in right[j:end_j])


def io_differences(left: Sequence[object], right: Sequence[object]) -> list[str]:
    """The first access that is not the same, with those before it and behind it."""
    at = next((at for at, (ours, theirs) in enumerate(zip(left, right, strict=False)) if ours != theirs), None)
    if at is None:
        at = min(len(left), len(right))
    lines = [f"the first difference is access {at}; the left log has {len(left)}, the right one {len(right)}"]
    lines += [f"  {number:>4}  {access_text(left[number])}" for number in range(max(0, at - _CONTEXT), at)]
    for mark, log in (("<", left), (">", right)):
        lines += [f"{mark} {number:>4}  {access_text(log[number])}" for number in range(at, min(len(log), at + _CONTEXT))]
        if at >= len(log):
            lines.append(f"{mark} {at:>4}  none")
    return lines


def access_text(access: object) -> str:
    """An access for a person."""
    if not isinstance(access, tuple) or len(access) != len(Access._fields):
        return f"{access!r}, which is no (kind, address, size, value, device)"
    kind, address, size, value, device = access
    if not all(type(number) is int for number in (address, size, value)):
        return repr(access)
    shown = f"  {chr(value)!r}" if kind == OUT and size == 1 and 0x20 <= value < 0x7F else ""
    return f"{kind:<5}  {address:#06x}  {value:#0{2 + 2 * size}x}".ljust(25) + f"  {device or 'nobody'}{shown}"


def memory_differences(left: bytes, right: bytes, paddr: int) -> list[str]:
    """The lines of a hex dump around the first byte that differs; both begin at that physical address."""
    at = next((at for at, (ours, theirs) in enumerate(zip(left, right, strict=False)) if ours != theirs), None)
    if at is None:
        at = min(len(left), len(right))
    count = sum(ours != theirs for ours, theirs in zip(left, right, strict=False))
    lines = [f"the first difference is at {paddr + at:#x} ({at:#x} bytes from the start); {count} bytes differ"]
    if len(left) != len(right):
        lines.append(f"the left side has {len(left)} bytes, the right one {len(right)}")
    first = max(0, at - (paddr + at) % _ROW - _ROW)
    for row in range(first, min(max(len(left), len(right)), first + _ROWS * _ROW), _ROW):
        ours, theirs = left[row : row + _ROW], right[row : row + _ROW]
        if ours == theirs:
            lines.append(f"  {_row(paddr + row, ours)}")
        else:
            lines += [f"< {_row(paddr + row, ours)}", f"> {_row(paddr + row, theirs)}"]
    return lines


def _row(paddr: int, data: bytes) -> str:
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
    return f"{paddr:#010x}  {data.hex(' '):<{3 * _ROW - 1}}  {text}"
