"""Notes: packing, bounds, and the choice of the PVH entry."""

import struct

import pytest
from pvhboot.loader.notes import NOTES_MAX_SIZE, Note, has_pvh_entry, iter_notes, pvh_entry, pvh_relocation
from pvhboot.shim.abi.pvh import NOTE_NAME, Relocation
from pvhboot.shim.errors import BootError


def _parse(data: bytes) -> list[Note]:
    return list(iter_notes(data, "PT_NOTE 0", "file offset 0x40"))


def test_literal_bytes_of_a_note() -> None:
    data = bytes.fromhex("04000000 04000000 12000000 58656e00 00001000")
    assert _parse(data) == [Note(b"Xen\0", 18, b"\x00\x00\x10\x00", "PT_NOTE 0")]


def test_names_and_descriptors_are_padded_to_4_bytes_each() -> None:
    first = struct.pack("<III", 6, 5, 0x100) + b"Linux\0\0\0" + b"6.1.0\0\0\0"
    second = struct.pack("<III", 4, 0, 19) + b"Xen\0"
    assert [note[:3] for note in _parse(first + second)] == [(b"Linux\0", 0x100, b"6.1.0"), (b"Xen\0", 19, b"")]


def test_padding_of_the_last_note_may_be_missing() -> None:
    assert _parse(struct.pack("<III", 4, 5, 6) + b"Xen\0linux")[0].descriptor == b"linux"
    assert _parse(struct.pack("<III", 1, 0, 6) + b"\0")[0].name == b"\0"


@pytest.mark.parametrize("size", range(12))
def test_zeros_too_few_for_a_note_are_padding(size: int) -> None:
    data = struct.pack("<III", 4, 4, 18) + b"Xen\0" + bytes(4) + bytes(size)
    assert len(_parse(data)) == 1


@pytest.mark.parametrize("size", range(1, 20))
def test_every_cut_is_a_truncated_note(size: int) -> None:
    data = bytes.fromhex("04000000 04000000 12000000 58656e00 00001000")[:size]
    with pytest.raises(BootError, match=r"^PT_NOTE 0 \(file offset 0x40\): truncated note at \+0x0: "):
        _parse(data)


def test_no_data_no_notes() -> None:
    assert _parse(b"") == []


def test_the_place_of_a_later_truncated_note_is_named() -> None:
    good = struct.pack("<III", 4, 0, 19) + b"Xen\0"
    with pytest.raises(
        BootError, match=r"truncated note at \+0x20: name of 4 bytes and descriptor of 9 bytes, but only 4 follow"
    ):
        _parse(good * 2 + struct.pack("<III", 4, 9, 18) + b"Xen\0")


def test_many_notes_are_read_in_linear_time() -> None:
    assert len(_parse(bytes(NOTES_MAX_SIZE))) == -(-NOTES_MAX_SIZE // 12) - 1  # the rest is padding


def _entry(descriptor: bytes, name: bytes = NOTE_NAME, source: str = "PT_NOTE 0") -> Note:
    return Note(name, 18, descriptor, source)


@pytest.mark.parametrize("descriptor", ["50080001", "5008000100000000"])
def test_both_descriptor_sizes(descriptor: str) -> None:
    assert pvh_entry([_entry(bytes.fromhex(descriptor))]) == 0x1000850


def test_the_highest_32_bit_entry() -> None:
    assert pvh_entry([_entry(b"\xff" * 4)]) == 0xFFFFFFFF
    assert pvh_entry([_entry(b"\xff" * 4 + bytes(4))]) == 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 6, 7, 9, 12, 16])
def test_other_descriptor_sizes_are_refused(size: int) -> None:
    with pytest.raises(BootError, match=rf"descriptor of {size} bytes: 4 or 8"):
        pvh_entry([_entry(bytes(size))])


def test_a_note_of_another_owner_with_the_same_type_does_not_count() -> None:
    assert pvh_entry([_entry(b"\1\0\0\0", b"GNU\0"), _entry(b"\2\0\0\0")]) == 2
    assert not has_pvh_entry([_entry(b"\1\0\0\0", b"GNU\0")])


def test_the_same_entry_twice_is_fine_and_two_different_are_not() -> None:
    assert pvh_entry([_entry(b"\1\0\0\0"), _entry(b"\1" + bytes(7))]) == 1
    with pytest.raises(BootError, match=r"0x1 in PT_NOTE 0 and 0x2 in PT_NOTE 1"):
        pvh_entry([_entry(b"\1\0\0\0"), _entry(b"\2\0\0\0", source="PT_NOTE 1")])


def test_messages_stay_short_whatever_the_notes() -> None:
    with pytest.raises(BootError) as long_name:
        pvh_entry([_entry(b"", b"A" * 100000)])
    with pytest.raises(BootError) as many:
        pvh_entry([Note(NOTE_NAME, kind, b"", "PT_NOTE 0") for kind in range(1000, 60000)])
    assert len(str(long_name.value)) < 200
    assert len(str(many.value)) < 400


def test_the_xen_notes_that_were_seen_are_named() -> None:
    with pytest.raises(BootError, match=r"its Xen notes are GUEST_OS, PHYS32_RELOC"):
        pvh_entry([Note(NOTE_NAME, 19, b"", "a"), Note(NOTE_NAME, 6, b"", "a"), Note(b"GNU\0", 3, b"", "a")])


# PHYS32_RELOC.


def _reloc(*values: int, source: str = "PT_NOTE 0") -> Note:
    return Note(NOTE_NAME, 19, struct.pack(f"<{len(values)}I", *values), source)


@pytest.mark.parametrize(
    ("values", "aligns", "relocation"),
    [
        ((), [], (0x200000, 0, 0xFFFFFFFF)),
        ((), [0, 1, 0x800], (0x200000, 0, 0xFFFFFFFF)),  # less than a page says nothing
        ((), [0x1000, 0x4000, 4], (0x4000, 0, 0xFFFFFFFF)),
        ((), [1 << 40], (1 << 40, 0, 0xFFFFFFFF)),
        ((0x1000,), [0x200000], (0x1000, 0, 0xFFFFFFFF)),
        ((1,), [], (1, 0, 0xFFFFFFFF)),
        ((0x1000, 0x100000), [], (0x1000, 0x100000, 0xFFFFFFFF)),
        ((0x200000, 0x1000000, 0x3FFFFFFF), [], (0x200000, 0x1000000, 0x3FFFFFFF)),
        ((0x1000,), [13], (0x1000, 0, 0xFFFFFFFF)),
    ],
)
def test_what_a_relocation_note_leaves_out_has_its_default(
    values: tuple[int, ...], aligns: list[int], relocation: tuple[int, int, int]
) -> None:
    assert pvh_relocation([_entry(bytes(4)), _reloc(*values)], aligns) == Relocation(*relocation)


def test_without_the_note_there_is_no_relocation() -> None:
    assert pvh_relocation([_entry(bytes(4)), Note(b"GNU\0", 19, b"", "a")], [0x1000]) is None


def test_the_same_relocation_note_in_segment_and_section_is_one() -> None:
    assert pvh_relocation([_reloc(16), _reloc(16, source="section .notes")], []) == Relocation(16, 0, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("notes", "aligns", "message"),
    [
        (
            [Note(NOTE_NAME, 19, bytes(5), "PT_NOTE 0")],
            [],
            r"PHYS32_RELOC note in PT_NOTE 0 has a descriptor of 5 bytes: 0, 4, 8 or 12",
        ),
        ([Note(NOTE_NAME, 19, bytes(16), "PT_NOTE 0")], [], r"has a descriptor of 16 bytes"),
        ([_reloc(0)], [], r"PHYS32_RELOC note in PT_NOTE 0 has an alignment of 0x0: a power of two"),
        ([_reloc(0x3000, 0, 5)], [], r"has an alignment of 0x3000"),
        ([_reloc()], [0x1800], r"leaves it to the segments to have an alignment of 0x1800"),
        ([_reloc(1), _reloc(2, source="PT_NOTE 1")], [], r"two PHYS32_RELOC notes that differ, in PT_NOTE 0 and PT_NOTE 1"),
    ],
)
def test_a_relocation_note_that_cannot_be_is_refused(notes: list[Note], aligns: list[int], message: str) -> None:
    with pytest.raises(BootError, match=message):
        pvh_relocation(notes, aligns)
