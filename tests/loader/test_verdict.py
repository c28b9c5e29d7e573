"""Verdicts: each model against what is known of its loader, the same for every real file, and no file that breaks one."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_bzimage import bzimage, bzimage_of, pack_payload
from forge_elf import (
    CODE,
    ENTRY,
    GNU_NOTE,
    HOSTILE,
    LINUX_LOADER,
    LINUX_LOADER_ENTRY,
    MEMSZ,
    PADDR,
    XEN_NOTES,
    entry_note,
    forge,
    load_segment,
    note_segment,
    patch_bytes,
    patch_header,
    patch_program_header,
    with_note_section,
    with_program_headers,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.loader.image import BytesImage
from pvhboot.loader.inspection import inspect
from pvhboot.loader.verdicts.base import Verdict
from pvhboot.loader.verdicts.linux_loader import judge_library
from pvhboot.loader.verdicts.qemu import judge_qemu
from pvhboot.loader.verdicts.raw import NOTES_MAX, RawFile
from pvhboot.loader.verdicts.xen import judge_xen
from pvhboot.loader.wrapping import Wrapping
from pvhboot.shim.elfwriter import note

WHO = ("qemu", "firecracker", "cloud-hypervisor", "libkrun", "xen", "pvhboot", "linux", "freebsd")
VMMS = ("firecracker", "cloud-hypervisor", "libkrun")
PVH = ("accepts", "PVH", ENTRY)
REFUSED = ("refuses", None, None)
MULTIBOOT_HEADER = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)

Judge = Callable[[bytes], dict[str, Verdict]]
Make = Callable[[], bytes]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """The verdicts on bytes, by who gives them."""

    def run(data: bytes) -> dict[str, Verdict]:
        path = tmp_path / "kernel"
        path.write_bytes(data)
        return {verdict.by: verdict for verdict in inspect(path).verdicts}

    return run


def short(verdict: Verdict) -> tuple[str, str | None, int | None]:
    return verdict.outcome, verdict.road, verdict.entry


# linux-loader.


@pytest.mark.parametrize(("name", "make", "expected"), LINUX_LOADER, ids=[name for name, _, _ in LINUX_LOADER])
def test_linux_loader_gives_what_its_own_tests_expect(name: str, make: Make, expected: str) -> None:  # noqa: ARG001
    verdict = judge_library(RawFile(BytesImage(make())))
    variant = verdict.reason.partition(":")[0].partition(",")[0].partition(" ")[0]
    assert variant == expected
    if expected == "PvhEntryPresent":
        assert short(verdict) == ("accepts", "PVH", LINUX_LOADER_ENTRY)
    elif expected.startswith("Pvh"):
        assert short(verdict) == ("accepts", "ELF64 entry", PADDR)  # kernel_load
    else:
        assert short(verdict) == REFUSED


CUT = len(forge()) - len(forge().rpartition(b"Xen\0")[2])  # behind the name of the note

LINUX_LOADER_MORE: list[tuple[str, Make, str]] = [
    ("last segment without the note", lambda: forge(more=(note_segment(GNU_NOTE),)), "PvhEntryNotPresent"),
    ("last segment empty", lambda: forge(more=(note_segment(b""),)), "PvhEntryNotPresent"),
    ("note in the last segment", lambda: forge(notes=GNU_NOTE, more=(note_segment(entry_note()),)), "PvhEntryPresent"),
    ("p_align 0", lambda: forge(note_align=0), "PvhEntryPresent"),
    ("descriptor of 3", lambda: forge(notes=entry_note(5, 3)), "InvalidPvhNote"),
    ("descriptor of 12", lambda: forge(notes=entry_note(ENTRY, 12)), "PvhEntryPresent"),
    ("upper half dropped", lambda: forge(notes=entry_note(1 << 40 | ENTRY)), "PvhEntryPresent"),
    ("overflow", lambda: forge(notes=struct.pack("<III", 0xFFFFFFFD, 0, 1) + bytes(12)), "Overflow"),
    ("note beyond the file", lambda: patch_program_header(forge(), 1, offset=1 << 20), "ReadNoteHeader"),
    ("note behind any file", lambda: patch_program_header(forge(), 1, offset=1 << 63), "SeekNoteHeader"),
    ("cut in the descriptor", lambda: forge(notes=entry_note())[:CUT], "ReadNoteHeader"),
    ("no program headers", lambda: patch_header(forge(), phnum=0), "PvhEntryIgnored"),
    ("program headers cut", lambda: patch_header(forge(), phnum=5000), "ReadProgramHeader"),
    ("program headers behind any file", lambda: patch_header(forge(), phoff=1 << 63), "SeekProgramHeader"),
    ("segment cut", lambda: patch_program_header(forge(), 0, offset=1 << 40), "ReadKernelImage"),
    ("segment behind any file", lambda: patch_program_header(forge(), 0, offset=1 << 63), "SeekKernelStart"),
    ("segment in the hole", lambda: patch_program_header(forge(), 0, paddr=0xD0000000), "ReadKernelImage"),
    ("segment wraps", lambda: patch_program_header(forge(), 0, memsz=(1 << 64) - 1), "MemoryOverflow"),
    ("empty segment anywhere", lambda: patch_program_header(forge(), 0, filesz=0, paddr=0xD0000000), "PvhEntryPresent"),
    ("larger in the file", lambda: patch_program_header(forge(), 0, memsz=1), "PvhEntryPresent"),
    ("another machine", lambda: patch_bytes(forge(), 18, b"\xb7\0"), "PvhEntryPresent"),
    ("too short", lambda: forge()[:63], "ReadElfHeader"),
    ("too short to have a magic looked at", lambda: b"#!" + bytes(61), "ReadElfHeader"),
    ("empty", lambda: b"", "ReadElfHeader"),
    ("another magic", lambda: b"#!" + bytes(62), "InvalidElfMagicNumber"),
]


@pytest.mark.parametrize(
    ("make", "expected"), [case[1:] for case in LINUX_LOADER_MORE], ids=[case[0] for case in LINUX_LOADER_MORE]
)
def test_linux_loader(make: Make, expected: str) -> None:
    verdict = judge_library(RawFile(BytesImage(make())))
    assert verdict.reason.startswith(expected), verdict.reason


def test_an_error_in_an_earlier_header_comes_first() -> None:
    data = forge(notes=entry_note(5, 2), loads=(load_segment(), load_segment(0xD0000000)))
    assert judge_library(RawFile(BytesImage(data))).reason.startswith("ReadKernelImage")
    moved = patch_program_header(
        patch_program_header(data, 1, type=4, filesz=18), 1, offset=struct.unpack_from("<Q", data, 184)[0]
    )
    assert judge_library(RawFile(BytesImage(moved))).reason.startswith("InvalidPvhNote")


def test_what_each_vmm_makes_of_a_kernel_without_a_pvh_entry(judge: Judge) -> None:
    verdicts = judge(forge(notes=GNU_NOTE))
    assert short(verdicts["firecracker"]) == short(verdicts["libkrun"]) == ("accepts", "ELF64 entry", PADDR)
    assert short(verdicts["cloud-hypervisor"]) == REFUSED
    assert verdicts["cloud-hypervisor"].reason.startswith("KernelMissingPvhHeader")


def test_a_low_elf_entry_is_refused_though_it_would_not_be_used(judge: Judge) -> None:
    verdicts = judge(patch_header(forge(), entry=0xFFFFF))
    for vmm in ("firecracker", "cloud-hypervisor"):
        assert verdicts[vmm].reason.startswith("InvalidEntryAddress")
    assert short(verdicts["libkrun"]) == PVH


def bzimage_fields(data: bytes, *, loadflags: int = 1, code32_start: int = PADDR, xloadflags: int = 1) -> bytes:
    """A forged bzImage with what linux-loader reads of its header."""
    data = patch_bytes(patch_bytes(data, 0x211, bytes([loadflags])), 0x214, code32_start.to_bytes(4, "little"))
    return patch_bytes(data, 0x236, xloadflags.to_bytes(2, "little"))


@pytest.mark.parametrize(
    ("make", "firecracker", "cloud_hypervisor"),
    [
        (lambda: bzimage_fields(bzimage_of("gzip", forge())), ("accepts", PADDR + 0x200), ("accepts", PADDR)),
        (lambda: bzimage_fields(bzimage_of("gzip", forge()), xloadflags=0), "BzImageMissing64BitEntry", ("accepts", PADDR)),
        (lambda: bzimage_fields(bzimage(b"x" * 9, protocol=0x20B)), "BzImageMissing64BitEntry", ("accepts", PADDR)),
        (lambda: bzimage_fields(bzimage_of("gzip", forge()), loadflags=0), "InvalidBzImage", "InvalidBzImage"),
        (lambda: bzimage_fields(bzimage_of("gzip", forge()), code32_start=0x1000), *["InvalidKernelStartAddress"] * 2),
        (lambda: bzimage_fields(bzimage(b"x" * 9, setup_sects=4))[:0x400], "Underflow", "Underflow"),
        (lambda: b"#!/bin/sh\n" * 100, "InvalidElfMagicNumber", "InvalidElfMagicNumber"),
        (lambda: b"#!" + bytes(62), "InvalidElfMagicNumber", "InvalidElfMagicNumber"),
        (lambda: b"#!" + bytes(61), "ReadElfHeader", "ReadElfHeader"),  # no bzImage is looked for after that error
        (lambda: b"", "ReadElfHeader", "ReadElfHeader"),
    ],
    ids=["both", "no 64-bit entry", "old protocol", "zImage", "low", "cut", "script", "64 bytes", "63 bytes", "empty"],
)
def test_a_bzimage_by_linux_loader(judge: Judge, make: Make, firecracker: object, cloud_hypervisor: object) -> None:
    verdicts = judge(make())
    for vmm, expected in (("firecracker", firecracker), ("cloud-hypervisor", cloud_hypervisor)):
        verdict = verdicts[vmm]
        if isinstance(expected, str):
            assert verdict.reason.startswith(expected)
        else:
            assert (verdict.outcome, verdict.entry, verdict.road) == (*expected, "Linux boot protocol")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("codec", "outcome"),
    [("gzip", "accepts"), ("bzip2", "accepts"), ("zstd", "accepts"), ("xz", "refuses"), ("lz4", "refuses")],
)
def test_libkrun_unpacks_some_codecs_and_never_goes_by_pvh_then(judge: Judge, codec: str, outcome: str) -> None:
    verdict = judge(bzimage_of(codec, forge()))["libkrun"]
    assert short(verdict) == ((outcome, "ELF64 entry", PADDR) if outcome == "accepts" else REFUSED)


# QEMU. tests/emu/test_verdict_live.py asks QEMU itself; these need none.

QEMU_CASES: list[tuple[str, Make, tuple[str, str | None, int | None], str]] = [
    ("plain", forge, PVH, "a note of type 18 in PT_NOTE 0"),
    ("any name", lambda: forge(notes=entry_note(name=b"Zen\0")), PVH, "type 18"),
    ("any phentsize", lambda: patch_header(forge(), phentsize=1), PVH, "type 18"),
    ("p_align 8", lambda: forge(note_align=8), REFUSED, "without PVH ELF Note"),
    ("p_align 0", lambda: forge(note_align=0), ("crashes", None, None), "SIGFPE"),
    ("p_align 2^32", lambda: patch_program_header(forge(), 1, align=1 << 32), ("crashes", None, None), "SIGSEGV"),
    ("p_align 2^64-1", lambda: patch_program_header(forge(), 1, align=(1 << 64) - 1), ("accepts", "PVH", 0x6E6558), "type 18"),
    ("first of type 18", lambda: forge(notes=entry_note(PADDR, name=b"Zen\0") + entry_note()), ("accepts", "PVH", PADDR), ""),
    ("last segment", lambda: forge(more=(note_segment(entry_note(PADDR)),)), ("accepts", "PVH", PADDR), "PT_NOTE 1"),
    ("last segment without", lambda: forge(more=(note_segment(GNU_NOTE),)), PVH, "PT_NOTE 0"),
    ("runs on behind the segment", lambda: forge(notes=GNU_NOTE, more=(note_segment(entry_note()),)), PVH, ""),
    ("sections only", lambda: with_note_section(forge(notes=b""), entry_note()), REFUSED, "without PVH ELF Note"),
    ("entry of 64 bits", lambda: forge(notes=entry_note(1 << 32)), ("accepts", "PVH", 0), ""),
    ("entry of 64 bits in ELF32", lambda: forge(32, notes=entry_note(1 << 32)), REFUSED, "without PVH ELF Note"),
    ("e_flags", lambda: patch_bytes(forge(), 48, b"\4"), REFUSED, "elfboot unsupported flags = 4"),
    ("big-endian", lambda: patch_bytes(forge(), 5, b"\2"), REFUSED, "EI_DATA is 2"),
    ("another machine", lambda: patch_bytes(forge(), 18, b"\xb7\0"), REFUSED, "e_machine is 183"),
    ("overlap", lambda: forge(loads=(load_segment(), load_segment(PADDR + 0x20))), REFUSED, "ROM regions are overlapping"),
    ("overlap of zeros", lambda: forge(loads=(load_segment(), load_segment(PADDR + MEMSZ - 1))), PVH, ""),
    (
        "the firmware's ROM",
        lambda: forge(loads=(load_segment(), load_segment(0xFFFFF000, memsz=64))),
        REFUSED,
        "firmware's ROM",
    ),
    ("2 GiB", lambda: patch_program_header(forge(), 0, memsz=1 << 31), REFUSED, "negative"),
    ("larger in the file", lambda: patch_program_header(forge(), 0, memsz=63), ("crashes", None, None), "hangs"),
    ("no memory", lambda: patch_program_header(forge(), 0, memsz=0), PVH, ""),
    (
        "16 GiB of zeros",
        lambda: patch_program_header(forge(), 0, paddr=1 << 33, memsz=1 << 34),
        ("crashes", None, None),
        "minutes",
    ),
    (
        "Multiboot",
        lambda: forge(32, loads=(load_segment(data=MULTIBOOT_HEADER + CODE),)),
        ("accepts", "Multiboot", PADDR),
        "0x1000",
    ),
    ("Multiboot in ELF64", lambda: forge(loads=(load_segment(data=MULTIBOOT_HEADER + CODE),)), REFUSED, "cannot load x86-64"),
    ("bzImage", lambda: bzimage(b"x" * 9), ("accepts", "Linux boot protocol", 0x10000), "boot protocol 2.15"),
    ("anything long", lambda: bytes(100000), ("accepts", "Linux boot protocol", 0x10000), "no format that it knows"),
    ("anything short", lambda: b"short" * 10, REFUSED, "invalid kernel header"),
]


@pytest.mark.parametrize(
    ("make", "expected", "reason"), [case[1:] for case in QEMU_CASES], ids=[case[0] for case in QEMU_CASES]
)
def test_qemu(make: Make, expected: tuple[str, str | None, int | None], reason: str) -> None:
    verdict = judge_qemu(RawFile(BytesImage(make())))
    assert short(verdict) == expected, verdict.reason
    assert reason in verdict.reason


def test_an_entry_where_nothing_is_loaded_is_remarked(judge: Judge) -> None:
    verdicts = judge(forge(notes=entry_note(PADDR + MEMSZ)))
    for by in ("qemu", *VMMS):
        assert short(verdicts[by]) == ("accepts", "PVH", PADDR + MEMSZ)
        assert verdicts[by].remarks == ("nothing is loaded at 0x102000, and it does not look",)


# Xen.

XEN_CASES: list[tuple[str, Make, tuple[str, str | None, int | None], str]] = [
    ("plain", forge, PVH, "PT_NOTE 0"),
    ("elf32", lambda: forge(32), PVH, "PT_NOTE 0"),
    ("gzip", lambda: gzip.compress(forge()), PVH, "PT_NOTE 0"),
    ("bzImage", lambda: bzimage_of("xz", forge()), PVH, "PT_NOTE 0"),
    ("bzImage with no setup_sects", lambda: bzimage(pack_payload("xz", forge()), setup_sects=0), REFUSED, "wrong place"),
    ("sections only", lambda: with_note_section(forge(notes=b""), entry_note()), PVH, "section 1"),
    ("sections beside others", lambda: with_note_section(forge(notes=GNU_NOTE), entry_note()), PVH, "section 1"),
    ("sections beside Xen's", lambda: with_note_section(forge(notes=XEN_NOTES), entry_note()), REFUSED, "HVM"),
    ("name of another length", lambda: forge(notes=note(b"Xen\0\0", 18, struct.pack("<I", ENTRY))), PVH, "PT_NOTE 0"),
    ("descriptor of 2", lambda: forge(notes=entry_note(5, 2), loads=(load_segment(0),)), ("accepts", "PVH", 5), ""),
    ("descriptor of 3 is 0", lambda: forge(notes=entry_note(5, 3)), REFUSED, "PHYS32_ENTRY 0x0 in PT_NOTE 0 lies outside"),
    ("the last one", lambda: forge(notes=entry_note(PADDR) + entry_note()), PVH, ""),
    ("p_align 0", lambda: forge(note_align=0), PVH, ""),
    ("the end is inside", lambda: forge(notes=entry_note(PADDR + MEMSZ)), ("accepts", "PVH", PADDR + MEMSZ), ""),
    ("behind the end", lambda: forge(notes=entry_note(PADDR + MEMSZ + 1)), REFUSED, "not 32bit"),
    ("no note in ELF64", lambda: forge(notes=b""), REFUSED, "ELF image is not 32bit"),
    (
        "no note in ELF32",
        lambda: forge(32, notes=b""),
        ("accepts", "ELF32 entry", PADDR),
        "taken for HVM firmware: no ELF notes",
    ),
    ("unaligned", lambda: forge(loads=(load_segment(PADDR + 1),), notes=entry_note(PADDR + 1)), REFUSED, "isn't page aligned"),
    ("in the hole", lambda: patch_program_header(forge(), 0, memsz=0xFF000000), REFUSED, "low RAM ends"),
    ("section headers beyond", lambda: patch_header(forge(), shnum=60000), REFUSED, "shdr overflow"),
    ("dom0 only", lambda: forge(notes=note(b"Xen\0", 10, b"!dom0\0") + entry_note()), REFUSED, "unprivileged"),
    ("unknown feature", lambda: forge(notes=note(b"Xen\0", 10, b"!wings\0") + entry_note()), REFUSED, "'wings'"),
    ("zstd alone", lambda: b"\x28\xb5\x2f\xfd" + bytes(100), REFUSED, "no loader found"),
    ("big-endian", lambda: patch_bytes(forge(), 5, b"\2"), ("unknown", None, None), "not modelled"),
]


@pytest.mark.parametrize(("make", "expected", "reason"), [case[1:] for case in XEN_CASES], ids=[case[0] for case in XEN_CASES])
def test_xen(judge: Judge, make: Make, expected: tuple[str, str | None, int | None], reason: str) -> None:
    verdict = judge(make())["xen"]
    assert short(verdict) == expected, verdict.reason
    assert reason in verdict.reason


def test_xen_moves_no_guest(judge: Judge) -> None:
    verdict = judge(forge(notes=entry_note() + note(b"Xen\0", 19, b"")))["xen"]
    assert "never moved" in verdict.remarks[0]


def test_xen_copies_nothing_of_a_segment_that_is_not_there(judge: Judge) -> None:
    verdict = judge(patch_program_header(forge(), 0, offset=1 << 40))["xen"]
    assert short(verdict) == PVH
    assert verdict.remarks == ("PT_LOAD 0 lies beyond the end of the file: none of it is copied",)


# The guests.


@pytest.mark.parametrize(
    ("make", "linux", "freebsd", "reason"),
    [
        (lambda: at(0x1000000), "accepts", "accepts", "lies where its first page tables reach"),
        (lambda: at(0x200000, 32), "accepts", "refuses", "amd64 only"),
        (lambda: at(0x100000), "refuses", "accepts", "2 MiB"),
        (lambda: at(0x3FFFE000), "refuses", "refuses", "must lie below 1 GiB"),
        (lambda: at(0x3FE00000, memsz=0x200001), "refuses", "refuses", "map 1 GiB"),
        (lambda: forge(notes=b""), "refuses", "refuses", "no ELF notes at all"),
        (lambda: forge(loads=(load_segment(), load_segment(PADDR + 0x20))), "refuses", "refuses", "overlap in physical memory"),
        (lambda: b"#!/bin/sh", "refuses", "refuses", "a script"),
    ],
    ids=["16 MiB", "ELF32", "1 MiB", "no page left", "beyond", "no note", "overlap", "script"],
)
def test_guests(judge: Judge, make: Make, linux: str, freebsd: str, reason: str) -> None:
    verdicts = judge(make())
    assert (verdicts["linux"].outcome, verdicts["freebsd"].outcome) == (linux, freebsd)
    assert reason in verdicts["linux"].reason + verdicts["freebsd"].reason


def at(paddr: int, bits: int = 64, memsz: int = MEMSZ) -> bytes:
    return forge(bits, loads=(load_segment(paddr, memsz=memsz),), notes=entry_note(paddr, bits // 8))


# All of them, on anything.


@pytest.mark.parametrize(("name", "make"), [case[:2] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_every_file_has_a_verdict_of_everybody(judge: Judge, name: str, make: Make) -> None:  # noqa: ARG001
    verdicts = judge(make())
    assert tuple(verdicts) == WHO
    assert verdicts["pvhboot"].outcome == "refuses"
    for verdict in verdicts.values():
        assert verdict.outcome in ("accepts", "refuses", "crashes", "unknown")
        assert (verdict.outcome == "accepts") == (verdict.road is not None) == (verdict.entry is not None)
        assert verdict.reason
        assert verdict.rule
        assert ": " in verdict.source or verdict.by == "linux"


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_program_headers(forge(notes=b"\0" * 0x4000), 0xFFFF, 1),
        lambda: with_program_headers(forge(notes=(note(b"Pad\0", 1, b"") * 4000)), 0xFFFF, 1),
        lambda: with_program_headers(forge(loads=(load_segment(memsz=1 << 40),)), 0xFFFF, 0),
        lambda: patch_program_header(forge(notes=bytes(0x100000)), 1, filesz=0x100000),
    ],
    ids=["zeros", "notes", "overlapping segments", "a megabyte of zeros"],
)
def test_a_file_that_costs_a_loader_its_time_costs_us_little(make: Make) -> None:
    raw = RawFile(BytesImage(make()))
    taken = 0
    take = raw.take

    def counted(offset: int, size: int) -> bytes:
        nonlocal taken
        taken += 1
        return take(offset, size)

    raw.take = counted  # type: ignore[method-assign]
    for look in (judge_qemu, judge_library, lambda raw: judge_xen(raw, Wrapping("", 0, raw.size), raw, "")):
        taken = 0
        look(raw)
        assert taken < 4 * NOTES_MAX, look


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(
        (forge(32), forge(64), with_note_section(forge(notes=GNU_NOTE), entry_note()), bzimage_of("lz4", forge()))
    ),
    flips=st.lists(st.integers(0, 1 << 16), max_size=12),
    cut=st.none() | st.integers(0, 600),
)
def test_no_file_breaks_a_model(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, flips: list[int], cut: int | None
) -> None:
    data = bytearray(seed)
    for flip in flips:
        data[flip // 8 % min(len(data), 0x300)] ^= 1 << flip % 8
    path = tmp_path_factory.getbasetemp() / "verdict"
    path.write_bytes(data[:cut])
    assert [verdict.by for verdict in inspect(path).verdicts] == list(WHO)


# Real files: outcome and entry of everybody, as looked at and found right.

A, R, U = "accepts", "refuses", "unknown"
REAL: dict[str, tuple[tuple[str, int | None], ...]] = {
    "vmlinux-6.1": ((A, 0x1000850),) * 8,
    "vmlinux-6.12": ((A, 0x1000A30),) * 8,
    "vmlinux-generic": ((A, 0x1000850),) * 8,
    "vmlinuz-6.1": ((A, 0x100000), (A, 0x100200), (A, 0x100000), (R, None), *((A, 0x1000850),) * 4),
    "vmlinuz-6.12": ((A, 0x100000), (A, 0x100200), (A, 0x100000), (A, 0x1000B53), *((A, 0x1000A30),) * 4),
    "vmlinuz-generic": ((A, 0x100000), (A, 0x100200), (A, 0x100000), (R, None), *((A, 0x1000850),) * 4),
    "grub-i386-xen_pvh.bin": ((A, 0x100000), *((R, None),) * 3, *((A, 0x100000),) * 3, (R, None)),
    "xen-shim": ((A, 0x200000), *((R, None),) * 3, (A, 0x6279F2), (A, 0x6279F2), (A, 0x6279F2), (R, None)),
    "xen.gz": ((A, 0x10000), *((R, None),) * 3, (A, 0x200000), *((R, None),) * 3),
    "memtest86+x64.bin": ((A, 0x100000), (A, 0x100200), (A, 0x100000), *((R, None),) * 5),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(guest_file: Callable[[str], Path], name: str) -> None:
    assert [(verdict.outcome, verdict.entry) for verdict in inspect(guest_file(name)).verdicts] == list(REAL[name])


def test_a_program_of_this_system_is_nobodys_kernel() -> None:
    verdicts = inspect("/bin/ls").verdicts
    assert [verdict.by for verdict in verdicts if verdict.outcome != "refuses"] == ["libkrun"]  # it takes any e_entry
