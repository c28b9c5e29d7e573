"""`pvhboot lab`: exercises listed, written, checked, hinted at and solved; with and without an assembler."""

import json
import shlex
import subprocess
import sys
from importlib import resources

import pytest
from command_line import command, fails
from host import without_privilege
from pvhboot.emu.cli import main
from pvhboot.emu.lab import directory
from pvhboot.emu.lab.astray import ASTRAY
from pvhboot.emu.lab.directory import Directory
from pvhboot.emu.lab.exercises import EXERCISES, find
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.emu.lab.stock import file_name, unpacked
from pvhboot.emu.lab.stock import main as write_stock

by_name = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
NEEDED = "assembling needs keystone-engine: pip install keystone-engine, which has wheels for "


def code(text):
    """The lines of a source, without what is blank or a comment."""
    return [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]


def changed_lines(exercise):
    """The code that the solution brings, and that which it takes away."""
    file = exercise.mutant.file
    return set(code(exercise.broken[file])) ^ set(code(exercise.mended[file]))


@pytest.fixture
def written(tmp_path, capsys):
    """The directory of an exercise, and what `lab new` has printed."""

    def write(name="early-end"):
        path = tmp_path / name
        return path, command(capsys, "lab", "new", name, path)

    return write


def test_every_exercise_is_a_row_of_the_table_that_the_tests_of_the_handoff_judge():
    rows = [*MUTANTS, *(case.mutant for case in ASTRAY)]
    assert all(exercise.mutant in rows for exercise in EXERCISES)
    assert len({exercise.mutant for exercise in EXERCISES}) == len({exercise.name for exercise in EXERCISES}) == 15


@by_name
def test_an_exercise_is_its_mutant_but_for_comments(exercise):
    mutant = exercise.mutant
    assert {mutant.file: code(exercise.broken[mutant.file])} == {name: code(text) for name, text in mutant.sources().items()}
    assert [name for name, text in exercise.mended.items() if exercise.broken[name] != text] == [mutant.file]


@by_name
def test_nothing_gives_it_away_before_the_last_hint(exercise):
    lesson = exercise.lesson
    told = " ".join((exercise.name, lesson.symptom, lesson.seen, *lesson.hints[:-1]))
    assert changed_lines(exercise)
    assert not [line for line in changed_lines(exercise) if line in told]
    assert exercise.mutant.name not in told
    assert "\n" not in "".join((lesson.symptom, lesson.seen, *lesson.hints, lesson.why, lesson.learnt))


def test_they_are_listed(capsys):
    lines = command(capsys, "lab", "list").splitlines()
    assert len(lines) == len(EXERCISES)
    assert lines[2] == (
        " 3  early-end      bare          easy    The CPU shuts down a few instructions after it has entered protected mode."
    )
    rows = json.loads(command(capsys, "lab", "list", "--json"))
    assert [row["number"] for row in rows] == list(range(1, len(EXERCISES) + 1))
    assert rows[13] == {
        "number": 14,
        "name": "claimed-twice",
        "machine": "microvm-acpi",
        "difficulty": "hard",
        "symptom": EXERCISES[13].lesson.symptom,
    }
    order = ["easy", "medium", "hard"]
    assert sorted(rows, key=lambda row: order.index(row["difficulty"])) == rows


def test_a_new_one_is_written(written):
    path, out = written("trampled")
    exercise = find("13")
    assert {file.name for file in path.iterdir()} == {
        *exercise.broken,
        *("README.md", "lab.json", "firmware.bin", "firmware.json", "initrd.cpio"),
    }
    assert all((path / name).read_text() == text for name, text in exercise.broken.items())
    assert json.loads((path / "lab.json").read_text())["exercise"] == "trampled"
    assert f"read {path}/README.md, mend a .s file there, then: pvhboot lab check {path}" in " ".join(out.split())


def test_it_is_written_into_an_empty_directory_that_is_there(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(capsys, "lab", "new", "3", ".").endswith("read README.md, mend a .s file there, then: pvhboot lab check .\n")
    assert Directory(".").exercise is find("early-end")


def test_what_cannot_be_written_is_not(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "is not empty: name a new directory" in fails(capsys, "lab", "new", "1", tmp_path / "full")
    assert "Not a directory" in fails(capsys, "lab", "new", "1", tmp_path / "full" / "mine")
    assert "No such file or directory" in fails(capsys, "lab", "new", "1", tmp_path / "none" / "new")
    assert "give a number from 1 to 15, or a name" in fails(capsys, "lab", "new", "16", tmp_path / "new")
    assert "'nobody'" in fails(capsys, "lab", "new", "nobody", tmp_path / "new")
    with without_privilege():
        assert "Permission denied" in fails(capsys, "lab", "new", "1", tmp_path / "closed")
        assert "Permission denied" in fails(capsys, "lab", "new", "1", tmp_path / "closed" / "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["closed", "full", "mine"]


def test_the_check_says_one_wrong_fact(written, capsys):
    path, _ = written()
    assert main(["lab", "check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "exercise 3, early-end, on bare, booted on unicorn",
        "wrong: GDTR's limit is 0x1e, and the descriptor of selector 0x18 ends at 0x1f (lgdt at realmode.s:17)",
        "  realmode.s:17: lgdtd cs:[rom_gdtr - RESET_CS_BASE] # the 32-bit form: the base has more than 24 bits",
    ]
    assert main(["lab", "check", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert told["fact"]["where"] == "lgdt at realmode.s:17"
    assert [(line["file"], line["number"]) for line in told["lines"]] == [("realmode.s", 17)]
    assert told["learnt"] is None


def test_a_student_mends_it(written, capsys):
    path, _ = written()
    before = (path / "firmware.bin").read_bytes()
    source = path / "tables.s"
    source.write_text(source.read_text().replace("GDT_SIZE - 2", "rom_gdtr - rom_gdt - 1"))
    assert command(capsys, "lab", "check", path).splitlines()[1:] == [
        "passed: the kernel is entered, and all 27 clauses of the PVH ABI are met",
        "learnt: A limit is the offset of the last byte: 8 times the number of descriptors, less 1.",
    ]
    assert json.loads(command(capsys, "lab", "check", path, "--json"))["passed"] is True
    assert (path / "firmware.bin").read_bytes() != before
    command(capsys, "boot", "--firmware", path / "firmware.bin", "--manifest", path / "firmware.json")


BAD_SOURCES = {
    "syntax": ("tables.s", "    .quad DESC_TSS", "    .quad DESC_TTS", "/tables.s:6: DESC_TTS is not defined"),
    "mnemonic": ("flat32.s", "    cld\n", "    clear\n", "/flat32.s:14: 'clear' cannot be assembled"),
}


@pytest.mark.parametrize("case", BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_what_does_not_assemble_is_told_in_a_line(written, capsys, case):
    path, _ = written()
    file, old, new, said = case
    text = (path / file).read_text()
    assert text.count(old) == 1
    (path / file).write_text(text.replace(old, new))
    before = (path / "firmware.bin").read_bytes()
    error = fails(capsys, "lab", "check", path)
    assert said in error
    assert str(path) in error
    assert (path / "firmware.bin").read_bytes() == before


def test_what_is_no_exercise_is_told_in_a_line(written, tmp_path, capsys):
    for step in ("check", "hint", "solve"):
        assert "no exercise is here: `pvhboot lab new` writes one" in fails(capsys, "lab", step, tmp_path)
    path, _ = written("trampled")
    (path / "old.s").touch()
    assert "old.s: no file of this firmware" in fails(capsys, "lab", "check", path)
    (path / "old.s").unlink()
    (path / "initrd.cpio").unlink()
    assert "initrd.cpio" in fails(capsys, "lab", "check", path)
    (path / "e820.s").write_bytes(b"\xff")
    assert "e820.s: is not UTF-8" in fails(capsys, "lab", "check", path)
    (path / "e820.s").unlink()
    assert "e820.s: cannot read the source file" in fails(capsys, "lab", "check", path)
    endless = '{"exercise": "trampled", "hints": Infinity}'
    for state in ("", "nothing", "{}", "[]", '{"exercise": 3, "hints": "x"}', endless, "[" * 100_000):
        (path / "lab.json").write_text(state)
        assert "lab.json" in fails(capsys, "lab", "hint", path)
    (path / "lab.json").write_text('{"exercise": "gone", "hints": 0}')
    assert "lab.json: no exercise 'gone'" in fails(capsys, "lab", "hint", path)
    (path / "lab.json").write_text('{"exercise": "trampled", "hints": 0}')
    path.chmod(0o300)
    with without_privilege():
        assert "cannot read the directory: Permission denied" in fails(capsys, "lab", "check", path)
    path.chmod(0o700)


def test_what_an_editor_on_windows_writes_is_read(written, capsys):
    path, _ = written()
    for name, text in find("early-end").broken.items():
        (path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert Directory(str(path)).sources() == find("early-end").broken
    assert "tables.s is mended" in command(capsys, "lab", "solve", path, "--apply")
    command(capsys, "lab", "check", path)


def test_a_new_one_that_was_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_files):
        raise KeyboardInterrupt

    monkeypatch.setattr(directory, "write_files", interrupted)
    assert main(["lab", "new", "1", str(tmp_path / "new")]) == 130
    assert not list(tmp_path.iterdir())


def test_one_hint_more_each_time(written, capsys):
    path, _ = written("one-clause")
    told = [" ".join(command(capsys, "lab", "hint", path).split()) for _ in range(4)]
    hints = find("one-clause").lesson.hints
    assert [f"hint {number} of 3: {hint}" for number, hint in enumerate(hints[:2], 1)] == told[:2]
    assert told[2] == f"hint 3 of 3: {hints[2]} that was the last one; the solution: pvhboot lab solve {path}"
    assert told[3] == told[2]
    assert json.loads((path / "lab.json").read_text())["hints"] == 3


def test_the_solution_is_a_diff_and_why(written, capsys):
    path, _ = written("wrong-table")
    before = (path / "realmode.s").read_text()
    out = command(capsys, "lab", "solve", path)
    assert out.startswith("--- realmode.s\n+++ realmode.s (mended)\n")
    assert "\n-    .word rom_gdtr - RESET_CS_BASE\n+    lgdtd cs:[rom_gdtr - RESET_CS_BASE] # the 32-bit form" in out
    assert " ".join(find("wrong-table").lesson.why.split()) in " ".join(out.split())
    assert (path / "realmode.s").read_text() == before
    assert "realmode.s is mended" in command(capsys, "lab", "solve", path, "--apply")
    command(capsys, "lab", "check", path)
    assert command(capsys, "lab", "solve", path, "--apply").startswith("realmode.s: the mistake is mended already\n")


@by_name
def test_the_solution_keeps_what_else_was_edited(written, capsys, exercise):
    path, _ = written(exercise.name)
    source = path / exercise.mutant.file
    text = source.read_text()
    source.write_text(f"# mine\n{text}# mine, too\n")
    command(capsys, "lab", "solve", path, "--apply")
    mended = source.read_text()
    assert mended == f"# mine\n{exercise.mended[source.name]}# mine, too\n"  # which test_lab_facts.py boots


def test_the_solution_says_if_it_does_not_know_where_to_go(written, capsys):
    path, _ = written()
    source = path / "tables.s"
    source.write_text(source.read_text().replace("GDT_SIZE - 2 ", "GDT_SIZE - 3 "))
    edited = source.read_text()
    out = command(capsys, "lab", "solve", path)
    assert out.startswith("tables.s was edited where the mistake was; this mends it as it was given:\n--- tables.s\n")
    assert "mend it by hand, or begin anew" in fails(capsys, "lab", "solve", path, "--apply")
    assert source.read_text() == edited


@pytest.mark.parametrize("name", ["early-end", "big-machine"])
def test_the_commands_of_its_readme_work(written, capsys, monkeypatch, name):
    path, _ = written(name)
    monkeypatch.chdir(path)
    text = (path / "README.md").read_text()
    lines = [line for block in text.split("```sh\n")[1:] for line in block.split("```")[0].splitlines()]
    words = [shlex.split(line) for line in lines]
    assert [word[1] for word in words] == ["lab", "boot", "trace", "explain", "report", "lab", "lab"]
    statuses = {}
    for word in words:
        assert word[0] == "pvhboot"
        statuses[" ".join(word[1:3])] = main(word[1:])
    assert capsys.readouterr().err == ""
    assert {statuses["lab check"], statuses["lab hint"], statuses["lab solve"]} == {0, 1}
    assert set(statuses.values()) <= {0, 1}
    assert (path / "trace.jsonl").stat().st_size
    assert (path / "boot.html").stat().st_size


def test_what_ships_assembled_is_what_the_sources_give(tmp_path):
    assert write_stock([str(tmp_path)]) == 0
    shipped = resources.files("pvhboot.emu.lab").joinpath("assembled")
    names = {file_name(exercise) for exercise in EXERCISES}
    assert {file.name for file in shipped.iterdir()} == {file.name for file in tmp_path.iterdir()} == names
    for exercise in EXERCISES:
        held, built = (path.joinpath(file_name(exercise)).read_bytes() for path in (shipped, tmp_path))
        assert unpacked(held) == unpacked(built)


# Runs commands one after the other where Keystone cannot be imported; the exit status of each goes to standard output's end.
WITHOUT_ASSEMBLER = """
import json, sys
sys.modules["keystone"] = None
from pvhboot.emu.cli import main
print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))
"""


def without_assembler(*commands):
    """The exit statuses, and what was complained of."""
    told = json.dumps([["lab", *map(str, words)] for words in commands])
    words = [sys.executable, "-c", WITHOUT_ASSEMBLER, told]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_without_an_assembler_all_works_but_assembling_what_was_edited(tmp_path):
    path = tmp_path / "phantom"
    steps = ("list",), ("new", "4", path), ("check", path), ("hint", path), ("solve", path, "--apply"), ("check", path)
    assert without_assembler(*steps) == ([0, 0, 1, 0, 0, 0], "")
    (path / "flat32.s").write_text((path / "flat32.s").read_text() + "# mine\n")
    statuses, err = without_assembler(("check", path))
    assert statuses == [2]
    assert err.startswith(f"pvhboot: {path}: the source was edited, and {NEEDED}")
    assert err.count("\n") == 1
