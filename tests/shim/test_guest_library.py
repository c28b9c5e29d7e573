"""The table of conformance guests: each file is what its line says it is, as pyelftools and GNU readelf see it."""

import io
import shutil
import struct
import subprocess

import pytest
from elftools.elf.elffile import ELFFile
from pvhboot.shim.abi.pvh import XEN_ELFNOTE_PHYS32_ENTRY, XEN_ELFNOTE_PHYS32_RELOC
from pvhboot.shim.guest_library import LIBRARY, guest
from pvhboot.shim.machines import GIB, MIB
from pvhboot.shim.stock import build_guest

NAMES = [one.name for one in LIBRARY]
BOOTING = [one.name for one in LIBRARY if not one.reason]


def elf(name):
    return ELFFile(io.BytesIO(build_guest(name)))


def segments(name, kind):
    return [segment for segment in elf(name).iter_segments() if segment["p_type"] == kind]


def raw_notes(data):
    """(name, type, descriptor) of notes that are packed to 4 bytes."""
    at, found = 0, []
    while at < len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        name_at = at + 12
        descriptor_at = name_at + -(-name_size // 4) * 4
        found.append((data[name_at : name_at + name_size], kind, data[descriptor_at : descriptor_at + size]))
        at = descriptor_at + -(-size // 4) * 4
    return found


def kinds(data):
    return [(name, kind, len(descriptor)) for name, kind, descriptor in raw_notes(data)]


def entries(name):
    """The sizes of the entry's descriptors, in segments and in sections."""
    places = [segment.data() for segment in segments(name, "PT_NOTE")]
    places += [section.data() for section in elf(name).iter_sections() if section["sh_type"] == "SHT_NOTE"]
    return [
        size for data in places for owner, kind, size in kinds(data) if (owner, kind) == (b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY)
    ]


def entry(name):
    places = [segment.data() for segment in segments(name, "PT_NOTE")]
    places += [section.data() for section in elf(name).iter_sections() if section["sh_type"] == "SHT_NOTE"]
    (value,) = {
        int.from_bytes(descriptor, "little")
        for data in places
        for owner, kind, descriptor in raw_notes(data)
        if (owner, kind) == (b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY)
    }
    return value


def spans(name):
    return [(load["p_paddr"], load["p_paddr"] + load["p_memsz"]) for load in segments(name, "PT_LOAD")]


def test_names_are_told_apart():
    assert len(NAMES) == len(set(NAMES))
    assert all(name.startswith("refused-") == bool(guest(name).reason) for name in NAMES)
    assert len({build_guest(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_each_time(name):
    assert build_guest(name) == build_guest(name)
    assert len(build_guest(name)) < 128 << 10


@pytest.mark.parametrize(
    ("name", "bits", "size"),
    [("elf64", 64, 8), ("elf32", 32, 4), ("elf64-entry-4", 64, 4), ("elf32-entry-8", 32, 8), ("freebsd", 64, 4)],
)
def test_class_and_descriptor(name, bits, size):
    assert elf(name).elfclass == bits
    assert entries(name) == [size]


@pytest.mark.parametrize("align", [0, 8, 13])
def test_note_alignment(align):
    (segment,) = segments(f"note-align-{align}", "PT_NOTE")
    assert segment["p_align"] == align


def test_notes_that_a_step_of_8_misses():
    (segment,) = segments("note-align-8-second", "PT_NOTE")
    assert segment["p_align"] == 8
    assert kinds(segment.data()) == [(b"GNU\0", 3, 20), (b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY, 8)]
    assert segment.data().index(b"Xen\0") - 12 == 36  # by 8 it would be 40


def test_note_at_an_odd_offset():
    assert segments("note-skewed", "PT_NOTE")[0]["p_offset"] % 4 == 1


def test_note_behind_others():
    (segment,) = segments("note-last", "PT_NOTE")
    assert kinds(segment.data()) == [
        (b"Vendor\0", 7, 3),
        (b"GNU\0", 3, 20),
        (b"Xen\0", 6, 5),
        (b"Xen\0", 3, 8),
        (b"Xen\0", 18, 8),
    ]


@pytest.mark.parametrize(("name", "which"), [("notes-entry-first", 0), ("notes-entry-second", 1)])
def test_two_note_segments(name, which):
    found = [b"Xen\0" in segment.data() for segment in segments(name, "PT_NOTE")]
    assert found == [number == which for number in range(2)]


def test_two_notes_of_the_type():
    (segment,) = segments("note-foreign-twin", "PT_NOTE")
    (_, _, foreign), (_, _, own) = raw_notes(segment.data())
    assert [name for name, _, _ in raw_notes(segment.data())] == [b"Zen\0", b"Xen\0"]
    assert foreign != own


def test_notes_in_sections():
    assert segments("note-section", "PT_NOTE") == []
    assert entries("note-section") == [8]
    (beside,) = segments("note-section-beside", "PT_NOTE")
    assert b"Xen\0" not in beside.data()
    assert entries("note-section-beside") == [8]


def test_addresses():
    assert [load["p_vaddr"] - load["p_paddr"] for load in segments("vaddr", "PT_LOAD")] == [0xFFFFFFFF80000000]
    assert [load["p_vaddr"] - load["p_paddr"] for load in segments("elf32-vaddr", "PT_LOAD")] == [0xC0000000]
    assert elf("elf-entry")["e_entry"] != entry("elf-entry")
    assert spans("at-16m")[0][0] == 16 * MIB
    assert max(end for _, end in spans("at-1g")) == GIB
    assert [start > 4 * GIB for start, _ in spans("above-4g")] == [False, True]


def test_segments():
    starts = [start for start, _ in spans("loads-unsorted")]
    assert starts != sorted(starts) != starts[::-1]
    touching = sorted(spans("loads-touching"))
    assert [end for _, end in touching[:-1]] == [start for start, _ in touching[1:]]
    assert any(start % 4 for start, _ in touching)
    assert [load["p_filesz"] for load in segments("loads-bss", "PT_LOAD")][2] == 0
    assert any(load["p_filesz"] % 4 and load["p_memsz"] > load["p_filesz"] for load in segments("loads-bss", "PT_LOAD"))
    assert [start == end for start, end in spans("loads-empty")] == [False, True, True]
    assert spans("loads-empty-at-0")[0] == (0, 0)
    assert len(segments("loads-many", "PT_LOAD")) == 48


def test_entry_at_the_edge_of_a_segment():
    below, above = spans("entry-first")
    assert below[1] == above[0] == entry("entry-first")
    below, above = spans("entry-last")
    assert below[1] == above[0] == entry("entry-last") + 1
    assert segments("entry-last", "PT_LOAD")[0].data()[-1:] == b"\xfd"  # std


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reloc-0", ()),
        ("reloc-0-align", ()),
        ("reloc-4", (0x1000,)),
        ("reloc-8", (0x100000, 0x800000)),
        ("reloc-12", (0x200000, 0x1000000, 0x3FFFFFFF)),
        ("elf32-reloc-12", (0x200000, 0x1000000, 0x3FFFFFFF)),
    ],
)
def test_words_of_the_relocation_note(name, words):
    (segment,) = segments(name, "PT_NOTE")
    (descriptor,) = (data for _, kind, data in raw_notes(segment.data()) if kind == XEN_ELFNOTE_PHYS32_RELOC)
    assert struct.unpack(f"<{len(words)}I", descriptor) == words
    placement = guest(name).recipe.relocation
    assert tuple(placement)[: len(words)] == words
    largest = max(load["p_align"] for load in segments(name, "PT_LOAD"))
    assert words or placement == (0x10000 if largest == 0x10000 else 0x200000, 0, 0xFFFFFFFF)


def test_the_shape_of_freebsd():
    file = elf("freebsd")
    assert (file.elfclass, file["e_type"], file["e_machine"]) == (64, "ET_EXEC", "EM_X86_64")
    loads = segments("freebsd", "PT_LOAD")
    assert [load["p_vaddr"] - load["p_paddr"] for load in loads] == [0xFFFFFFFF80000000] * 3
    assert loads[0]["p_paddr"] == 0x200000
    assert (loads[-1]["p_paddr"] + loads[-1]["p_memsz"]) % 0x200000 == 0
    assert file["e_entry"] > 0xFFFFFFFF80200000
    assert all(load["p_offset"] % load["p_align"] == load["p_vaddr"] % load["p_align"] for load in loads)
    (notes,) = segments("freebsd", "PT_NOTE")
    assert [kind for _, kind, _ in raw_notes(notes.data())] == [6, 7, 5, 3, 4, 1, 10, 9, 13, 8, 14, 11, 18]
    assert raw_notes(notes.data())[0] == (b"Xen\0", 6, b"FreeBSD\0")


@pytest.mark.parametrize("name", BOOTING)
def test_memory_is_enough_and_no_more(name):
    memory = guest(name).memory
    end = max(end for _, end in spans(name))
    assert 8 * MIB <= memory - end < 24 * MIB
    assert memory % (16 * MIB) == 0


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no GNU readelf")
@pytest.mark.parametrize("name", sorted(set(BOOTING) - {"note-align-13", "note-align-8-second"}))
def test_readelf_has_nothing_to_say(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(build_guest(name))
    done = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "PHYS32_ENTRY" in done.stdout or "Xen" in done.stdout
