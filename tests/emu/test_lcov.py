"""The lcov tracefile, read back line by line."""

from collections import defaultdict

from pvhboot.emu.covered import Covered, CoveredFile, Label, Ways
from pvhboot.emu.lcov import tracefile

FILE = CoveredFile(
    "some.s",
    (
        Covered(3, "mov eax, 1", 2, None),
        Covered(4, "a macro's first", 2, None),
        Covered(4, "a macro's second", 1, None),
        Covered(6, "jz 1f", 2, Ways(2, 0)),
        Covered(7, "loop 1b; jz 2f", 2, Ways(1, 2)),
        Covered(7, "jz 2f", 2, Ways(0, 2)),
        Covered(9, "jnz 3f", 0, Ways(0, 0)),
    ),
    (Label("start", 3, 2), Label("never", 9, 0)),
    "",
)

TRACEFILE = """\
TN:pvhboot
SF:src/some.s
FN:3,start
FN:9,never
FNDA:2,start
FNDA:0,never
FNF:2
FNH:1
BRDA:6,0,0,2
BRDA:6,0,1,0
BRDA:7,0,0,1
BRDA:7,0,1,2
BRDA:7,1,0,0
BRDA:7,1,1,2
BRDA:9,0,0,-
BRDA:9,0,1,-
BRF:8
BRH:4
DA:3,2
DA:4,1
DA:6,2
DA:7,2
DA:9,0
LF:5
LH:4
end_of_record
"""


def test_a_file_is_a_record():
    """A line is as covered as the least covered of its instructions; a branch that was not come to has neither way."""
    assert tracefile([FILE], {"some.s": "src/some.s"}) == TRACEFILE


def test_a_file_without_labels_and_branches_has_no_such_lines():
    plain = CoveredFile("plain.s", FILE.instructions[:1], (), "")
    assert tracefile([plain], {"plain.s": "plain.s"}) == "TN:pvhboot\nSF:plain.s\nDA:3,2\nLF:1\nLH:1\nend_of_record\n"


def test_several_files_follow_one_another():
    plain = CoveredFile("plain.s", FILE.instructions[:1], (), "")
    records = defaultdict(int)
    for line in tracefile([FILE, plain], {"some.s": "a", "plain.s": "b"}).splitlines():
        records[line.split(":")[0]] += 1
    assert (records["SF"], records["end_of_record"]) == (2, 2)
