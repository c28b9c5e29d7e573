"""`pvhboot diff`: what it says of two traces, and of files that are none."""

import json

import pytest
from command_line import command, fails
from host import kvm_problem
from pvhboot.emu.cli import main
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE


@pytest.fixture
def files(tmp_path, capsys):
    """A trace of each of two firmwares that differ in one constant, and that of the accesses alone of the first."""
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == "version-0"]
    rom = tmp_path / "bad.bin"
    rom.write_bytes(build(BARE, sources=mutant.sources()).data)
    good, bad, chosen = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "chosen.jsonl"))
    command(capsys, "trace", "--until", "handoff", "-o", good)
    command(capsys, "trace", "--until", "handoff", "--firmware", rom, "-o", bad)
    command(capsys, "trace", "--until", "handoff", "--only", "io", "-o", chosen)
    return good, bad, chosen


def test_the_command_says_where_and_what(capsys, files):
    good, bad, _ = files
    assert command(capsys, "diff", good, good).splitlines()[-1].startswith("the same: ")
    assert main(["diff", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "instructions, and then not:\n" in out
    assert "first   mov dword ptr [edi + 4], 1  (32-bit, 0xffff" in out
    assert "start_info.s:" in out
    assert "second  mov dword ptr [edi + 4], 0  (32-bit, 0xffff" in out
    assert main(["diff", str(good), str(bad), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False
    assert data["divergence"]["differences"][0]["what"] == "instruction"
    assert data["divergence"]["second"]["code"] == "c7470400000000"
    assert data["same"] == data["before"][-1]["n"]
    assert main(["diff", str(good), str(bad), "--only", "io"]) == 0
    assert capsys.readouterr().out.endswith("the same: 0 accesses\n")


WRONG = [
    ("good.jsonl", "chosen.jsonl", [], "not chosen alike: nothing left out and --only io"),
    ("good.jsonl", "chosen.jsonl", ["--only", "stores"], "was made with --only io"),
    ("good.jsonl", "bad.jsonl", ["--ignore", "rax"], "no such register"),
    ("good.jsonl", "bad.bin", [], "not a trace: `pvhboot trace -o FILE` writes one"),
    ("good.jsonl", "none", [], "cannot read the trace: No such file"),
    ("good.jsonl", ".", [], "cannot read the trace: Is a directory"),
]


@pytest.mark.parametrize(("first", "second", "options", "message"), WRONG)
def test_bad_input(capsys, files, first, second, options, message):
    directory = files[0].parent
    assert message in fails(capsys, "diff", directory / first, directory / second, *options)


def spoiled(lines_of, number, /, **changes):
    """With fields of a line changed, or left out if they are None."""
    lines = lines_of.splitlines(keepends=True)
    data = {**json.loads(lines[number]), **changes}
    lines[number] = json.dumps({name: value for name, value in data.items() if value is not None}) + "\n"
    return "".join(lines)


SPOILED = [
    (lambda text: text[: len(text) // 2], "no JSON object: the file is cut off there"),
    (lambda text: "".join(text.splitlines(keepends=True)[:-1]), "without saying how the run ended"),
    (lambda text: text + text.splitlines()[3] + "\n", "goes on behind its end"),
    (lambda _: "", "not a trace"),
    (lambda _: "[1]\n", "not a trace"),
    (lambda _: '{"ok": true}\n', "not a trace"),
    (lambda text: spoiled(text, 0, pvhboot_trace=2), "a trace of format 2: this pvhboot reads format 1"),
    (lambda text: spoiled(text, 0, engine=None), "the header has no engine"),
    (lambda text: spoiled(text, 0, filters=[1]), "filters that are no words"),
    (lambda text: spoiled(text, 1, code="9"), "line 2 has a code that is not hexadecimal"),
    (lambda text: spoiled(text, 1, mode=31), "line 2 has the mode 31"),
    (lambda text: spoiled(text, 1, n="1"), "line 2 has no n, or one that is no int"),
    (lambda text: spoiled(text, 1, at=-1), "line 2 has the at -1"),
    (lambda text: spoiled(text, 1, set={"eax": None}), "line 2, set, has no eax"),
    (lambda text: spoiled(text, 1, does=[{"kind": "think", "at": 0, "size": 0}]), "has the kind think: in, out, read"),
    (lambda text: spoiled(text, 1, does=[5]), "has no kind"),
    (lambda text: spoiled(text, 1, does=[{"kind": "load", "at": 0, "size": 1 << 62, "value": 1}]), "has the size 46116860184"),
    (lambda text: spoiled(text, 1, does=[{"kind": "in", "at": 0, "size": 1, "value": 256}]), "has the value 256: 0 to 255"),
    (lambda text: spoiled(text, -1, instructions=None), "has no instructions"),
    (lambda text: text.replace("{", "[" * 5000, 2), "not a trace"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILED, ids=[message for _, message in SPOILED])
def test_a_spoiled_trace_is_one_line(capsys, tmp_path, spoil, message):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    command(capsys, "trace", "--limit", "9", "-o", good)
    bad.write_text(spoil(good.read_text()))
    assert message in fails(capsys, "diff", good, bad)


def test_stores_that_one_engine_has_not_seen_are_not_compared(capsys, tmp_path):
    good, blind = tmp_path / "good.jsonl", tmp_path / "blind.jsonl"
    command(capsys, "trace", "--until", "handoff", "--only", "stores", "-o", good)
    header, *_, end = good.read_text().splitlines(keepends=True)
    blind.write_text(spoiled(header, 0, engine="kvm", sees_memory=False) + end)
    for options in ([], ["--only", "stores"]):
        assert f"{blind}: the engine kvm has not seen loads and stores" in fails(capsys, "diff", good, blind, *options)


def test_what_a_trace_says_does_nothing_to_the_terminal(capsys, tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    command(capsys, "trace", "--limit", "9", "-o", good)
    bad.write_text(spoiled(good.read_text(), 1, code="90", text="\x1b[2Jnop\nthe same: 9 instructions"))
    assert main(["diff", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2Jnop\\nthe same: 9 instructions" in out


def test_a_trace_of_kvm_has_no_stores_to_compare(capsys, tmp_path):
    if problem := kvm_problem():
        pytest.skip(problem)
    path = tmp_path / "kvm.jsonl"
    command(capsys, "trace", "--engine", "kvm", "--until", "handoff", "-o", path)
    assert "has not seen loads and stores" in fails(capsys, "diff", "--only", "stores", path, path)
    unicorn = tmp_path / "unicorn.jsonl"
    command(capsys, "trace", "--until", "handoff", "-o", unicorn)
    assert "the engine of the first does not see them" in command(capsys, "diff", path, unicorn)
