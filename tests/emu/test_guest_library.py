"""The library of conformance guests: each runs and says of itself what its ELF says; a loader's mistakes are found; and what is
to be refused is refused, with the reason that is documented."""

import hashlib
import json
import re
import shlex
import struct
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from guest_report import LoadLine, parse_report
from pvhboot.emu.board import Board
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import FREEBSD, LINUX, Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import freebsd, pvh
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_layout import (
    FREEBSD_FREE_BYTES,
    GUEST_ELF_ENTRY,
    GUEST_FILE_BYTES,
    GUEST_FORMAT,
    GUEST_FREEBSD_HALT,
    GUEST_MEMORY_BYTES,
    fnv_1a,
)
from pvhboot.shim.guest_library import LIBRARY, guest
from pvhboot.shim.guest_link import ELF_ENTRY
from pvhboot.shim.image import asm_source
from pvhboot.shim.machines import BARE, GIB, MIB
from pvhboot.shim.stock import build_guest, default_blob, guest_image

BOOTING = [one.name for one in LIBRARY if not one.reason]
REFUSED = [one.name for one in LIBRARY if one.reason]
CHECKS = re.findall(r"^\s+CHECK (\w+)$", asm_source("guest_data.s"), re.MULTILINE)
MEMORY = 64 * MIB


def plan_for(data, memory=MEMORY, **more):
    return make_plan(BARE, default_blob(BARE).data, Kernel.from_bytes(data, "guest"), memory=memory, cmdline="hi", **more)


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


def run_spoilt(plan, engine_name, spoil=None, at_handoff=None):
    """A run with the guest's memory changed after loading, or at its entry: what it left with, and its report."""
    memory = plan.memory()
    if spoil is not None:
        spoil(memory)
    board = Board(plan, memory)

    def on_handoff(handoff):
        if at_handoff is not None:
            at_handoff(handoff.memory, handoff.registers["ebx"])

    run = get_engine(engine_name).run(board, Until(EXIT), Limits(seconds=60), on_handoff)
    assert run.stop.reason == EXIT, run.stop
    return run.stop.value, bytes(board.console)


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


def write(memory, paddr, data):
    memory.view(paddr, len(data))[:] = data


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


# FreeBSD's rules.


def record(kind, data):
    return freebsd.MODINFO.pack(freebsd.Modinfo(kind, len(data))) + data + bytes(-len(data) % freebsd.MODINFO_ALIGN)


def metadata(kind=b"elf kernel\0"):
    """What FreeBSD's loader leaves, as far as the kernel looks for it."""
    return record(freebsd.MODINFO_NAME, b"/boot/kernel/kernel\0") + record(freebsd.MODINFO_TYPE, kind) + bytes(8)


def behind_header(data, at=0x1000, flags=freebsd.XENHEADER_HAS_MODULEP_OFFSET):
    return freebsd.XEN_HEADER.pack(freebsd.XenHeader(flags, at)).ljust(at, b"\0") + data


CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!\0"


@pytest.fixture
def freebsd_plan(tmp_path):
    def plan(*modules, rules=FREEBSD, memory=MEMORY):
        listed = []
        for number, (data, cmdline) in enumerate(modules):
            path = tmp_path / f"module{number}"
            path.write_bytes(data)
            listed.append(Module(str(path), cmdline))
        return plan_for(build_guest("freebsd"), memory, modules=listed, guest=rules)

    return plan


# The modules, how many pages they take, and where in module 0 the metadata is.
FREEBSD_BOOTS = {
    "no-module": ((), 0, None),
    "metadata": ([(metadata(), "kernel")], 1, 0),
    "metadata-of-an-older-loader": ([(metadata(b"elf64 kernel\0"), "kernel")], 1, 0),
    "metadata-behind-a-header": ([(behind_header(metadata()), "header")], 2, 0x1000),
    "and-more": ([(metadata(), "kernel"), (b"second" * 1000, "another"), (b"third", "a third")], 4, 0),
}


@pytest.mark.parametrize("case", FREEBSD_BOOTS)
def test_freebsds_rules_are_met(case, freebsd_plan, engine_name):
    modules, pages, where = FREEBSD_BOOTS[case]
    plan = freebsd_plan(*modules)
    value, console = run_spoilt(plan, engine_name)
    report = parse_report(console)
    end = 0x400000  # of the kernel
    metadata_at = " none" if where is None else f"={plan.modules[0].paddr + where:#010x}"
    assert report.freebsd == [f"physfree={end + pages * 0x1000:#010x} is RAM", f"metadata{metadata_at}"]
    assert [(paddr, size) for paddr, size, _ in report.modules] == [(m.paddr, m.payload.size) for m in plan.modules]
    assert [line for *_, line in report.modules] == [f'"{cmdline}"' for _, cmdline in modules]
    assert value == 0


def field(name):
    return pvh.HVM_START_INFO.fields[name].offset


def put(memory, at, value, size=8):
    write(memory, at, value.to_bytes(size, "little"))


def get(memory, at, size=8):
    return int.from_bytes(memory.read(at, size), "little")


def module_field(name):
    def change(value):
        def at_handoff(memory, info):
            put(memory, get(memory, info + field("modlist_paddr")) + pvh.HVM_MODLIST_ENTRY.fields[name].offset, value)

        return at_handoff

    return change


def info_field(name, value, size=8):
    return lambda memory, info: put(memory, info + field(name), value, size)


ONE = [(metadata(), "kernel")]
# The modules, by whose rules they are placed, what is changed at the entry, and the reason that is given.
FREEBSD_HALTS = {
    "magic": ((), FREEBSD, info_field("magic", 1, 4), "start_info has another magic"),
    "version-0": ((), FREEBSD, info_field("version", 0, 4), "no memory map in the first GiB"),
    "no-memory-map": ((), FREEBSD, info_field("memmap_paddr", 0), "no memory map in the first GiB"),
    "memory-map-above-1g": ((), FREEBSD, info_field("memmap_paddr", GIB), "no memory map in the first GiB"),
    "memory-map-above-4g": ((), FREEBSD, info_field("memmap_paddr", 1 << 32 | 0x7000), "no memory map in the first GiB"),
    "memory-map-without-end": ((), FREEBSD, info_field("memmap_entries", 0x80000000, 4), "no memory map in the first GiB"),
    "modlist-without-modules": ((), FREEBSD, info_field("modlist_paddr", 0x6040), "modlist_paddr is set, nr_modules is 0"),
    "modlist-above-1g": (ONE, FREEBSD, info_field("modlist_paddr", GIB), "the module list is not in the first GiB"),
    "module-above-1g": (ONE, FREEBSD, module_field("paddr")(GIB), "a module is not in the first GiB"),
    "module-of-4g": (ONE, FREEBSD, module_field("size")(1 << 32), "a module is not in the first GiB"),
    "modules-at-the-top": (ONE, LINUX, None, "no RAM behind kernel, start_info, memory map and modules"),
    "reserved-behind-the-kernel": (
        (),
        FREEBSD,
        lambda memory, info: put(memory, get(memory, info + field("memmap_paddr")) + 8, 0x400000 + FREEBSD_FREE_BYTES - 1),
        "no RAM behind kernel, start_info, memory map and modules",
    ),
    "cmdline-in-the-way": (
        (),
        FREEBSD,
        info_field("cmdline_paddr", 0x400000 + FREEBSD_FREE_BYTES - 1),
        "a command line or the module list lies in the first free pages",
    ),
    "null-cmdline": (ONE, FREEBSD, module_field("cmdline_paddr")(0), "module 0 has no command line"),
    "cmdline-above-1g": (
        ONE,
        FREEBSD,
        module_field("cmdline_paddr")(GIB),
        "the command line of module 0 is not in the first GiB",
    ),
    "an-initrd": ([(CPIO, "initrd")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "no-kernel-in-it": ([(metadata(b"elf module\0"), "x")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "records-that-run-out": ([(metadata()[:16], "x")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "header-without-offset": (
        [(behind_header(metadata(), flags=0), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
    "header-beyond-the-module": (
        [(behind_header(b"", 0x2000), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
    "metadata-where-a-header-should-be": (
        [(metadata(), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FREEBSD_HALTS)
def test_the_stand_in_halts_where_freebsd_would(case, freebsd_plan, engine_name):
    modules, rules, change, reason = FREEBSD_HALTS[case]
    value, console = run_spoilt(freebsd_plan(*modules, rules=rules), engine_name, at_handoff=change)
    assert value == GUEST_FREEBSD_HALT
    assert console.decode().splitlines()[-1] == f"freebsd halt: {reason}"


def test_every_reason_to_halt_is_tried():
    """But for those that take a start_info above 1 GiB, or memory that forgets."""
    reasons = set(re.findall(r'^halt_\w+:\n    \.asciz "(.*)"$', asm_source("guest_freebsd.s"), re.MULTILINE))
    untried = {"start_info is not in the first GiB", "the first free pages do not hold what is stored"}
    assert reasons - {reason for *_, reason in FREEBSD_HALTS.values()} == untried


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
    placement = guest(name).recipe.placement
    found = Kernel.from_bytes(build_guest(name), name).relocation
    assert (None if found is None else tuple(found)) == (None if placement is None else tuple(placement))


# The command.


def test_all_are_written_with_a_manifest(tmp_path, capsys):
    directory = tmp_path / "made" / "on the way"
    assert main(["guests", "-o", str(directory)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["name", "memory", "expected", "what", "is", "special", "about", "it"]
    assert [line.split()[0] for line in out[1:-1]] == [one.name for one in LIBRARY]
    assert out[-1] == f"{len(LIBRARY)} guests and guests.json written to {directory}"
    manifest = json.loads((directory / "guests.json").read_text())
    assert (manifest["format"], manifest["serial_port"], manifest["debug_exit_port"]) == (GUEST_FORMAT, 0x3F8, 0x501)
    assert set(manifest["exit_values"]) == {"0", "1-124", "125", "126", "127"}
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        ["guests.json", *(entry["file"] for entry in manifest["guests"])]
    )
    for entry, one in zip(manifest["guests"], LIBRARY, strict=True):
        data = (directory / entry["file"]).read_bytes()
        assert entry == {
            "name": one.name,
            "file": f"guest-{one.name}",
            "shows": one.shows,
            "class": 32 * data[4],
            "memory": one.memory,
            "relocatable": None if one.recipe.placement is None else one.recipe.placement._asdict(),
            "expected": "refused" if one.reason else "boots",
            "reason": one.reason or None,
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def test_some_are_written_and_named_once(tmp_path, capsys):
    assert main(["guests", "reloc-12", "elf32", "reloc-12", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 guests and guests.json written to {tmp_path}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest-elf32", "guest-reloc-12", "guests.json"]
    assert [entry["name"] for entry in json.loads((tmp_path / "guests.json").read_text())["guests"]] == ["reloc-12", "elf32"]


def test_the_list_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["guests", "--list", "freebsd"]) == 0
    assert re.search(r"^freebsd +16 MiB +boots +a stand-in for FreeBSD/amd64", capsys.readouterr().out, re.MULTILINE)
    assert main(["guests", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["guests"]) == len(LIBRARY)
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_manifest(tmp_path, capsys):
    assert main(["guests", "elf64", "-o", str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().out == (tmp_path / "guests.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "pvhboot: name a directory for the guests with -o DIR, or look at their list with --list"),
        (["nobody", "--list"], "pvhboot: no conformance guest named 'nobody': `pvhboot guests --list` names them"),
        (["-o", "file"], "pvhboot: file: cannot be made a directory: File exists"),
        (["-o", "file/below"], "pvhboot: file/below: cannot be made a directory: Not a directory"),
        (["-o", ""], "pvhboot: an output without a name: cannot be made a directory: No such file or directory"),
        (["-o", "a\0b"], r"pvhboot: a\x00b: cannot be made a directory: embedded null byte"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["guests", *arguments]) == 2
    assert capsys.readouterr().err == says + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_image_is_as_large_as_it_says():
    assert len(guest_image().code) < GUEST_FILE_BYTES < GUEST_MEMORY_BYTES


# docs/guests.md.

DOCS = (Path(__file__).parents[2] / "docs" / "guests.md").read_text()
SHOWN = re.findall(r"^```\n\$ pvhboot (.*)\n((?:.*\n)*?)^```", DOCS, re.MULTILINE)


def as_pattern(shown):
    """A line of … stands for any lines, … at the end of one for the rest of it."""
    lines = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in shown.splitlines()]
    return "".join(lines)


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_docs_show_is_true(command, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["guests", "-o", "guests"])
    Path("initrd.cpio").write_bytes(CPIO)
    capsys.readouterr()
    main(shlex.split(command))
    printed = capsys.readouterr()
    assert re.fullmatch(as_pattern(shown), printed.out + printed.err), printed.out + printed.err


def test_the_docs_tell_of_every_check_and_every_guest():
    (table,) = re.findall(r"^\| check \|.*\n\|.*\n((?:\|.*\n)+)", DOCS, re.MULTILINE)
    told = [name for names in re.findall(r"^\| ([\w, ]+) \|", table, re.MULTILINE) for name in names.split(", ")]
    assert sorted(told) == sorted(CHECKS)
    whole = set(re.findall(r"`([a-z][\w-]+)`", DOCS))
    ends = set(re.findall(r"`(-[\w-]+)`", DOCS))
    assert [one.name for one in LIBRARY if one.name not in whole and not any(one.name.endswith(end) for end in ends)] == []
