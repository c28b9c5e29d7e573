"""inspect: tells of any readable file, however broken, and agrees with Kernel on what boots."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_bzimage import PACKERS, VERSION_STRING, bzimage, bzimage_of, pack_payload
from forge_elf import (
    ENTRY,
    GNU_NOTE,
    HOSTILE,
    PADDR,
    XEN_NOTES,
    entry_note,
    forge,
    load_segment,
    patch_bytes,
    patch_header,
    patch_program_header,
    with_note_section,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.loader.inspection import BzImageFacts, Inspection, inspect
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.elfwriter import note
from pvhboot.shim.errors import BootError

Told = Callable[[bytes], Inspection]


def payload(found: Inspection) -> tuple[object, ...]:
    """What was found of a bzImage, but for its setup header."""
    assert found.bzimage is not None
    return tuple(value for name, value in found.bzimage._asdict().items() if name != "header")


def squeezed(text: str) -> str:
    """Without its line breaks and columns."""
    return " ".join(text.split())


def test_a_bootable_kernel(told: Told) -> None:
    found = told(forge(notes=GNU_NOTE + XEN_NOTES + entry_note()))
    assert (found.bootable, found.entry, found.reason) == (True, ENTRY, f"PHYS32_ENTRY {ENTRY:#x} in PT_NOTE 0")
    assert (found.kind, found.elf_class, found.machine, found.type) == ("ELF64", "ELF64", "EM_X86_64", "ET_EXEC")
    assert found.elf_entry == PADDR
    assert [header.name for header in found.headers] == ["PT_LOAD 0", "PT_NOTE 0"]
    assert [(n.owner, n.type) for n in found.notes] == [
        ("GNU", "BUILD_ID"),
        ("Xen", "GUEST_OS"),
        ("Xen", "VIRT_BASE"),
        ("Xen", "0x63"),
        ("Xen", "PHYS32_ENTRY"),
    ]
    assert found.notes[0].text == bytes(range(20)).hex()
    assert found.notes[1].text == '"linux"'
    assert found.notes[-1].value == ENTRY
    assert [(n.number, n.value, n.descriptor) for n in found.notes[1:3]] == [
        (6, None, b"linux\0".hex()),
        (3, 0, bytes(8).hex()),
    ]
    assert found.problems == ()


def test_gzip(told: Told) -> None:
    found = told(gzip.compress(forge(32)))
    assert (found.kind, found.elf_class, found.bootable) == ("gzip of ELF32", "ELF32", True)


@pytest.mark.parametrize("codec", PACKERS)
def test_a_bzimage(told: Told, codec: str) -> None:
    kernel = forge()
    packed = pack_payload(codec, kernel)
    found = told(bzimage(packed))
    assert (found.kind, found.elf_class, found.bootable) == (f"bzImage ({codec}) of ELF64", "ELF64", True)
    assert payload(found) == ("2.15", VERSION_STRING.decode(), codec, 0xCCC, len(packed), len(kernel))
    lines = found.to_text().splitlines()
    assert lines[2:5] == [
        f"kind:     bzImage ({codec}) of ELF64",
        f"bzImage:  boot protocol 2.15, {VERSION_STRING.decode()}",
        "          setup 4 sectors and the boot sector; loadflags 0x0; xloadflags 0x0",
    ]
    assert f"payload:  {codec}, {len(packed)} bytes at 0xccc, {len(kernel)} unpacked" in lines
    told_as_json = json.loads(json.dumps(found.to_json()))["bzimage"]
    assert {name: told_as_json[name] for name in BzImageFacts._fields if name != "header"} == {
        "protocol": "2.15",
        "kernel_version": VERSION_STRING.decode(),
        "codec": codec,
        "payload_offset": 0xCCC,
        "packed_size": len(packed),
        "unpacked_size": len(kernel),
    }


def test_other_files_have_no_facts_of_a_bzimage(told: Told) -> None:
    for data in (forge(), gzip.compress(forge()), b"MZ" + bytes(1000)):
        found = told(data)
        assert found.bzimage is None
        assert found.to_json()["bzimage"] is None
        assert "bzImage:" not in found.to_text()


def test_a_bzimage_of_a_kernel_without_a_pvh_note_says_so(told: Told) -> None:
    found = told(bzimage_of("xz", forge(notes=GNU_NOTE)))
    assert (found.bootable, found.kind) == (False, "bzImage (xz) of ELF64")
    assert "bootable: no: no PHYS32_ENTRY note, so no PVH kernel" in found.to_text()
    assert found.bzimage is not None
    assert found.bzimage.unpacked_size == len(forge(notes=GNU_NOTE))


def test_the_header_of_a_bzimage_is_shown_though_its_payload_cannot_be_unpacked(told: Told) -> None:
    packed = pack_payload("zstd", forge())
    found = told(bzimage(packed[:-9], kernel_version=0))
    assert payload(found) == ("2.15", None, "zstd", 0xCCC, len(packed) - 9, None)
    lines = found.to_text().splitlines()
    assert lines[2:4] == ["kind:     a Linux bzImage", "bzImage:  boot protocol 2.15, without a version string"]
    at = lines.index(f"payload:  zstd, {len(packed) - 9} bytes at 0xccc, not unpacked")
    assert lines[at + 1].startswith("bootable: no: truncated zstd data")


def test_the_setup_header_field_by_field(told: Told) -> None:
    data = bytearray(bzimage_of("gzip", forge()))
    fields = ((0x211, "<B", 0xA3), (0x214, "<I", 0x100000), (0x230, "<I", 0x200000), (0x234, "<B", 1), (0x236, "<H", 0xB))
    for offset, code, value in (
        *fields,
        (0x238, "<I", 2047),
        (0x258, "<Q", 1 << 24),
        (0x260, "<I", 0x3000),
        (0x264, "<I", 0x190),
    ):
        struct.pack_into(code, data, offset, value)
    found = told(bytes(data))
    text = squeezed(found.to_text())
    assert "loadflags 0xa3 (LOADED_HIGH, KASLR, QUIET, CAN_USE_HEAP)" in text
    assert "xloadflags 0xb (KERNEL_64, CAN_BE_LOADED_ABOVE_4G, EFI_HANDOVER_64)" in text
    assert "loaded at 0x100000; relocatable, alignment 0x200000" in text
    assert "wants to run at 0x1000000, needs 0x3000 bytes there" in text
    assert "command line of at most 2047 bytes; EFI handover offset 0x190" in text
    header = found.to_json()["bzimage"]
    names = ("loadflags", "code32_start", "kernel_alignment", "relocatable_kernel", "xloadflags", "cmdline_size")
    assert [header[name] for name in names] == [0xA3, 0x100000, 0x200000, 1, 0xB, 2047]
    assert [header[name] for name in ("pref_address", "init_size", "handover_offset")] == [1 << 24, 0x3000, 0x190]


@pytest.mark.parametrize(
    ("protocol", "shown", "missing"),
    [
        (0x200, "loadflags", "alignment"),
        (0x205, "alignment", "command line of"),
        (0x206, "command line of", "wants to run"),
        (0x20A, "wants to run", "EFI handover"),
        (0x20B, "EFI handover", "xloadflags"),
        (0x20C, "xloadflags", "not there at all"),
    ],
)
def test_no_field_is_shown_that_the_protocol_does_not_have(told: Told, protocol: int, shown: str, missing: str) -> None:
    found = told(bzimage(pack_payload("gzip", forge()), protocol=protocol))
    head = found.to_text().partition("bootable:")[0]
    assert shown in head
    assert missing not in head


@pytest.mark.parametrize(
    ("make", "protocol", "reason"),
    [
        (lambda: bzimage(b"", protocol=0x207), "2.07", "boot protocol 2.07, which does not tell"),
        (lambda: bzimage(b"unknown" * 9), "2.15", "no codec of the kernel's"),
        (lambda: bzimage(b""), "2.15", "without a payload"),
    ],
    ids=["old", "unknown codec", "no payload"],
)
def test_the_header_of_a_bzimage_is_shown_though_it_tells_of_no_payload(
    told: Told, make: Callable[[], bytes], protocol: str, reason: str
) -> None:
    found = told(make())
    assert payload(found) == (protocol, VERSION_STRING.decode(), None, None, None, None)
    assert reason in found.reason
    assert "payload:  " not in found.to_text()


def test_a_setup_header_that_cannot_be_read_is_the_reason(told: Told) -> None:
    found = told(bzimage(b"")[:0x300])
    assert (found.kind, found.bzimage) == ("a Linux bzImage", None)
    assert found.reason.startswith("truncated bzImage")


def test_progress(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage_of("xz", forge()))
    calls: list[tuple[int, int]] = []
    assert inspect(path, lambda done, total: calls.append((done, total))).bootable
    assert calls[-1][0] == calls[-1][1] > 0


def test_a_note_in_segment_and_section_is_told_once_with_both_places(told: Told) -> None:
    found = told(with_note_section(forge(), entry_note()))
    assert [n.places for n in found.notes] == [("PT_NOTE 0", "section .notes")]


def test_an_entry_whose_bytes_are_letters_is_a_number_all_the_same(told: Told) -> None:
    at = 0x525150  # "PQR" and a NUL
    found = told(forge(32, notes=entry_note(at, size=4), loads=(load_segment(0x525000),)))
    assert [(note.text, note.value) for note in found.notes] == [("0x525150 (4 bytes)", at)]
    assert "<- PVH entry 0x525150" in found.to_text()


def test_the_entry_of_a_section_alone(told: Told) -> None:
    found = told(with_note_section(forge(notes=b""), entry_note()))
    assert found.bootable
    assert found.reason.endswith("in section .notes")


def test_long_descriptors_are_cut_and_a_build_id_is_not(told: Told) -> None:
    long = bytes(range(64))
    texts = [n.text for n in told(forge(notes=note(b"GNU\0", 3, long) + note(b"CORE\0", 7, long) + entry_note())).notes]
    assert texts[0] == long.hex()
    assert texts[1] == f"{long[:16].hex()}… (64 bytes)"


def test_a_relocatable_kernel_shows_its_limits(told: Told) -> None:
    reloc = note(b"Xen\0", 19, bytes.fromhex("00002000 00000001 ffffff3f"))
    assert told(forge(notes=entry_note() + reloc)).notes[1].text == "align 0x200000, min 0x1000000, max 0x3fffffff"


@pytest.mark.parametrize(("name", "make", "pattern"), HOSTILE, ids=[name for name, _, _ in HOSTILE])
def test_hostile_files_are_told_with_the_reason_of_kernel(
    tmp_path: Path, name: str, make: Callable[[], bytes], pattern: str
) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    found = inspect(path)
    with pytest.raises(BootError, match=pattern) as error:
        Kernel.open(path)
    assert not found.bootable
    assert found.entry is None
    assert f"{path}: {found.reason}" == str(error.value)
    assert found.kind
    assert found.reason not in found.problems
    assert squeezed(found.reason) in squeezed(found.to_text())
    json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: b"", "an empty file"),
        (lambda: b"#!/bin/sh\n", "a script"),
        (lambda: bytes(100), "unknown"),
        (lambda: gzip.compress(b"text"), "gzip"),
        (lambda: patch_bytes(forge(), 4, b"\7"), "ELF"),
        (lambda: gzip.compress(forge()[:20]), "gzip of ELF"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds(told: Told, make: Callable[[], bytes], kind: str) -> None:
    assert told(make()).kind == kind


def test_segments_and_notes_are_shown_though_the_machine_is_another(told: Told) -> None:
    found = told(patch_bytes(forge(notes=GNU_NOTE), 18, b"\xb7\0"))
    assert (found.machine, found.bootable) == ("EM_AARCH64", False)
    assert len(found.headers) == 2
    assert len(found.notes) == 1


def test_the_header_of_a_big_endian_file_is_shown(told: Told) -> None:
    found = told(patch_bytes(patch_bytes(forge(), 5, b"\2"), 18, b"\0\x15"))
    assert (found.machine, found.notes) == ("EM_PPC64", ())


def test_notes_before_a_truncated_one_are_shown(told: Told) -> None:
    found = told(forge(notes=GNU_NOTE + b"\xff" * 12))
    assert [n.type for n in found.notes] == ["BUILD_ID"]
    assert "truncated note" in found.reason


def test_notes_of_sections_are_shown_though_the_program_headers_are_broken(told: Told) -> None:
    found = told(patch_header(with_note_section(forge(), entry_note()), phentsize=7))
    assert [n.places for n in found.notes] == [("section .notes",)]
    assert found.headers == ()
    assert "e_phentsize is 7" in found.reason


def test_broken_sections_of_a_bootable_kernel_are_a_problem_but_no_reason(told: Told) -> None:
    found = told(patch_header(forge(), shnum=60000))
    assert found.bootable
    assert len(found.problems) == 1
    assert "section headers" in found.problems[0]
    assert "problem:  truncated" in found.to_text()


def test_json_holds_the_same(told: Told) -> None:
    found = told(forge())
    read = json.loads(json.dumps(found.to_json()))
    assert set(read) == set(Inspection._fields)
    assert (read["bootable"], read["entry"], read["headers"][0]["paddr"], read["headers"][0]["flags"]) == (
        True,
        ENTRY,
        PADDR,
        "RWX",
    )
    assert read["notes"][0]["value"] == ENTRY
    assert read["notes"][0]["places"] == ["PT_NOTE 0"]
    assert read["verdicts"][0] == {
        "by": "qemu",
        "name": "QEMU 7.2, -kernel",
        "outcome": "accepts",
        "road": "PVH",
        "entry": ENTRY,
        "reason": "a note of type 18 in PT_NOTE 0",
        "remarks": [],
        "rule": "the entry is the 32 bits behind the note of that type that was found last, whatever its name",
        "source": "include/hw/elf_ops.h: get_elf_note_type; hw/i386/x86.c: read_pvh_start_addr, load_elfboot",
    }


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir], ids=["missing", "directory"])
def test_only_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "kernel"
    make(path)
    with pytest.raises(BootError, match=r"kernel: cannot be opened"):
        inspect(path)


def test_a_segment_that_cannot_be_loaded_is_still_shown(told: Told) -> None:
    found = told(patch_program_header(forge(), 0, filesz=1 << 30, memsz=1 << 30))
    assert found.headers[0].filesz == 1 << 30
    assert found.notes[0].value == ENTRY
    assert "PT_LOAD 0 lies at" in found.reason


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    seed=st.sampled_from(
        (
            forge(32),
            forge(64),
            bzimage_of("lz4", forge()),
            bzimage_of("gzip", forge()),
            with_note_section(forge(notes=GNU_NOTE), entry_note()),
        )
    ),
    flips=st.lists(st.integers(0, 1 << 16), max_size=10),
    cut=st.none() | st.integers(0, 600),
    noise=st.none() | st.binary(max_size=300),
)
def test_nothing_escapes_and_kernel_agrees(
    scratch: Path, seed: bytes, flips: list[int], cut: int | None, noise: bytes | None
) -> None:
    data = bytearray(seed if noise is None else noise)
    for at in flips:
        if data:
            data[at // 8 % len(data)] ^= 1 << at % 8
    scratch.write_bytes(data[:cut])
    found = inspect(scratch)
    found.to_text()
    json.dumps(found.to_json())
    refusal = ""
    try:
        Kernel.open(scratch).close()
    except BootError as error:
        refusal = str(error)
    assert refusal == ("" if found.bootable else f"{scratch}: {found.reason}")


def test_real_files(guest_file: Callable[[str], Path]) -> None:
    found = inspect(guest_file("xen.gz"))
    assert (found.kind, found.bootable) == ("gzip of ELF32", False)
    assert "no PHYS32_ENTRY" in found.reason
    assert [n.type for n in found.notes] == ["BUILD_ID"]


@pytest.mark.parametrize("name", ["grub-i386-xen_pvh.bin", "xen-shim", "vmlinux-6.1", "vmlinux-6.12"])
def test_real_kernels(guest_file: Callable[[str], Path], name: str) -> None:
    found = inspect(guest_file(name))
    assert found.bootable
    assert [n.value for n in found.notes if n.type == "PHYS32_ENTRY"] == [found.entry]


@pytest.mark.parametrize(("version", "codec"), [("6.1", "lz4"), ("6.12", "zstd")])
def test_debians_kernels_as_shipped(guest_file: Callable[[str], Path], version: str, codec: str) -> None:
    found, plain = inspect(guest_file(f"vmlinuz-{version}")), inspect(guest_file(f"vmlinux-{version}"))
    assert found.bzimage is not None
    assert found.bzimage.kernel_version is not None
    assert found.bzimage.kernel_version.startswith(f"{version}.")
    assert (found.bzimage.codec, found.bzimage.unpacked_size) == (codec, plain.size)
    same = {"path": "", "size": 0, "kind": "", "bzimage": None, "verdicts": ()}  # of other loaders it is another file
    assert found._replace(**same) == plain._replace(**same)
    assert found.bootable
