"""The shadow: exact to the byte, whatever pages it is in."""

from hypothesis import given
from hypothesis import strategies as st
from pvhboot.emu.shadow import Shadow

PAGE = 0x1000


def test_nothing_is_written_at_first():
    shadow = Shadow()
    assert not shadow.holds(0, 1)
    assert not shadow.has(0)
    assert shadow.missing(0x1FFE, 4) == [0, 1, 2, 3]


def test_no_bytes_are_always_there():
    assert Shadow().holds(0x1234, 0)


def test_a_dword_of_which_a_word_was_written():
    shadow = Shadow()
    shadow.add(0x7000, 2)
    assert shadow.holds(0x7000, 2)
    assert not shadow.holds(0x7000, 4)
    assert shadow.missing(0x7000, 4) == [2, 3]
    assert shadow.missing(0x6FFF, 3) == [0]


def test_a_page_that_fills_up_piece_by_piece():
    shadow = Shadow()
    for at in range(0, PAGE, 8):
        shadow.add(0x5000 + at, 8)
    assert shadow.holds(0x5000, PAGE)
    shadow.add(0x5004, 2)
    assert shadow.holds(0x5000, PAGE)


def test_whole_pages_with_a_piece_at_each_end():
    shadow = Shadow()
    shadow.add(0x1FFF, 3 * PAGE)
    assert shadow.missing(0x1FFE, 2) == [0]
    assert shadow.holds(0x1FFF, 3 * PAGE)
    assert shadow.missing(0x4FFD, 4) == [2, 3]


def test_a_tebibyte_is_no_burden_to_what_is_not_touched():
    shadow = Shadow()
    shadow.add((1 << 40) - 1, 2)
    assert shadow.holds((1 << 40) - 1, 2)
    assert not shadow.has((1 << 40) + 1)


SPANS = st.lists(st.tuples(st.integers(0, 3 * PAGE), st.integers(0, 2 * PAGE)), max_size=6)


@given(SPANS, st.integers(0, 4 * PAGE), st.integers(0, 2 * PAGE))
def test_it_is_a_set_of_addresses(spans, paddr, size):
    shadow, model = Shadow(), set()
    for start, count in spans:
        shadow.add(start, count)
        model |= set(range(start, start + count))
    missing = [at for at in range(size) if paddr + at not in model]
    assert shadow.missing(paddr, size) == missing
    assert shadow.holds(paddr, size) == (not missing)
