"""ELF files from nearly valid to hostile: valid kernels with faults put into their headers, tables, notes and bytes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st
from pvhboot.shim.abi.elf import PT_LOAD
from pvhboot.shim.abi.pvh import XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE

from .draft import HEADER, NOTES, PROGRAM_HEADERS, SECTION_HEADERS, TABLES, Draft
from .kernels import drafts

_GIB: Final = 1 << 30
_EDGES: Final = (0, PAGE_SIZE, _GIB, 1 << 31, ADDRESS_4G, 1 << 63, 1 << 64)
_SMALL: Final = (2, 3, 4, 7, 8, 13, 18, 19, 0xFFFF)
_LARGE: Final = (-1, -PAGE_SIZE, ADDRESS_4G - 1, ADDRESS_4G - PAGE_SIZE, 1 << 63)
_NUMBERS: Final = st.one_of(  # of a negative one, the field has the low bits
    st.sampled_from(_SMALL),
    st.sampled_from(_LARGE),
    st.builds(lambda edge, delta: edge + delta, st.sampled_from(_EDGES), st.integers(-1, 1)),
)
_ANY: Final = st.integers(0, (1 << 64) - 1)
_INDEX: Final = st.integers(0, 7)
_NEAR: Final = st.integers(-2, 2) | st.integers(-64, 64)

Fault = Callable[[Draft], None]


class _Field(NamedTuple):
    """A field of an entry of a table; of the number, the remainder chooses."""

    table: str
    name: str
    number: int

    def find(self, draft: Draft) -> tuple[str, int, str] | None:
        """Table, entry and field; None if the table is empty."""
        count = len(draft.tables[self.table].offsets)
        return (self.table, self.number % count, self.name) if count else None


# Those that a loader reads; the others are reached by faults that change bytes.
_READ: Final = {
    HEADER: ("e_phoff", "e_phnum", "e_shoff", "e_shnum", "e_shstrndx", "e_phentsize", "e_shentsize", "e_machine", "e_type")
    + ("ei_class", "ei_data"),
    PROGRAM_HEADERS: 2 * ("p_paddr", "p_memsz", "p_filesz", "p_offset") + ("p_type", "p_align"),
    SECTION_HEADERS: ("sh_offset", "sh_size", "sh_name", "sh_type"),
    NOTES: ("n_namesz", "n_descsz", "n_type", "name", "value", "value"),
}
_FIELDS: Final = st.builds(_Field, st.just(PROGRAM_HEADERS), st.sampled_from(_READ[PROGRAM_HEADERS]), _INDEX) | st.sampled_from(
    TABLES
).flatmap(lambda table: st.builds(_Field, st.just(table), st.sampled_from(_READ[table]), _INDEX))


def _set(place: _Field, value: int, draft: Draft) -> None:
    if found := place.find(draft):
        table, entry, name = found
        draft.set_fields(table, entry, {name: value})


def _set_near_size(place: _Field, delta: int, less_offset: bool, draft: Draft) -> None:
    """The field tells the size of the file or nearly so, or what is left of it from the entry's own offset on."""
    if found := place.find(draft):
        table, entry, name = found
        names = draft.tables[table].layout.fields
        start = next((draft.field(table, entry, other) for other in ("p_offset", "sh_offset") if other in names), 0)
        draft.set_fields(table, entry, {name: len(draft.data) - (start if less_offset else 0) + delta})


def _copy(place: _Field, other: int, delta: int, draft: Draft) -> None:
    """The field is as in another entry of the table, or nearly so: ranges overlap, touch, are the same."""
    if found := place.find(draft):
        table, entry, name = found
        other %= len(draft.tables[table].offsets)
        draft.set_fields(table, entry, {name: draft.field(table, other, name) + delta})


def _adjoin(number: int, other: int, delta: int, draft: Draft) -> None:
    """A PT_LOAD begins where another one ends in memory, or nearly so."""
    if loads := _having(draft, PROGRAM_HEADERS, "p_type", PT_LOAD):
        end = _end(draft, loads[other % len(loads)])
        draft.set_fields(PROGRAM_HEADERS, loads[number % len(loads)], {"p_paddr": end + delta})


def _reach(number: int, delta: int, draft: Draft) -> None:
    """A PT_LOAD reaches to the end of the file, or nearly so, and has as much memory."""
    if loads := _having(draft, PROGRAM_HEADERS, "p_type", PT_LOAD):
        number = loads[number % len(loads)]
        size = len(draft.data) - draft.field(PROGRAM_HEADERS, number, "p_offset") + delta
        memory = max(size, draft.field(PROGRAM_HEADERS, number, "p_memsz"))
        draft.set_fields(PROGRAM_HEADERS, number, {"p_filesz": size, "p_memsz": memory})


def _aim(number: int, at: int, delta: int, draft: Draft) -> None:
    """The entry is where a PT_LOAD begins, or ends, or 4 GiB, or nearly so."""
    notes = _having(draft, NOTES, "n_type", XEN_ELFNOTE_PHYS32_ENTRY)
    loads = _having(draft, PROGRAM_HEADERS, "p_type", PT_LOAD)
    if notes and loads:
        load = loads[at % len(loads)]
        targets = (draft.field(PROGRAM_HEADERS, load, "p_paddr"), _end(draft, load), ADDRESS_4G)
        draft.set_fields(NOTES, notes[number % len(notes)], {"value": targets[at % 3] + delta})


def _having(draft: Draft, table: str, name: str, value: int) -> list[int]:
    """The entries of a table in which a field has that value."""
    return [number for number in range(len(draft.tables[table].offsets)) if draft.field(table, number, name) == value]


def _end(draft: Draft, number: int) -> int:
    return sum(draft.field(PROGRAM_HEADERS, number, name) for name in ("p_paddr", "p_memsz"))


def _point(table: str, onto: str, entry: int, delta: int, draft: Draft) -> None:
    """A table lies upon another one, or the ELF header, or notes."""
    if offsets := draft.tables[onto].offsets:
        draft.point(table, offsets[entry % len(offsets)] + delta, len(draft.tables[table].offsets) or 1)


def _repeat(table: str, entry: int, count: int, draft: Draft) -> None:
    if offsets := draft.tables[table].offsets:
        draft.repeat(table, entry % len(offsets), count)


def _write(at: int, data: bytes, draft: Draft) -> None:
    at = _position(at, draft)
    draft.data[at : at + len(data)] = data


def _flip(at: int, bit: int, draft: Draft) -> None:
    draft.data[_position(at, draft)] ^= 1 << bit


def _insert(at: int, data: bytes, draft: Draft) -> None:
    at = _position(at, draft)
    draft.data[at:at] = data


def _position(at: int, draft: Draft) -> int:
    """Where a number points to: the ELF header comes last, as most of what it says wrong is soon refused."""
    return (at + draft.layouts.header.size) % len(draft.data)


def _fault(make: Callable[..., None], *parameters: st.SearchStrategy[Any]) -> st.SearchStrategy[Fault]:
    return st.tuples(*parameters).map(lambda drawn: partial(make, *drawn))


_TABLE: Final = st.sampled_from((PROGRAM_HEADERS, SECTION_HEADERS))
_FAULTS: Final = st.one_of(
    _fault(_set, _FIELDS, _NUMBERS),
    _fault(_set, _FIELDS, _NUMBERS | _ANY),
    _fault(_set_near_size, _FIELDS, _NEAR, st.booleans()),
    _fault(_copy, _FIELDS, _INDEX, _NEAR),
    _fault(_adjoin, _INDEX, _INDEX, st.integers(-1, 1)),
    _fault(_reach, _INDEX, st.integers(-1, 1)),
    _fault(_aim, _INDEX, st.integers(0, 20), st.integers(-1, 1)),
    _fault(_point, _TABLE, st.sampled_from(TABLES), _INDEX, _NEAR),
    _fault(_repeat, _TABLE, _INDEX, st.integers(1, 300)),
    _fault(_write, st.integers(0, 64) | st.integers(0, 4096), st.binary(min_size=1, max_size=8)),
    _fault(_flip, st.integers(0, 64) | st.integers(0, 4096), st.integers(0, 7)),
    _fault(_insert, st.integers(0, 4096), st.binary(min_size=1, max_size=8)),
)


def _damaged(draft: Draft, faults: list[Fault], cut: int) -> bytes:
    """With faults, and so many bytes cut off its end."""
    for fault in faults:
        fault(draft)
    return bytes(draft.data[: len(draft.data) - cut % (len(draft.data) + 1)])


_ELVES: Final = st.builds(
    _damaged,
    drafts(),
    st.lists(_FAULTS, min_size=1, max_size=2) | st.lists(_FAULTS, max_size=8),
    st.one_of(*[st.just(0)] * 10, st.integers(0, 64), st.integers(0, 1 << 16)),
)


@st.composite
def elves(draw: st.DrawFn) -> bytes:
    """ELF files from valid to hostile: fields of any header with extreme values, or such as make ranges overlap, touch or end
    at the end of the file; tables that lie upon others or have hundreds of entries; broken notes; bytes changed and inserted;
    the end cut off anywhere. Most have one fault or two, and get far."""
    return draw(_ELVES)
