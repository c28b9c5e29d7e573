"""`pvhboot boot --coverage` and `pvhboot coverage`: the table, what is missing, lcov, and what is refused."""

import json
import os
import re
from pathlib import Path

import pytest
from command_line import command, fails
from host import without_privilege
from pvhboot.emu.cli import main
from pvhboot.shim.image import asm_source

STAGE = "# Clobbers: eax, flags\n    xor eax, eax\n    jnz 1f\n    jz 2f\n1:  nop\n2:  ret\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def figures(text, name):
    """Of a row of the table: instructions executed and in all, branch ways gone and in all."""
    (row,) = re.findall(rf"^{re.escape(name)} +(\d+) of (\d+) +(?:(\d+) of (\d+)|none)", text, re.MULTILINE)
    return tuple(int(number or 0) for number in row)


def test_boots_add_up(capsys):
    command(capsys, "boot", "--coverage", "it.cov")
    once = command(capsys, "coverage", "it.cov")
    command(capsys, "boot", "--append", "a line", "--coverage", "it.cov")
    twice = command(capsys, "coverage", "it.cov")
    assert figures(once, "realmode.s") == figures(twice, "realmode.s") == (4, 4, 0, 0)
    assert figures(once, "total")[1::2] == figures(twice, "total")[1::2]
    assert figures(once, "total")[2] < figures(twice, "total")[2]
    columns = list(zip(*(figures(twice, name) for name in re.findall(r"^(\w+\.s) ", twice, re.MULTILINE)), strict=True))
    assert figures(twice, "total") == tuple(sum(column) for column in columns)


def test_files_add_up_as_boots_do(capsys):
    for file in ("both.cov", "one.cov"):
        command(capsys, "boot", "--coverage", file)
    for file in ("both.cov", "two.cov"):
        command(capsys, "boot", "--append", "a line", "--coverage", file)
    together = command(capsys, "coverage", "one.cov", "two.cov", "-o", "sum.cov")
    assert together == command(capsys, "coverage", "both.cov") == command(capsys, "coverage", "sum.cov")
    assert Path("sum.cov").read_text() == Path("both.cov").read_text()


def test_what_is_missing_is_shown_with_its_source(capsys):
    command(capsys, "boot", "--append", "a line", "--coverage", "it.cov")
    text = command(capsys, "coverage", "it.cov", "--missing")
    assert "\npanic.s\n     8  not executed  cld\n" in text
    assert "never taken   jz handoff_mtrr_done" in text
    assert "\nrealmode.s\n" not in text
    for file, lines in re.findall(r"^(\w+\.s)\n((?: +\d+  .*\n)+)", text + "\n", re.MULTILINE):
        source = asm_source(file).split("\n")
        for number, shown in re.findall(r"^ +(\d+)  (?:not executed|never taken|always taken) +(.*)$", lines, re.MULTILINE):
            line = source[int(number) - 1]
            assert shown.split()[0] in line or "PANIC" in line


def test_a_run_that_ends_in_a_panic_counts_too(capsys):
    assert main(["build", "--machine", "microvm", "-o", "microvm.bin"]) == 0
    assert main(["boot", "--machine", "bare", "--firmware", "microvm.bin", "--coverage", "it.cov"]) == 1
    capsys.readouterr()
    text = command(capsys, "coverage", "it.cov", "--missing")  # by its bytes it is known for our own
    assert figures(text, "panic.s")[0] == figures(text, "panic.s")[1] - 1
    assert "27  not executed  jmp panic_halt" in text


def test_a_manifest_brings_the_source_of_a_rom(capsys):
    Path("mine.s").write_text(STAGE)
    command(capsys, "build", "--stage", "before-handoff=mine.s", "-o", "mine.bin", "--manifest", "mine.json")
    command(capsys, "boot", "--firmware", "mine.bin", "--coverage", "without.cov")
    without = command(capsys, "coverage", "without.cov")
    command(capsys, "boot", "--firmware", "mine.bin", "--manifest", "mine.json", "--coverage", "it.cov")
    text = command(capsys, "coverage", "it.cov", "--missing")
    assert figures(text, "mine.s") == (4, 5, 2, 4)
    assert "\nmine.s\n     3  never taken   jnz 1f\n     4  always taken  jz 2f\n     5  not executed  nop" in text
    assert figures(without, "mine.bin.lst")[0] == figures(text, "total")[0]
    assert command(capsys, "coverage", "without.cov", "it.cov").startswith(text[: text.index("\n")])
    assert "mine.bin.lst" not in command(capsys, "coverage", "without.cov", "it.cov")


def records(text):
    """Of a tracefile: line counts and branch counts by file."""
    found = {}
    for record in text.split("end_of_record\n")[:-1]:
        (path,) = re.findall(r"^SF:(.*)$", record, re.MULTILINE)
        found[path] = (
            dict(tuple(map(int, each)) for each in re.findall(r"^DA:(\d+),(\d+)$", record, re.MULTILINE)),
            re.findall(r"^BRDA:\d+,\d+,\d+,(.*)$", record, re.MULTILINE),
        )
    return found


def test_lcov_is_about_the_files_that_are_there(capsys):
    command(capsys, "boot", "--coverage", "it.cov")
    text = command(capsys, "coverage", "it.cov", "--lcov", "it.info")
    found = records(Path("it.info").read_text())
    assert {Path(path).name for path in found} == set(re.findall(r"^(\w+\.s) ", text, re.MULTILINE))
    for path, (lines, branches) in found.items():
        source = Path(path).read_text()
        assert source == asm_source(Path(path).name)
        assert max(lines) <= source.count("\n")
        _, _, gone, ways = figures(text, Path(path).name)
        assert (sum(count not in "0-" for count in branches), len(branches)) == (gone, ways)


def test_lcov_takes_the_paths_that_it_is_given(capsys):
    Path("src").mkdir()
    Path("src/mine.s").write_text(STAGE)
    Path("src/panic.s").write_text(asm_source("panic.s"))
    command(capsys, "build", "--stage", "before-handoff=src/mine.s", "-o", "mine.bin", "--manifest", "mine.json")
    command(capsys, "boot", "--firmware", "mine.bin", "--manifest", "mine.json", "--coverage", "it.cov")
    line = ("coverage", "it.cov", "--lcov", "it.info")
    assert "mine.s: this source file is not there: name its directory with --source-root" in fails(capsys, *line)
    assert not Path("it.info").exists()
    command(capsys, *line, "--source-root", "src")
    found = records(Path("it.info").read_text())
    assert found["src/mine.s"] == ({2: 1, 3: 1, 4: 1, 5: 0, 6: 1}, ["0", "1", "1", "0"])
    assert "src/panic.s" in found


def test_lcov_of_a_rom_without_source_is_about_its_disassembly(capsys):
    Path("mine.s").write_text(STAGE)
    Path("out").mkdir()
    command(capsys, "build", "--stage", "before-handoff=mine.s", "-o", "mine.bin")
    command(capsys, "boot", "--firmware", "mine.bin", "--coverage", "it.cov")
    text = command(capsys, "coverage", "it.cov", "--lcov", "out/it.info")
    ((path, (lines, _)),) = records(Path("out/it.info").read_text()).items()
    assert path == "out/mine.bin.lst"
    shown = Path(path).read_text().split("\n")
    assert all(re.match(r"ffff[0-9a-f]{4}  ", shown[number - 1]) for number in lines)
    executed, instructions, *_ = figures(text, "mine.bin.lst")
    assert (sum(count > 0 for count in lines.values()), len(lines)) == (executed, instructions)
    assert re.search(r"^ffff[0-9a-f]{4}  31 c0 +xor eax, eax$", "\n".join(shown), re.MULTILINE)


def test_json_says_the_same(capsys):
    command(capsys, "boot", "--coverage", "it.cov")
    text = command(capsys, "coverage", "it.cov", "--missing")
    data = json.loads(command(capsys, "coverage", "it.cov", "--json"))
    told = data["total"]
    assert (told["executed"], told["instructions"], told["gone"], told["ways"]) == figures(text, "total")
    assert len(re.findall(r"^ +\d+  (?:not|never|always) ", text, re.MULTILINE)) == sum(
        len(file["missing"]) for file in data["files"].values()
    )
    assert {"line": 27, "text": "jmp panic_halt", "missing": "not executed"} in data["files"]["panic.s"]["missing"]


@pytest.mark.parametrize(("wanted", "status"), [("0", 0), ("50", 0), ("60.8", 0), ("60.9", 1), ("100", 1)])
def test_too_little_is_a_status(capsys, wanted, status):
    command(capsys, "boot", "--coverage", "it.cov")
    assert main(["coverage", "it.cov", "--fail-under", wanted, "--json"]) == status
    out, err = capsys.readouterr()
    said = f"pvhboot: 60.87 % of the firmware is covered, less than {wanted} % (--fail-under)\n"
    assert (json.loads(out)["total"]["per_cent"], err) == (60.87, said if status else "")


def test_what_is_refused_is_refused_in_a_line(capsys):
    command(capsys, "boot", "--coverage", "it.cov")
    Path("text").write_text("some text\n")
    Path("bytes").write_bytes(b"\xff")
    Path("cut").write_text(Path("it.cov").read_text()[:1000])
    Path("foreign").write_text('{"meta": {}}')
    before = Path("it.cov").read_bytes()
    for line, said in (
        (("coverage", "none"), "none: cannot read the coverage"),
        (("coverage", "text"), "text: no coverage that pvhboot has written: `pvhboot boot --coverage FILE` and `pytest"),
        (("coverage", "foreign"), "foreign: no coverage that pvhboot has written: `pvhboot boot --coverage FILE`"),
        (("coverage", "cut"), "cut: the file is cut off"),
        (("coverage", "it.cov", "--source-root", "."), "--source-root is for --lcov"),
        (
            ("coverage", "it.cov", "--lcov", "it.info", "--source-root", "none"),
            "--source-root none: there is no such directory",
        ),
        (("boot", "--coverage", "none/it.cov"), "none/it.cov: cannot write: No such file or directory"),
        (("boot", "--coverage", "new.cov", "--engine", "qemu"), "the qemu engine does not see single instructions"),
        (("coverage", "bytes"), "bytes: no coverage that pvhboot has written: no UTF-8"),
        (("coverage", "it.cov", "--fail-under", "101"), "--fail-under 101: give per cent, 0 to 100"),
        (("coverage", "it.cov", "--source-root", "."), "--source-root is for --lcov"),
        (("coverage", "it.cov", "-o", "it.cov"), "it.cov: is to be read and written"),
        (("coverage", "it.cov", "--lcov", "none/it.info"), "none/it.info: cannot write"),
        (("boot", "--coverage", "text"), "text: no coverage that pvhboot has written"),
    ):
        assert said in fails(capsys, *line)
    assert Path("it.cov").read_bytes() == before
    assert Path("text").read_text() == "some text\n"


def test_what_a_file_says_does_nothing_to_the_terminal(capsys):
    command(capsys, "boot", "--coverage", "it.cov")
    data = json.loads(Path("it.cov").read_text())
    for row in data["roms"][0]["listing"]:
        row[4] = f"\x1b[2J{row[4]}\n"
    Path("it.cov").write_text(json.dumps(data))
    text = command(capsys, "coverage", "it.cov", "--missing")
    assert "\x1b" not in text
    assert "  not executed  \\x1b[2Jcld\\n\n" in text


def test_names_that_are_no_text(capsys):
    strange = os.fsdecode(b"\xff\t")
    Path(strange).mkdir()
    command(capsys, "build", "-o", f"{strange}/{strange}.bin", "--machine", "microvm", "--size", "128K")
    main(["boot", "--firmware", f"{strange}/{strange}.bin", "--coverage", "it.cov"])
    capsys.readouterr()
    command(capsys, "coverage", "it.cov", "--lcov", f"{strange}/it.info")
    assert b"SF:\xff\t/" in Path(strange, "it.info").read_bytes()


def test_two_outputs_of_a_boot_are_two_files(capsys):
    assert "one: is to be written twice" in fails(capsys, "boot", "--record-io", "one", "--coverage", "one")
    assert not Path("one").exists()


def test_a_directory_that_cannot_be_written_to_is_known_before_the_boot(capsys):
    Path("closed").mkdir(mode=0o500)
    with without_privilege():
        assert "closed/it.cov: cannot write: Permission denied" in fails(capsys, "boot", "--coverage", "closed/it.cov")
