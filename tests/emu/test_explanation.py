"""What is said of two values that are not equal, and how much of it pytest shows."""

import re

import pytest
from pvhboot.emu.kit.explanation import explain
from pvhboot.emu.kit.values import MemoryRange, Registers
from pvhboot.shim.abi import x86

pytest_plugins = ["pytester"]

LEGEND = "(< is the left side, > the right one)"
CODE = x86.Segment(0x10, 0, 0xFFFFFFFF, 0xB, True, True, True, False, True)
MAP = [MemoryRange(0, 0x9FC00, 1), MemoryRange(0x9FC00, 0x400, 2)]
CASES = {
    "a register": (
        "==",
        Registers({"cr0": 0x11})["cr0"],
        0x80000011,
        [f"cr0 differs {LEGEND}", "< 0x11 (PE ET)", "> 0x80000011 (PE ET PG)"],
    ),
    "segments": (
        "==",
        {"cs": CODE, "ds": CODE},
        {"cs": CODE._replace(selector=0x18), "ss": CODE},
        [
            f"the segments differ {LEGEND}",
            "cs:",
            "  selector < 0x10 > 0x18",
            "ds: only on the left side",
            "ss: only on the right side",
        ],
    ),
    "a segment": (
        "==",
        CODE,
        CODE._replace(limit=0xFFFF),
        [f"the segments differ {LEGEND}", "limit < 0xffffffff > 0xffff"],
    ),
    "no entry": (
        "in",
        (0x9FC00, 0x800, 2),
        MAP,
        [
            "the memory map has no 0x00000009fc00-0x0000000a03ff  reserved  2 KiB; it is:",
            "  0x000000000000-0x00000009fbff  RAM       639 KiB",
            "  0x00000009fc00-0x00000009ffff  reserved  1 KiB",
        ],
    ),
    "an entry": (
        "not in",
        (0x9FC00, 0x400, 2),
        MAP[1:],
        [
            "the memory map has 0x00000009fc00-0x00000009ffff  reserved  1 KiB; it is:",
            "  0x00000009fc00-0x00000009ffff  reserved  1 KiB",
        ],
    ),
    "other values": ("in", 1, [2], None),
    "another operator": ("<", MAP, MAP, None),
}


@pytest.mark.parametrize(("op", "left", "right", "lines"), CASES.values(), ids=CASES)
def test_what_is_said(op, left, right, lines):
    assert explain(op, left, right) == lines


def test_a_register_shows_itself_in_hexadecimal_and_is_a_number():
    assert repr(Registers({"cr0": 0x11, "cr3": 0})) == "{'cr0': 0x11, 'cr3': 0x0}"
    value = Registers({"cr0": 0x11})["cr0"]
    assert (repr(value), str(value), f"{value}", value + 0, value == 17) == ("0x11", "17", "17", 17, True)


def sections(result):
    return re.split(r"^-+ pvhboot: what differs -+$", result.stdout.str(), flags=re.MULTILINE)[1:]


LONG = """
    import pytest

    def test_it(pvh):
        first, second = pvh(memory="64M"), pvh(machine="microvm", append="hello")
        assert first.run_until_handoff() == second.run_until_handoff()

    def test_caught(pvh):
        first, second = pvh(memory="64M"), pvh(machine="microvm", append="hello")
        with pytest.raises(AssertionError):
            assert first.run_until_handoff() == second.run_until_handoff()
        assert 1 == 2
"""


@pytest.mark.parametrize(("options", "count"), [((), 1), (("-vv",), 0)])
def test_a_comparison_that_pytest_cuts_is_told_whole(run_pytest, options, count, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    result = run_pytest(LONG, *options)
    result.assert_outcomes(failed=2)
    told = sections(result)
    assert len(told) == count
    for section in told:
        assert section.lstrip().startswith("the handoffs differ (<")
        assert re.search(r"^command line:\n  < None\n  > 'hello'\n", section, re.M)


def test_a_short_comparison_is_told_once(run_pytest):
    result = run_pytest('def test_it(pvh):\n    assert pvh().registers["cr0"] == 0x11\n')
    result.stdout.fnmatch_lines(["E * assert cr0 differs (<*", "E *< 0x60000010 (ET NW CD)", "E *> 0x11 (PE ET)"])
    assert sections(result) == []
