"""The published strategies of machines and hosts: what they draw is what they say, is varied, boots, and finds and shrinks what
is wrong with a firmware."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from pvhboot.emu import strategies
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.emu.session import Outcome, boot_board, get_engine
from pvhboot.emu.strategies import (
    Boot,
    Contents,
    boots,
    cmdlines,
    contents,
    e820_files,
    hostile_contents,
    hostile_memory_maps,
    memory_maps,
    setup_headers,
    smbios_anchors,
    table_loaders,
)
from pvhboot.loader.fw_cfg import directory, fw_cfg_items, item_bytes
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import CMDLINE_MAX, GIB, MACHINES, MIB, MICROVM, Q35, Span
from pvhboot.shim.stock import default_blob, default_guest

MEMORY = 64 * MIB
KERNEL = Span("kernel", 0x200000, 0x210000)
FIXED = {"derandomize": True, "database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
SHRUNK = settings(max_examples=200, **FIXED)


def drawn(strategy, examples=150):
    """Examples, always the same."""
    out = []

    @settings(max_examples=examples, phases=[Phase.generate], **FIXED)
    @given(strategy)
    def collect(value):
        out.append(value)

    collect()
    return out


# What is drawn.


@pytest.mark.parametrize(("spec", "memory"), [(MICROVM, MEMORY), (Q35, 5 * GIB)], ids=["microvm", "q35"])
def test_an_honest_memory_map_is_one(spec, memory):
    kept = [Span("", 32 * MIB, 33 * MIB)]
    seen = Counter()
    for entries in drawn(memory_maps(spec, memory, kept)):
        assert len(entries) <= 121
        ordered = sorted(entries)
        assert all(before.addr + before.size <= after.addr for before, after in pairwise(ordered))
        assert all(entry.size for entry in entries)
        ram = [entry for entry in ordered if entry.type == 1]
        assert (ram[0].addr, ram[0].size >= 16 * MIB) == (0, True)
        assert any(entry.addr <= 32 * MIB and entry.addr + entry.size >= 33 * MIB for entry in ram)
        taken = sum(entry.size for entry in ordered if entry.type != 1 and entry.addr + entry.size <= memory)
        if memory == MEMORY:
            assert sum(entry.size for entry in ram) + taken == memory
        seen.update(
            {
                "sorted": list(entries) == ordered,
                "not sorted": list(entries) != ordered,
                "holes in RAM": len(ram) > 2,
                "above 4 GiB": ordered[-1].addr >= 1 << 32,
                "many": len(entries) > 60,
                "full": len(entries) == 121,
                "touching": any(one.addr + one.size == other.addr for one, other in pairwise(ordered)),
            }
        )
    assert all(seen.values()), seen


def test_a_hostile_memory_map_is_anything():
    seen = Counter()
    for entries in drawn(hostile_memory_maps(MEMORY)):
        ordered = sorted(entries)
        seen.update(
            {
                "nothing": not entries,
                "overlapping": any(one.addr + one.size > other.addr for one, other in pairwise(ordered)),
                "empty": any(not entry.size for entry in entries),
                "wrapping": any(entry.addr + entry.size > 1 << 64 for entry in entries),
                "unknown": any(entry.type in (0, 9) for entry in entries),
                "absurd": len(entries) > 122,
                "twice": len(set(entries)) < len(entries),
                "good": len(ordered) == 1 and ordered[0][1:] == (MEMORY, 1),
            }
        )
    assert all(seen.values()), seen
    assert {len(data) % 20 for data in drawn(e820_files(MEMORY))} == {0, 1, 19}


def test_command_lines_end_where_buffers_do():
    lines = [line.encode("utf-8", "surrogateescape") for line in drawn(cmdlines())]
    assert {0, 1, 256, 4096, CMDLINE_MAX - 1} <= {len(line) for line in lines}
    assert max(map(len, lines)) < CMDLINE_MAX
    assert not any(b"\0" in line for line in lines)
    assert all(any(part in line for line in lines) for part in (b'"', b"'", b"\xff", b" ", b"\n"))
    assert {len(line.encode("utf-8", "surrogateescape")) <= 7 for line in drawn(cmdlines(7), 50)} == {True}


def test_hostile_contents_are_wrong_in_every_way():
    seen = Counter()
    for each in drawn(hostile_contents(MEMORY, KERNEL), 300):
        seen.update(name for name, value in each._asdict().items() if value)
        seen["honest"] += not any(each[:5]) and not each.others and each.file_count is None
        seen["missing"] += None in (*each.items.values(), *each.files.values())
        seen["more files than keys"] += (each.file_count or 0) > 0x3FE0
        seen["no NUL"] += any(b"\0" not in name for name in each.names.values())
    assert {*Contents._fields, "honest", "missing", "more files than keys", "no NUL"} <= seen.keys()
    assert all(seen.values()), seen


def test_what_the_directory_says_of_a_size_leaves_the_file_as_it_is(plan_of):
    plan = plan_of(MICROVM, default_blob(MICROVM).data)
    honest, told = fw_cfg_items(plan), Contents(sizes={b"etc/e820": 4000}).fw_cfg_items(plan)
    (key,) = (key for key, file in directory(told).items() if file.name.rstrip(b"\0") == b"etc/e820")
    assert (directory(told)[key].size, directory(honest)[key].size) == (4000, honest[key].size)
    assert item_bytes(told[key]) == item_bytes(honest[key])


def test_a_strategy_is_shown_by_its_name():
    for strategy in (boots(), cmdlines(), table_loaders(), smbios_anchors()):
        assert repr(strategy).endswith("()")
    assert repr(setup_headers(MEMORY, 5)).startswith("setup_headers(")


def test_without_hypothesis_one_line_says_so():
    code = "import sys; sys.modules['hypothesis'] = None; import pvhboot.emu.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    *_, line = done.stderr.splitlines()
    assert line == "ImportError: pvhboot.emu.strategies needs hypothesis: pip install 'pvhboot[test]' brings it"
    assert "During handling" not in done.stderr


# What boots.


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_each_boot_is_clean(tmp_path, spec):
    blob = default_blob(spec)

    @seed(1)
    @settings(max_examples=5, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(boots((spec,)))
    def each(made: Boot):
        with made.plan(blob.data, str(tmp_path)) as plan:
            outcome = boot_board(Board(plan), blob, get_engine("unicorn"), Until("handoff"), Limits(seconds=60))
        assert outcome.ok, outcome.run.stop

    each()


BOOTS = {
    "32 bits": lambda made: made.bits == 32,
    "64 bits": lambda made: made.bits == 64,
    "no module": lambda made: not made.modules,
    "a module": lambda made: made.modules,
    "RAM above 4 GiB": lambda made: made.memory > 3 * GIB,
    "no DMA": lambda made: not made.dma,
    "several pieces": lambda made: len(made.segments) > 1,
    "a command line": lambda made: made.cmdline,
    **{name: lambda made, name=name: made.spec.name == name for name in MACHINES},
}


def test_there_are_boots_of_every_kind():
    made = drawn(boots())
    assert {name for name, wanted in BOOTS.items() if not any(map(wanted, made))} == set()


def test_the_least_boot_is_small():
    least = find(boots(), lambda _: True, settings=SHRUNK)
    assert (least.spec.name, least.memory, least.modules, least.cmdline) == ("bare", 16 * MIB, (), None)
    assert (least.segments, least.entry) == (((0, 1, 0),), 0)


@pytest.fixture
def plan_of():
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        yield lambda spec, rom: make_plan(spec, rom, kernel, memory=MEMORY, cmdline="a b")


def booted(plan: BootPlan, blob: Blob, told: Contents) -> Outcome:
    """With a host that tells this; of the memory map it is not known what the firmware is to make of it."""
    board = Board(plan._replace(rom=blob.data, memmap=None), fw_cfg_items=told.fw_cfg_items(plan))
    return boot_board(board, blob, get_engine("unicorn"), Until("handoff"), Limits(instructions=2_000_000, seconds=60))


@pytest.mark.parametrize("name", ["microvm", "microvm-acpi", "pc", "q35"])
def test_any_honest_host_boots(name, plan_of):
    blob = default_blob(MACHINES[name])
    plan = plan_of(MACHINES[name], blob.data)

    @seed(2)
    @settings(max_examples=15, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(contents(plan))
    def each(told):
        outcome = booted(plan, blob, told)
        assert outcome.clean, (outcome.run.stop, outcome.debug_console, outcome.findings)

    each()


# What is found.


def planted(file: str, old: str, new: str) -> Blob:
    source = asm_source(file)
    assert source.count(old) == 1
    return build(MICROVM, sources={file: source.replace(old, new)})


def told_map(told: Contents) -> list[E820Entry]:
    data = told.files.get(b"etc/e820", b"")
    return [E820_ENTRY.unpack(data, at) for at in range(0, len(data), E820_ENTRY.size)]


def test_a_range_that_is_lost_among_many_is_found_and_made_small(plan_of):
    """Of a memory map of more than 20 entries the last one is not told."""
    bug = "    mov ebx, eax\n    cmp ebx, 20\n    jbe 9f\n    dec ebx\n9:\n"
    blob = planted("e820.s", "    mov ebx, eax\n", bug)
    plan = plan_of(MICROVM, blob.data)

    def loses(told: Contents) -> bool:
        handed = booted(plan, blob, told).tables.memmap
        return any(entry.addr and not any(entry == other[:3] for other in handed) for entry in told_map(told))

    least = find(contents(plan), loses, settings=SHRUNK)
    assert not loses(Contents())
    assert (least.others, set(least.files)) == (0, {b"etc/e820"})
    # The firmware adds three to what the host tells: no shorter map shows it.
    assert len(told_map(least)) == 18
    assert {entry.size for entry in told_map(least)[1:]} == {0x1000}


def test_a_map_that_is_not_sorted_is_found_and_made_small(plan_of):
    mutant = next(each for each in MUTANTS if each.name == "memmap-unsorted")
    blob = build(MICROVM, sources=mutant.sources())
    plan = plan_of(MICROVM, blob.data)

    def is_unsorted(told: Contents) -> bool:
        return any(each.clause == "memmap.sorted" and each.status == VIOLATED for each in booted(plan, blob, told).findings)

    least = find(contents(plan), is_unsorted, settings=SHRUNK)
    assert least.others == 0
    assert len(told_map(least)) <= 3


# The docs.


def test_the_docs_name_every_strategy():
    docs = (Path(__file__).parent.parent.parent / "docs/strategies.md").read_text()
    assert {name for name in strategies.__all__ if f"`{name}(" not in docs and f"`{name}`" not in docs} <= {
        "HONEST",
        "DrawnModule",
        "DrawnSegment",
    }
