"""What a host says of its memory: e820 entries, as values and as fw_cfg's etc/e820."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, NamedTuple

from hypothesis import strategies as st
from pvhboot.loader.ranges import without
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.abi.pvh import (
    MEMMAP_TYPE_ACPI,
    MEMMAP_TYPE_NVS,
    MEMMAP_TYPE_RAM,
    MEMMAP_TYPE_RESERVED,
    MEMMAP_TYPE_UNUSABLE,
)
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.machines import FW_CFG_MAX_E820, MIB, MachineSpec, Span, ram_spans, reserved_spans

_ROM_BYTES: Final = 1 << 20  # below 4 GiB, that no range of the host may lie in: firmwares are not larger
MOST: Final = FW_CFG_MAX_E820 - 1  # entries: with ECAM, or ACPI tables, pvhboot's firmwares have room for one less
FIRST_END: Final = 16 * MIB  # room for ACPI tables, beside a small kernel
_HIGH_END: Final = 1 << 40
_IN_RAM: Final = (MEMMAP_TYPE_RESERVED, MEMMAP_TYPE_ACPI, MEMMAP_TYPE_NVS, MEMMAP_TYPE_UNUSABLE)
_ELSEWHERE: Final = (MEMMAP_TYPE_RESERVED, MEMMAP_TYPE_UNUSABLE)
_LAST: Final = (1 << 64) - 1


class _Strip(NamedTuple):
    """A range: how many pages behind the one before it, its own pages, its type."""

    gap: int
    pages: int
    kind: int


def _strips(kinds: Sequence[int]) -> st.SearchStrategy[_Strip]:
    return st.builds(_Strip, st.integers(0, 4096), st.integers(1, 2048), st.sampled_from(kinds))


_FEW_IN_RAM: Final = st.lists(_strips(_IN_RAM), max_size=6)


@st.composite
def memory_maps(
    draw: st.DrawFn,
    spec: MachineSpec,
    memory: int,
    kept: Sequence[Span] = (),
    *,
    first_end: int = FIRST_END,
    most: int = MOST,
) -> tuple[E820Entry, ...]:
    """What an honest host may say of a machine with `memory` bytes of RAM.

    One entry is RAM from 0 to `first_end` or beyond. From there on the RAM is in one piece or many, with ranges in it that are
    reserved, ACPI's or unusable, none of them where `kept` is: kernel and modules. Reserved and unusable ranges lie where no
    RAM is, below and above 4 GiB. At most `most` entries, in any order; none is empty, none overlaps another or what the
    firmware adds.
    """
    low, *high = ram_spans(spec, memory)
    free = without([low, *high], [Span("", 0, first_end), *kept])
    in_ram = [entry for span in free for entry in _laid(draw(_FEW_IN_RAM), span)][: (most - 1 - len(high)) // 2]
    holes = [Span("", entry.addr, entry.addr + entry.size) for entry in in_ram]
    ram = [E820Entry(span.start, span.size, MEMMAP_TYPE_RAM) for span in without([low, *high], holes)]
    outside = [Span("", low.end, ADDRESS_4G), Span("", high[-1].end if high else ADDRESS_4G, _HIGH_END)]
    gaps = without(outside, reserved_spans(spec, _ROM_BYTES))
    elsewhere = [entry for span in gaps for entry in _laid(draw(_few_or_many(most)), span)]
    entries = sorted([*ram, *in_ram, *elsewhere[: most - len(ram) - len(in_ram)]])
    ranks = draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
    order = sorted(range(len(entries)), key=lambda at: (ranks[at % len(ranks)], at))
    return tuple(entries[at] for at in order)


@cache
def _few_or_many(most: int) -> st.SearchStrategy[list[_Strip]]:
    strips = _strips(_ELSEWHERE)
    return st.lists(strips, max_size=6) | st.builds(lambda strip, count: [strip] * count, strips, st.integers(0, most))


def _laid(strips: Sequence[_Strip], span: Span) -> list[E820Entry]:
    """Ranges from the start of a span on, as many as fit."""
    entries = []
    at = span.start
    for strip in strips:
        start = at + strip.gap * PAGE_SIZE
        at = start + strip.pages * PAGE_SIZE
        if at > span.end:
            break
        entries.append(E820Entry(start, at - start, strip.kind))
    return entries


def e820_file(entries: Iterable[E820Entry]) -> bytes:
    """The entries as fw_cfg's etc/e820 has them."""
    return b"".join(map(E820_ENTRY.pack, entries))


_ABSURD: Final = (100, *range(FW_CFG_MAX_E820 - 2, FW_CFG_MAX_E820 + 2), 500)


@st.composite
def hostile_memory_maps(draw: st.DrawFn, memory: int) -> tuple[E820Entry, ...]:
    """Whatever may be said of a machine with `memory` bytes of RAM: no RAM or twice the same, ranges that overlap, wrap, are
    empty, have types that nobody knows, lie anywhere; hundreds of them; and, often, good ones only."""
    return tuple(draw(_hostile(memory)))


@cache
def _hostile(memory: int) -> st.SearchStrategy[list[E820Entry]]:
    quads = st.sampled_from((0, 1, 0x9F000, 0xF0000, MIB, memory, 0xC0000000, 0xFFFF0000, ADDRESS_4G, _HIGH_END, _LAST))
    ram = st.just(E820Entry(0, memory, MEMMAP_TYPE_RAM))
    regular = st.builds(
        lambda at, size, kind: E820Entry(at << 16, size << 12, kind),
        st.integers(0x1000, 0xFFFF),
        st.integers(0, 15),
        st.integers(2, 9),
    )
    other = st.builds(E820Entry, quads | st.integers(memory, _HIGH_END), quads | st.integers(0, ADDRESS_4G), st.integers(0, 9))
    lists = st.builds(
        lambda first, more, last: [*first, *more, *last],
        st.lists(regular | other, max_size=3),
        st.lists(ram, min_size=1, max_size=1) | st.lists(ram, max_size=2),
        st.lists(regular, max_size=40, unique_by=lambda entry: entry.addr) | st.lists(other, max_size=4),
    )
    many = st.builds(
        lambda count: [
            E820Entry(0, memory, MEMMAP_TYPE_RAM),
            *(E820Entry((0x10000 + at) << 16, PAGE_SIZE, MEMMAP_TYPE_RESERVED) for at in range(count)),
        ],
        st.sampled_from(_ABSURD),
    )
    return lists | many | st.just([])


@st.composite
def e820_files(draw: st.DrawFn, memory: int) -> bytes:
    """The file etc/e820 of a host that says anything, also a file that ends within an entry."""
    packed = _hostile(memory).map(e820_file)
    return draw(packed | packed.map(lambda data: data[:-1]) | packed.map(lambda data: data + b"\0"))
