"""docs/timeline.md: what it shows is what there is."""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest
from marked_guest import marked_guest
from pvhboot.emu.arguments import parse
from pvhboot.emu.bus import OUT, Access
from pvhboot.emu.timeline.marks import CONSOLE_TEXT, EXIT, MARKS
from pvhboot.emu.timeline.recorder import Recorder, marker_name

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "timeline.md").read_text()


def rows(head):
    """The rows of the table with that head, each as its cells."""
    table = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_marks():
    names = [row[0].strip("`") for row in rows("| mark |")]
    assert names == [*MARKS[:-1], f"{CONSOLE_TEXT}TEXT", MARKS[-1], EXIT]


def test_the_markers():
    told = {int(value): name.strip("`") for value, name, _ in rows("| value |")}
    assert told == {value: marker_name(value) for value in range(1, 8)}


@pytest.mark.parametrize(("value", "mark"), [(6, "start_kernel"), (7, "init")])
def test_what_counts_as_another_mark(value, mark):
    (words,) = [row[2] for row in rows("| value |") if row[0] == str(value)]
    assert f"counts as `{mark}`" in words
    recorder = Recorder(EXIT)
    recorder.on_access(Access(OUT, 0xF4, 1, value, ""))
    assert recorder.has(mark)


def test_the_stage():
    (shown,) = re.findall(r"^```asm\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert (DOCS / "examples/mark-handoff.s").read_text().endswith(shown)


def test_each_command_can_be_given():
    lines = re.findall(r"^\$ pvhboot (.*)$", PAGE, re.MULTILINE)
    assert len(lines) >= 8
    assert {parse(shlex.split(line)).command for line in lines} == {"timeline", "bench", "build"}


def test_the_python_is_true(tmp_path, monkeypatch):
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "vmlinux").write_bytes(marked_guest())
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "timeline.md", "exec"), {})
    root = ElementTree.parse(tmp_path / "machines.svg").getroot()
    assert len([rect for rect in root.iter() if rect.get("data-phase") == "kernel-64bit"]) == 5
