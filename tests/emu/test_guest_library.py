"""The library of conformance guests: each runs and says of itself what its ELF says; a loader's mistakes are found; and what is
to be refused is refused, with the reason that is documented."""

import struct
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile
from guest_report import LoadLine, parse_report
from guest_runs import CHECKS, MEMORY, plan_for, run_spoilt, write
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi import pvh
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_layout import (
    GUEST_ELF_ENTRY,
    GUEST_FILE_BYTES,
    GUEST_FORMAT,
    GUEST_MEMORY_BYTES,
    fnv_1a,
)
from pvhboot.shim.guest_library import LIBRARY, guest
from pvhboot.shim.guest_link import ELF_ENTRY
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import build_guest, default_blob, guest_image

BOOTING = [one.name for one in LIBRARY if not one.reason]
REFUSED = [one.name for one in LIBRARY if one.reason]


def expected_loads(data, displacement=0):
    """What the program headers say, as the guest has to find it."""
    file = ELFFile(BytesIO(data))
    code = file.get_section_by_name(".text")["sh_offset"]
    return [
        LoadLine(
            segment["p_paddr"] + displacement,
            segment["p_filesz"],
            segment["p_memsz"],
            None if segment["p_offset"] == code and segment["p_filesz"] else fnv_1a(segment.data()),
            segment["p_memsz"] - segment["p_filesz"],
        )
        for segment in file.iter_segments()
        if segment["p_type"] == "PT_LOAD"
    ]


@pytest.mark.parametrize("name", BOOTING)
def test_each_runs_clean_and_reports_what_its_elf_says(name, engine_name):
    one, data = guest(name), build_guest(name)
    plan = plan_for(data, one.memory)
    outcome = boot(plan, default_blob(BARE), get_engine(engine_name), Until(EXIT), Limits(seconds=60))
    assert outcome.clean, outcome.findings
    assert outcome.ok, outcome.console.decode()
    report = parse_report(outcome.console)
    assert (report.format, report.bits, report.name) == (GUEST_FORMAT, one.recipe.bits, name)
    assert report.result == "ok"
    assert list(report.checks) == CHECKS
    assert report.failed == []
    assert report.loads == expected_loads(data)
    assert report.registers["eip"] == plan.kernel.entry
    (image,) = (load for load in report.loads if load.hash is None)
    assert (report.base, report.displacement, report.image_sum) == (image.paddr, 0, 0)
    assert report.memmap == [tuple(entry) for entry in plan.memmap]


@pytest.mark.parametrize("name", [name for name in BOOTING if guest(name).memory <= MEMORY])
def test_none_touches_memory_that_is_not_its_own(name, engine_name):
    plan = plan_for(build_guest(name))
    spans = [(segment.paddr, segment.end) for segment in plan.kernel.segments]
    before = []

    def others(memory):
        data = bytearray(memory.read(0, MEMORY))
        for start, end in spans:
            data[start:end] = bytes(end - start)
        return bytes(data)

    memory = plan.memory()
    value = get_engine(engine_name).run(
        Board(plan, memory), Until(EXIT), Limits(seconds=60), lambda handoff: before.append(others(handoff.memory))
    )
    assert value.stop.value == 0
    assert others(memory) == before[0]


# The guest, and where it goes: up, down, to the lowest place that its note allows, and to the highest in this much memory.
MOVES = [
    ("reloc-0", 0x1800000),
    ("reloc-0", 0x200000),
    ("reloc-0-align", 0x1230000),
    ("reloc-4", 0x1235000),
    ("reloc-4", 0x100000),
    ("reloc-8", 0x800000),
    ("reloc-12", 0x2000000),
    ("reloc-12", MEMORY - 2 * MIB),
    ("elf32-reloc-12", 0x1200000),
]


@pytest.mark.parametrize(("name", "base"), MOVES)
def test_a_relocatable_guest_runs_elsewhere(name, base, engine_name):
    data = build_guest(name)
    plan = plan_for(data, base=base)
    outcome = boot(plan, default_blob(BARE), get_engine(engine_name), Until(EXIT), Limits(seconds=60))
    assert outcome.clean, outcome.findings
    assert outcome.ok, outcome.console.decode()
    report = parse_report(outcome.console)
    moved = base - plan.kernel.segments[0].paddr
    assert (report.base, report.displacement) == (base, moved & 0xFFFFFFFF)
    assert report.loads == expected_loads(data, moved)
    assert report.registers["eip"] == plan.kernel.entry + moved
    # start_info, which it borrowed, is whole again; and it saw the registers as they were.
    assert report.registers["ebx"] == outcome.handoff.registers["ebx"]
    assert report.registers["esp"] == outcome.handoff.registers["esp"]
    assert report.checks["magic"]


def test_a_relocatable_guest_sees_the_same_registers_as_one_that_is_not(engine_name):
    seen = []
    for name in ("elf64", "reloc-4"):
        _, console = run_spoilt(plan_for(build_guest(name)), engine_name)
        registers = parse_report(console).registers
        seen.append({name: value for name, value in registers.items() if name not in ("eip", "eax", "ecx", "edx")})
    assert seen[0] == seen[1]


def moved_segment(memory, paddr, size, to):
    """A segment that a loader has put elsewhere: nothing is where it belongs."""
    data = memory.read(paddr, size)
    write(memory, paddr, bytes(size))
    if to is not None:
        write(memory, to, data)


# A guest, what a loader gets wrong with it, and the checks that fail. The second segment of loads-bss is at 2 MiB, and
# has 0x1003 bytes in the file, 0x11001 in memory.
LOADER_MUTANTS = {
    "a-byte-short": ("loads-bss", lambda m: write(m, 0x201002, b"\0"), ["load_data"]),
    "a-byte-wrong": ("loads-bss", lambda m: write(m, 0x200800, b"\xff\xee"), ["load_data"]),
    "a-segment-missing": ("loads-bss", lambda m: moved_segment(m, 0x200000, 0x1003, None), ["load_data"]),
    "a-segment-a-page-up": ("loads-bss", lambda m: moved_segment(m, 0x200000, 0x1003, 0x201000), ["load_data", "load_bss"]),
    "a-segment-a-page-down": ("loads-bss", lambda m: moved_segment(m, 0x200000, 0x1003, 0x1FF000), ["load_data"]),
    "bss-not-zeroed": ("loads-bss", lambda m: write(m, 0x201003, b"\xaa" * 0xFFFE), ["load_bss"]),
    "first-byte-of-bss-not-zeroed": ("loads-bss", lambda m: write(m, 0x201003, b"\1"), ["load_bss"]),
    "last-byte-of-bss-not-zeroed": ("loads-bss", lambda m: write(m, 0x211000, b"\1"), ["load_bss"]),
    "segment-of-zeros-not-zeroed": ("loads-bss", lambda m: write(m, 0x308002, b"\1"), ["load_bss"]),
    "bss-of-the-image-not-zeroed": ("elf64", lambda m: write(m, 0x100000 + GUEST_MEMORY_BYTES - 1, b"\1"), ["load_bss"]),
    "a-byte-of-the-image-wrong": ("elf64", lambda m: write(m, 0x100000 + len(guest_image().code) + 0xA00, b"\1"), ["image"]),
    "high-segment-in-low-memory": (
        "above-4g",
        lambda m: moved_segment(m, 0x100200801, 0x1001, 0x200801),
        ["load_data"],
    ),
    "high-bss-not-zeroed": ("above-4g", lambda m: write(m, 0x100203001, b"\1"), ["load_bss"]),
    "last-of-many-missing": ("loads-many", lambda m: moved_segment(m, 0x200000, 0x41, None), ["load_data"]),
}


@pytest.mark.parametrize("mutant", LOADER_MUTANTS)
def test_a_loaders_mistake_is_found_and_named(mutant, engine_name):
    name, spoil, failing = LOADER_MUTANTS[mutant]
    value, console = run_spoilt(plan_for(build_guest(name), max(guest(name).memory, MEMORY)), engine_name, spoil)
    report = parse_report(console)
    assert report.failed == failing
    assert (value, report.result) == (len(failing), f"FAIL {len(failing)}")


def test_what_was_found_is_told(engine_name):
    """How far the zeros go, and what hash the bytes have."""
    data = build_guest("loads-bss")
    spoil = {0x200000: b"\xfe", 0x201013: b"\1"}
    _, console = run_spoilt(plan_for(data), engine_name, lambda m: [write(m, paddr, new) for paddr, new in spoil.items()])
    (segment,) = (segment for segment in ELFFile(BytesIO(data)).iter_segments() if segment["p_paddr"] == 0x200000)
    wanted = expected_loads(data)[1]
    assert parse_report(console).loads[1] == wanted._replace(hash=fnv_1a(b"\xfe" + segment.data()[1:]), zeros=0x10)


def test_a_segment_that_is_left_behind_is_found(engine_name):
    data = build_guest("reloc-4")
    plan = plan_for(data, base=0x1800000)
    low = plan.kernel.segments[1]
    moved = low.paddr + 0x800000
    _, console = run_spoilt(plan, engine_name, lambda m: moved_segment(m, moved, low.filesz, low.paddr))
    assert parse_report(console).failed == ["load_data"]


@pytest.mark.parametrize("base", [0x1801000, 0x800000, 0x40000000], ids=["not-aligned", "too-low", "too-high"])
def test_a_place_that_the_note_forbids_is_found(base, engine_name):
    """A loader that reads other words than the note has: here the file has them, and the guest knows better."""
    data = build_guest("reloc-12")
    head = struct.pack("<III", 4, 12, pvh.XEN_ELFNOTE_PHYS32_RELOC) + pvh.NOTE_NAME
    words = head + struct.pack("<III", 0x200000, 0x1000000, 0x3FFFFFFF)
    lax = data.replace(words, head + struct.pack("<III", 0x1000, 0, 0xFFFFFFFF))
    assert lax != data
    _, console = run_spoilt(plan_for(lax, 1100 * MIB, base=base), engine_name)
    assert parse_report(console).failed == ["placement"]


def test_an_entry_that_is_missed_by_a_byte_is_found(engine_name):
    data = build_guest("entry-last")
    entry = Kernel.from_bytes(data, "guest").entry
    head = struct.pack("<III", 4, 8, pvh.XEN_ELFNOTE_PHYS32_ENTRY) + pvh.NOTE_NAME
    missed = data.replace(head + struct.pack("<Q", entry), head + struct.pack("<Q", entry + 1))
    _, console = run_spoilt(plan_for(missed), engine_name)
    assert parse_report(console).failed == ["eip"]


def test_whoever_goes_to_the_entry_of_the_elf_header_gets_another_value(engine_name):
    one = guest("elf-entry")
    at_elf_entry = one._replace(recipe=one.recipe._replace(entry=ELF_ENTRY)).build(guest_image())
    assert run_spoilt(plan_for(at_elf_entry), engine_name) == (GUEST_ELF_ENTRY, b"")
    data = one.build(guest_image())
    assert ELFFile(BytesIO(data))["e_entry"] == Kernel.from_bytes(at_elf_entry, "guest").entry


# What is refused.


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_to_be_refused_is_refused_with_the_documented_reason(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(build_guest(name))
    with pytest.raises(BootError) as caught:
        Kernel.open(path)
    assert str(caught.value) == f"{path}: {guest(name).reason}"


@pytest.mark.parametrize("name", BOOTING)
def test_the_loader_knows_where_a_guest_may_go(name):
    placement = guest(name).recipe.relocation
    found = Kernel.from_bytes(build_guest(name), name).relocation
    assert (None if found is None else tuple(found)) == (None if placement is None else tuple(placement))


def test_the_image_is_as_large_as_it_says():
    assert len(guest_image().code) < GUEST_FILE_BYTES < GUEST_MEMORY_BYTES
