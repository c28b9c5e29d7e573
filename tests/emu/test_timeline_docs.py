"""docs/timeline.md: what it shows is what there is."""

import re
from pathlib import Path

import pytest
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
