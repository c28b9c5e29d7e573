"""The picture of physical memory: what is drawn of a few segments, of many, and of hostile ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.loader.elf import ProgramHeader
from pvhboot.loader.picture import about, draw, show_flags

MIB = 1 << 20
GIB = 1 << 30


def load(number: int, paddr: int, memsz: int, filesz: int | None = None, flags: int = 5) -> ProgramHeader:
    size = memsz if filesz is None else filesz
    return ProgramHeader(f"PT_LOAD {number}", "PT_LOAD", 0, paddr, paddr, size, memsz, flags, 0x1000)


def test_a_kernel_with_bss_and_a_gap() -> None:
    segments = [load(0, 16 * MIB, 4 * MIB), load(1, 24 * MIB, 4 * MIB, MIB, 6)]
    assert draw(segments, {"PVH entry": 0x1000100, "e_entry": 1 << 60}) == [
        "      0x0            16 MiB free",
        "0x1000000  ████████  PT_LOAD 0 R-X 4 MiB  <- PVH entry 0x1000100",
        "0x1400000            4 MiB free",
        "0x1800000  ██░░░░░░  PT_LOAD 1 RW- 4 MiB, 3 MiB zeros",
        "0x1c00000            the end",
    ]


def test_it_is_drawn_from_the_lowest_address_to_the_highest() -> None:
    lines = draw([load(0, 32 * MIB, MIB), load(1, 16 * MIB, MIB)], {})
    assert [line.split()[0] for line in lines] == ["0x0", "0x1000000", "0x1100000", "0x2000000", "0x2100000"]


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([load(0, MIB, MIB)], ["0x100000  ────────  1 MiB"]),
        ([load(0, 0x8000, 0x1000)], ["0x100000  ────────  1 MiB"]),
        ([load(0, MIB - 1, 2)], ["0x100000  ────────  1 MiB, in PT_LOAD 0"]),
        ([load(0, MIB + 1, MIB)], []),
        ([load(0, 2 * MIB, GIB // 2)], ["0x40000000  ────────  1 GiB"]),
        ([load(0, 2 * MIB, GIB // 2 - 2 * MIB)], []),
        ([load(0, 2 * MIB, GIB)], ["0x40000000  ────────  1 GiB, in PT_LOAD 0"]),
        ([load(0, 4 * GIB, MIB)], ["0x40000000  ────────  1 GiB", "0x100000000  ────────  4 GiB"]),
    ],
)
def test_the_lines_that_matter(segments: list[ProgramHeader], expected: list[str]) -> None:
    assert [line.strip() for line in draw(segments, {}) if "─" in line] == expected


def test_overlaps_and_what_wraps_around() -> None:
    lines = draw([load(0, MIB, 2 * MIB), load(1, 2 * MIB, 0x1000), load(2, (1 << 64) - 0x1000, 0x2000)], {})
    assert any("PT_LOAD 1 R-X 4 KiB  !! overlaps PT_LOAD 0" in line for line in lines)
    assert any("PT_LOAD 2 R-X 8 KiB  !! wraps around" in line for line in lines)


def test_entries_that_do_not_fit_beside_their_segment_come_below() -> None:
    name = "PVH entry of a kernel with a long name"
    lines = draw([load(0, 2 * MIB, 2 * MIB, MIB)], {name: 2 * MIB, "e_entry": 2 * MIB + 1})
    assert lines[-3:-1] == [" " * 20 + f"<- {name} 0x200000", " " * 20 + "<- e_entry 0x200001"]


@pytest.mark.parametrize(
    ("stored", "memory", "bar"),
    [(0, 100, "░░░░░░░░"), (1, 1000, "█░░░░░░░"), (999, 1000, "███████░"), (50, 100, "████░░░░"), (200, 100, "████████")],
)
def test_bars(stored: int, memory: int, bar: str) -> None:
    assert f"  {bar}  " in draw([load(0, 0x200000, memory, stored)], {})[1]


def test_segments_without_memory_are_not_drawn() -> None:
    assert draw([load(0, MIB, 0)], {"PVH entry": MIB}) == []


def test_of_many_segments_the_first_and_the_last_are_drawn() -> None:
    lines = draw([load(number, number * 0x2000, 0x1000) for number in range(65535)], {})
    assert len(lines) < 50
    assert "65515 more segments" in "\n".join(lines)
    assert "PT_LOAD 65534" in lines[-2]
    assert len([line for line in draw([load(n, n * 0x2000, 0x1000) for n in range(21)], {}) if "PT_LOAD" in line]) == 21


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (1 << 20, "1 MiB"), (1 << 64, "16 EiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert about(size) == text


def test_flags() -> None:
    assert [show_flags(flags) for flags in (0, 1, 2, 4, 7, 0xFFFFFFF8)] == ["---", "--X", "-W-", "R--", "RWX", "---"]


NUMBER = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, MIB, GIB, 4 * GIB, (1 << 64) - 1]))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), max_size=40), NUMBER)
def test_any_numbers_are_drawn_within_the_columns(numbers: list[tuple[int, int, int]], entry: int) -> None:
    segments = [load(at, paddr, memsz, filesz) for at, (paddr, memsz, filesz) in enumerate(numbers)]
    lines = draw(segments, {"PVH entry": entry, "e_entry": entry})
    assert all(len(line) <= 98 for line in lines)
    assert bool(lines) == any(memsz for _, memsz, _ in numbers)
