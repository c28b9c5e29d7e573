"""What a run executes of a ROM, held against single steps; and the file that it is kept in."""

import base64
import gzip
import json
from itertools import pairwise

import pytest
from pvhboot.emu.board import Board
from pvhboot.emu.checkpoint import checkpoint
from pvhboot.emu.coverage import Coverage, parse_coverage
from pvhboot.emu.covered import covered_files, total
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.unicorn import UnicornEngine
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, MIB, MICROVM, Q35, ROM_MAX
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob, default_guest


def plan_of(blob, spec=BARE, **more):
    return make_plan(spec, blob.data, Kernel.from_bytes(default_guest(64), "guest"), memory=64 * MIB, **more)


def run(coverage, blob, spec=BARE, engine="unicorn", **more):
    board = Board(plan_of(blob, spec, **more))
    return get_engine(engine).run(board, Until("handoff"), Limits(), lambda _: None, [coverage.of(blob)])


def steps(blob, spec, **more):
    """The addresses of all instructions up to the handoff, one step after the other."""
    board = Board(plan_of(blob, spec, **more))
    with UnicornEngine().cpu(board, Limits()) as cpu:
        found = [cpu.linear_ip()]
        while cpu.step() and found[-1] != board.entry:
            found.append(cpu.linear_ip())
    return found


def target_of(blob, line):
    """Of a branch to a label: from the source."""
    return blob.symbols.get(line.text.split()[-1])


@pytest.mark.parametrize("spec", [BARE, MICROVM], ids=lambda spec: spec.name)
def test_what_is_executed_is_what_single_steps_come_to(spec):
    blob = default_blob(spec)
    coverage = Coverage()
    run(coverage, blob, spec, cmdline="x")
    went = steps(blob, spec, cmdline="x")
    code = {line.address: line for line in blob.listing if line.is_code}
    executed = {address for address in went if address in code}
    assert 80 < len(executed) < len(code)
    assert set(coverage.of(blob).executed) == executed
    edges = set(pairwise(went))
    by_line = {}
    for file in covered_files(coverage):
        for each in file.instructions:
            if each.ways is not None:
                by_line.setdefault((file.name, each.line), []).append(each)
    checked = 0
    for address, line in code.items():
        target = target_of(blob, line)
        if line.text[0] == "j" and not line.text.startswith("jmp") and target is not None:
            (each,) = by_line.pop((line.file, line.line))
            wanted = (address, target) in edges, (address, address + len(line.data)) in edges
            assert (each.ways.taken > 0, each.ways.passed > 0) == wanted, line
            checked += 1
    assert checked >= 15


def test_runs_are_counted_not_turns_of_a_loop():
    blob = default_blob(MICROVM)
    coverage = Coverage()
    for number in (1, 2, 3):
        run(coverage, blob, MICROVM)
        assert set(coverage.of(blob).executed.values()) == {number}
    assert max(coverage.of(blob).edges.values()) == 3


def test_both_ways_of_a_branch_come_together_from_two_runs():
    blob = default_blob(BARE)
    both, one = Coverage(), Coverage()
    run(one, blob)
    run(both, blob)
    run(both, blob, cmdline="a line")
    (with_line,) = (file for file in covered_files(both) if file.name == "modules.s")
    (without,) = (file for file in covered_files(one) if file.name == "modules.s")
    branch = next(number for number, each in enumerate(without.instructions) if each.text == "jz strings_done")
    assert without.instructions[branch].ways == (1, 0)
    assert with_line.instructions[branch].ways == (1, 1)
    assert with_line.instructions[branch].runs == 2


def test_what_two_firmwares_have_of_the_same_line_is_added_up():
    coverage = Coverage()
    run(coverage, default_blob(BARE))
    run(coverage, default_blob(MICROVM), MICROVM)
    files = {file.name: file for file in covered_files(coverage)}
    assert {each.runs for each in files["flat32.s"].instructions} == {2}
    assert {each.runs for each in files["memmap.s"].instructions} == {1}  # bare alone has it
    names = [line.file for line in default_blob(BARE).listing if line.is_code]
    assert list(files)[: len(set(names))] == list(dict.fromkeys(names)), "in the order of the listing"


def test_a_firmware_with_another_source_is_another_rom():
    coverage = Coverage()
    staged = build(BARE, [make_stage("before-handoff", "mine.s", "# Clobbers: nothing\n    nop\n    jmp 1f\n1:\n")])
    run(coverage, staged)
    (mine,) = (file for file in covered_files(coverage) if file.name == "mine.s")
    assert [(each.line, each.text, each.runs) for each in mine.instructions] == [(2, "nop", 1), (3, "jmp 1f", 1)]
    assert len(coverage.roms) == 1
    run(coverage, default_blob(BARE))
    assert len(coverage.roms) == 2


def test_kvm_sees_the_same(engine_name):
    blob = default_blob(BARE)
    coverage, other = Coverage(), Coverage()
    run(coverage, blob, cmdline="x")
    run(other, blob, engine=engine_name, cmdline="x")
    assert other.to_json() == coverage.to_json()


def test_going_back_to_a_checkpoint_is_no_way_of_a_branch():
    """The last instruction before the CPU is put back to the start of a loop is the branch there; it was not taken."""
    blob = default_blob(BARE)
    loop = blob.symbols["memmap_entry"]
    (branch,) = (line for line in blob.listing if line.text == "jnz memmap_entry")
    rom = Coverage().of(blob)
    board = Board(plan_of(blob))
    with UnicornEngine().cpu(board, Limits()) as cpu, cpu.watch(rom.start(cpu, board)):
        assert cpu.run_to({loop})
        for _ in range(2):
            with checkpoint(cpu, board):
                assert cpu.run_to({branch.address})
                cpu.set_register("eflags", 0x42)  # ZF
                assert cpu.step()
                assert cpu.linear_ip() == branch.address + len(branch.data)
    assert rom.executed[branch.address] == rom.executed[loop] == 1
    assert rom.edges[branch.address, loop] == 0


# A ROM of foreign origin: 64 KiB of zeros but for this. From the reset it jumps to its copy below 1 MiB.

CODE = bytes.fromhex("31c0 7503 7403 f4 ebfd f4 ebfd")  # at ffe0: xor; jne ffe7; je ffe9; hlt; jmp ffe6; hlt; jmp ffe9
FOREIGN = bytearray(0x10000)
FOREIGN[0xFFE0 : 0xFFE0 + len(CODE)] = CODE
FOREIGN[0xFFF0:0xFFF5] = bytes.fromhex("ea e0ff 00f0")


def test_of_a_foreign_rom_it_is_what_was_executed_and_what_that_leads_to():
    blob = Blob(bytes(FOREIGN), {}, (), {})
    coverage = Coverage()
    coverage.of(blob, "theirs.rom")
    run(coverage, blob, MICROVM)
    assert sorted(coverage.of(blob).executed) == [0xFFFFFFE0, 0xFFFFFFE2, 0xFFFFFFE4, 0xFFFFFFE9, 0xFFFFFFF0]
    (file,) = covered_files(coverage)
    assert file.name == "theirs.rom.lst"
    told = [(each.text.split()[0], each.runs, each.ways) for each in file.instructions]
    assert told == [
        ("xor", 1, None),
        ("jne", 1, (0, 1)),
        ("je", 1, (1, 0)),
        ("hlt", 0, None),
        ("jmp", 0, None),
        ("hlt", 1, None),
        ("jmp", 0, None),
        ("ljmp", 1, None),
    ]
    lines = file.text.split("\n")
    for each in file.instructions:
        assert lines[each.line - 1].endswith(each.text)
    assert total([file])[:4] == (8, 5, 4, 2)


def test_two_of_the_same_name_are_told_apart():
    coverage = Coverage()
    for last in (0, 1):
        blob = Blob(bytes(FOREIGN[:-1]) + bytes([last]), {}, (), {})
        coverage.of(blob, "theirs.rom")
        run(coverage, blob, MICROVM)
    names = {file.name for file in covered_files(coverage)}
    assert len(names) == 2
    assert all(name.startswith("theirs.rom-") for name in names)


# The file.


def test_what_is_read_back_is_what_was_written():
    coverage = Coverage()
    run(coverage, default_blob(BARE))
    run(coverage, default_blob(Q35), Q35)
    run(coverage, Blob(bytes(FOREIGN), {}, (), {}), MICROVM)
    text = coverage.to_json()
    again = parse_coverage(text, "it")
    assert again.to_json() == text
    assert covered_files(again) == covered_files(coverage)
    again.add(coverage)
    assert [rom.executed for rom in again.roms] == [rom.executed + rom.executed for rom in coverage.roms]


def rom_of(text):
    return json.loads(text)["roms"][0]


BROKEN = {
    "nothing": lambda _: "",
    "no object": lambda _: "[]",
    "something else": lambda _: "{}",
    "another version": lambda data: json.dumps({**data, "pvhboot_coverage": 2}),
    "no ROMs": lambda _: json.dumps({"pvhboot_coverage": 1}),
    "ROMs by number": lambda data: json.dumps({**data, "roms": 5}),
    "deep": lambda _: "[" * 100_000,
    **{
        name: lambda data, change=change: json.dumps({**data, "roms": [{**data["roms"][0], **change}]})
        for name, change in {
            "no base64": {"data": "*"},
            "not packed": {"data": base64.b64encode(b"x").decode()},
            "another ROM": {"data": base64.b64encode(gzip.compress(bytes(0x10000))).decode()},
            "cut short": {"data": base64.b64encode(gzip.compress(bytes(0x10000))[:-9]).decode()},
            "too large": {"data": base64.b64encode(gzip.compress(bytes(ROM_MAX + 1))).decode()},
            "a name that leads elsewhere": {"name": "../x"},
            "a name that rings": {"name": "\a"},
            "executed outside": {"executed": [[0x1000, 32, 1]]},
            "executed never": {"executed": [[0xFFFFFFF0, 16, 0]]},
            "in 8 bits": {"executed": [[0xFFFFFFF0, 8, 1]]},
            "cut": {"executed": [[0xFFFFFFF0]]},
            "an edge to nowhere": {"edges": [[1, None, 1]]},
            "an edge from a word": {"edges": [["1", 0xFFFFFFF0, 1]]},
            "executed at a half": {"executed": [[0xFFFFFFF0 + 0.5, 16, 1]]},
            "executed at a whole that is none": {"executed": [[float(0xFFFFFFF0), 16, 1]]},
            "executed for ever": {"executed": [[0xFFFFFFF0, 16, float("inf")]]},
            "a label without end": {"symbols": {"x": float("inf")}},
            "a line that is not there": {"listing": [["0xfffffff0", "90", "x.s", 1, "nop"]]},
            "a line of no bytes": {"listing": [["0xfffffff0", "", "x.s", 1, "nop"]]},
            "a line below": {"listing": [["0x0", "00", "x.s", 1, "nop"]]},
            "a line without end": {"listing": [["0xfffffff0", "e9", "x.s", float("inf"), "nop"]]},
            "a line of no file": {"listing": [["0xfffffff0", "e9", "x\n.s", 1, "nop"]]},
            "a line of a number": {"listing": [["0xfffffff0", "e9", "x.s", 1, 5]]},
        }.items()
    },
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_what_is_no_coverage_is_refused(change):
    coverage = Coverage()
    run(coverage, default_blob(BARE))
    data = json.loads(coverage.to_json())
    parse_coverage(json.dumps(data), "it")
    with pytest.raises(BootError, match=r"^it: (no coverage that pvhboot has written: .|coverage of version 2: this)"):
        parse_coverage(change(data), "it")
