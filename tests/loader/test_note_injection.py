"""The note that is injected, or written anew: what it replaces, what stays, and that each loader's model takes the result."""

import io
import struct

import pytest
from elftools.elf.elffile import ELFFile
from forge_elf import (
    CODE,
    ENTRY,
    GNU_NOTE,
    HOSTILE,
    MEMSZ,
    PADDR,
    XEN_NOTES,
    entry_note,
    forge,
    load_segment,
    note_segment,
    patch_header,
    patch_program_header,
    with_program_headers,
)
from hypothesis import given
from hypothesis import strategies as st
from malformed_notes import MALFORMED
from pvhboot.loader.examination import examine
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.note_injection import find_entry, inject
from pvhboot.loader.verdict import Judged, judge
from pvhboot.loader.wrapping import Wrapping
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.errors import BootError

TAKES_ELF32 = ("qemu", "xen", "pvhboot")
TAKES_ELF64 = (*TAKES_ELF32, "firecracker", "cloud-hypervisor", "libkrun")


def result_of(data, entry=None):
    done = inject(BytesImage(data), entry)
    out = done.image.read(0, done.image.size)
    check(data, out, done)
    return done, out


def check(data, out, done):
    """Nothing else is changed, the result is in order, and each model enters it where it was told."""
    header, old_header = ELFFile(io.BytesIO(out)).header, ELFFile(io.BytesIO(data)).header
    expected = bytearray(data)
    bits = 32 * data[4]
    phoff, phnum = ((28, "<I"), (44, "<H")) if bits == 32 else ((32, "<Q"), (56, "<H"))
    if done.table is None:
        table = slice(header["e_phoff"], header["e_phoff"] + header["e_phnum"] * header["e_phentsize"])
        expected[table] = out[table]
    else:
        assert done.table == header["e_phoff"] >= len(data)
        struct.pack_into(phoff[1], expected, phoff[0], done.table)
        struct.pack_into(phnum[1], expected, phnum[0], header["e_phnum"])
    assert out[: len(data)] == expected
    old, new = (list(ELFFile(io.BytesIO(file)).iter_segments()) for file in (data, out))
    kept = [segment.header for segment in old if segment["p_type"] not in ("PT_NOTE", "PT_NULL")]
    assert [segment.header for segment in new if segment["p_type"] not in ("PT_NOTE", "PT_NULL")] == kept
    (noted,) = (segment.header for segment in new if segment["p_type"] == "PT_NOTE")
    assert (noted["p_align"], noted["p_filesz"], noted["p_memsz"]) == (4, done.size, done.size)
    assert noted["p_offset"] == done.offset >= len(data)
    assert done.offset % 8 == header["e_phoff"] % 8 == 0 or header["e_phoff"] == old_header["e_phoff"]
    descriptor = done.entry.to_bytes(bits // 8, "little")
    assert out[done.offset :].startswith(note(b"Xen\0", 18, descriptor))
    image = BytesImage(out)
    verdicts = {
        verdict.by: verdict for verdict in judge(Judged(image, Wrapping("", 0, image.size), image, examine(image), "good"))
    }
    for name in TAKES_ELF64 if bits == 64 else TAKES_ELF32:
        assert (verdicts[name].outcome, verdicts[name].entry) == ("accepts", done.entry), verdicts[name]


@pytest.mark.parametrize("bits", [32, 64])
def test_a_kernel_without_notes_gets_a_header_for_them(bits):
    done, out = result_of(forge(bits, notes=b""), ENTRY)
    assert (done.old, done.kept, done.lost) == ((), 0, ())
    assert done.table is not None
    assert Kernel.from_bytes(out, "out").entry == ENTRY


@pytest.mark.parametrize("bits", [32, 64])
def test_a_free_header_is_used(bits):
    """A PT_NOTE, or else a PT_NULL."""
    for data in (forge(bits, notes=GNU_NOTE), patch_program_header(forge(bits, notes=GNU_NOTE), 1, type=0)):
        done, _ = result_of(data, ENTRY)
        assert done.table is None
    assert result_of(forge(bits, notes=GNU_NOTE), ENTRY)[0].kept == 1


def test_all_other_notes_are_kept_once_and_in_order():
    foreign = entry_note(0x1234, name=b"Zen\0")  # QEMU would take it, if it came first
    data = forge(notes=foreign + XEN_NOTES + entry_note(), more=[note_segment(GNU_NOTE + XEN_NOTES)])
    done, out = result_of(data)
    assert out[done.offset : done.offset + done.size] == entry_note() + foreign + XEN_NOTES + GNU_NOTE
    assert done.kept == 5


def test_a_relocatable_kernel_stays_one():
    relocation = note(b"Xen\0", 19, struct.pack("<III", 0x200000, 0x100000, 0x3FFFFFFF))
    done, out = result_of(forge(notes=relocation + entry_note(size=4)))
    assert relocation in out[done.offset :]


@pytest.mark.parametrize(("make", "old"), MALFORMED.values(), ids=MALFORMED)
def test_a_note_that_some_loader_misreads_is_written_anew(make, old):
    done, _ = result_of(make())
    assert [tuple(found) for found in done.old] == old


def test_the_result_is_as_it_should_be():
    """So that a second time there is nothing to do."""
    for bits in (32, 64):
        _, out = result_of(forge(bits, note_align=8))
        with pytest.raises(BootError, match=f"nothing to repack: its PHYS32_ENTRY {ENTRY:#x} in PT_NOTE 0 is well-formed"):
            inject(BytesImage(out))


def test_another_entry_replaces_the_old_one():
    done, out = result_of(forge(notes=XEN_NOTES + entry_note()), PADDR + 8)
    assert [found.value for found in done.old] == [ENTRY]
    assert Kernel.from_bytes(out, "out").entry == PADDR + 8
    assert entry_note() not in out[done.offset :]


def test_what_cannot_be_read_is_left_out_and_said():
    truncated = patch_program_header(forge(more=[note_segment(GNU_NOTE)]), 2, filesz=1 << 20)
    done, _ = result_of(truncated)
    assert done.kept == 0
    assert "truncated PT_NOTE 1" in done.lost[0]
    done, _ = result_of(forge(notes=GNU_NOTE + entry_note()[:20]), ENTRY)
    assert done.kept == 1
    assert "truncated note at +0x24" in done.lost[0]


def test_a_table_inside_of_the_elf_header_is_moved():
    """linux-loader refuses it there. e_phnum is at 56, where the first p_type is then: 3, which is PT_INTERP."""
    data = forge()
    interp = struct.pack("<IIQQQQQQ", 3, 0, 0, 0, 0, 0, 0, 1)
    table = interp + data[64 : 64 + 2 * 56]
    assert not any(data[64 + 2 * 56 : 56 + len(table)])  # there is room
    data = patch_header(data, phoff=56, shoff=0)
    data = data[:56] + table + data[56 + len(table) :]
    done = inject(BytesImage(data))
    out = done.image.read(0, done.image.size)
    assert done.table == struct.unpack_from("<Q", out, 32)[0] >= len(data)
    assert Kernel.from_bytes(out, "out").entry == ENTRY


REFUSED = {
    "no-entry": (lambda: forge(notes=XEN_NOTES), None, "no PHYS32_ENTRY note to repack: give its entry with --entry"),
    "no-notes": (lambda: forge(notes=b""), None, "no PHYS32_ENTRY note to repack"),
    "foreign": (lambda: forge(notes=entry_note(name=b"Zen\0")), None, "no PHYS32_ENTRY note to repack"),
    "outside": (lambda: forge(notes=entry_note(PADDR - 1)), None, "PT_NOTE 0 says nothing that is loaded"),
    "differ": (
        lambda: forge(notes=entry_note() + entry_note(PADDR)),
        None,
        "differ, 0x100001 in PT_NOTE 0 and 0x100000 in PT_NOTE 0",
    ),
    "good": (forge, None, "nothing to repack"),
    "entry-outside": (
        forge,
        PADDR - 1,
        "no bytes of the file are loaded to the entry 0xfffff: those of PT_LOAD go to 0x100000-",
    ),
    "entry-in-bss": (forge, PADDR + MEMSZ - 1, "no bytes of the file are loaded to the entry 0x101fff"),
    "entry-above-4-gib": (forge, 1 << 32, "0x100000000 is no 32-bit address"),
    "many": (lambda: forge(notes=entry_note() * 100), PADDR, "64 PHYS32_ENTRY notes or more"),
    "overlap": (lambda: forge(notes=b"", loads=[load_segment(), load_segment()]), PADDR, "overlap in physical memory"),
    "headers": (
        lambda: with_program_headers(forge(notes=b""), 0xFFFE, 0),
        PADDR,
        "65535 program headers with one for the notes: an ELF file has at most 65534",
    ),
}


@pytest.mark.parametrize(("make", "entry", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(make, entry, message):
    with pytest.raises(BootError, match=message):
        inject(BytesImage(make()), entry)


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("entry", [None, ENTRY])
def test_a_hostile_file_is_refused_or_made_good(make, message, entry):  # noqa: ARG001
    data = make()
    try:
        done = inject(BytesImage(data), entry)
    except BootError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
        return
    out = done.image.read(0, done.image.size)
    assert Kernel.from_bytes(out, "out").entry == done.entry


@given(st.binary(max_size=200), st.sampled_from([0, 1, 4, 8, 13]), st.sampled_from([32, 64]))
def test_notes_of_any_bytes_are_read(garbage, align, bits):
    data = forge(bits, notes=garbage + entry_note(), note_align=align)
    done = inject(BytesImage(data), PADDR)
    assert done.entry == PADDR
    assert examine(BytesImage(done.image.read(0, done.image.size))).entry == PADDR


# Symbols.


def with_symbols(symbols, bits=64, offset=0):
    """A kernel without notes that is linked `offset` above where it is loaded, in two segments."""
    low = ElfSegment(PT_LOAD, 0x100000, CODE, 0x1000, PF_R | PF_X, 16, 0x100000)
    high = ElfSegment(PT_LOAD, 0x200000, CODE, 0x1000, PF_R | PF_X, 16, 0x200000 + offset)
    return write_elf(bits, 0x100000, [low, high], symbols)


@pytest.mark.parametrize(("bits", "offset"), [(64, 0xFFFFFFFF80000000), (32, 0xC0000000), (64, 0)])
def test_a_symbol_is_found_where_it_is_loaded(bits, offset):
    image = BytesImage(
        with_symbols({"_start": 0x100003, "pvh_start": 0x200010 + offset, "start": 0x200000 + offset}, bits, offset)
    )
    assert find_entry(image, "_start") == 0x100003
    assert find_entry(image, "pvh_start") == 0x200010
    assert find_entry(image, "start") == 0x200000  # not the end of another name


def absolute(data, index):
    """The symbol with that index made absolute: st_shndx is at 6 in an Elf64_Sym."""
    at = next(section for section in ELFFile(io.BytesIO(data)).iter_sections() if section["sh_type"] == "SHT_SYMTAB")[
        "sh_offset"
    ]
    out = bytearray(data)
    struct.pack_into("<H", out, at + 24 * index + 6, 0xFFF1)
    return bytes(out)


def test_an_absolute_symbol_is_a_physical_address_if_nothing_is_linked_there():
    data = with_symbols({"low": 0x100001, "phys_startup": 0x200008}, offset=0xFFFFFFFF80000000)
    with pytest.raises(BootError, match="'phys_startup' at 0x200008 lies in no PT_LOAD segment"):
        find_entry(BytesImage(data), "phys_startup")
    assert find_entry(BytesImage(absolute(data, 2)), "phys_startup") == 0x200008


def test_symbols_that_are_not_there_or_not_sure():
    image = BytesImage(with_symbols({"one": 0x100000, "two": 0x900000}))
    with pytest.raises(BootError, match="no symbol 'three': nm lists"):
        find_entry(image, "three")
    with pytest.raises(BootError, match="no symbol 'tw'"):
        find_entry(image, "tw")
    with pytest.raises(BootError, match="'two' at 0x900000 lies in no PT_LOAD"):
        find_entry(image, "two")
    twice = with_symbols({"one": 0x100000, "eno": 0x100008}).replace(b"\0eno\0", b"\0one\0")
    with pytest.raises(BootError, match="2 symbols 'one', at 0x100000, 0x100008: give the address"):
        find_entry(BytesImage(twice), "one")
    with pytest.raises(BootError, match="no symbol table"):
        find_entry(BytesImage(patch_header(with_symbols({}), shoff=0, shnum=0)), "one")
    with pytest.raises(BootError, match="truncated section headers"):
        find_entry(BytesImage(with_symbols({"one": 1})[:-1]), "one")
