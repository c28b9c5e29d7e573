"""Which marks are taken of what a guest prints and writes to the marker ports, by a clock that goes by one a look."""

from itertools import count

import pytest
from pvhboot.emu.bus import IN, OUT, Access
from pvhboot.emu.timeline.marks import CONSOLE, HANDOFF, INIT, MARKS, START_KERNEL, VMM_START
from pvhboot.emu.timeline.recorder import Recorder, marker_name


def recorder(goal="exit"):
    return Recorder(goal, count(1000).__next__)


def write(to, value, port=0xF4, kind=OUT):
    to.on_access(Access(kind, port, 1, value, ""))


def show(to, text):
    for byte in text.encode():
        to.on_console(bytes((byte,)))


def names(of):
    return [mark.name for mark in of.marks()]


@pytest.mark.parametrize(
    ("port", "value", "expected"),
    [
        (0xF5, 1, ["fw_start"]),
        (0xF4, 2, ["linux_start_fwcfg"]),
        (0xF4, 3, ["linux_start_boot"]),
        (0xF4, 4, ["linux_start_pvhboot"]),
        (0xF5, 5, ["fw_do_boot"]),
        (0xF4, 6, ["linux_start_kernel", START_KERNEL]),
        (0xF4, 7, ["linux_start_user", INIT]),
        (0xF4, 1, ["fw_start"]),  # the tools do not look at which of the two ports it is
        (0xF4, 0, ["exit_point_0"]),
        (0xF4, 230, ["exit_point_230"]),
        (0xF4, 0x10007, ["exit_point_65543"]),  # of four bytes
        (0xF6, 7, []),
        (0x501, 7, []),  # the debug-exit port
    ],
)
def test_marker_ports(port, value, expected):
    one = recorder()
    write(one, value, port)
    assert names(one) == expected


def test_a_read_marks_nothing():
    one = recorder()
    write(one, 7, kind=IN)
    assert names(one) == []


def test_the_first_time_counts():
    one = recorder()
    one.reach(VMM_START)  # 1000
    write(one, 1)  # 1001
    write(one, 1)
    one.reach(VMM_START)
    assert [(mark.name, mark.ns) for mark in one.marks()] == [(VMM_START, 0), ("fw_start", 1)]


def test_what_stands_for_a_mark_does_not_replace_it():
    one = recorder()
    one.reach(START_KERNEL, 5)
    write(one, 6)
    assert [(mark.name, mark.ns) for mark in one.marks()] == [(START_KERNEL, 0), ("linux_start_kernel", 995)]


def test_marks_are_in_the_order_of_their_time():
    one = recorder()
    one.reach(HANDOFF, 30)
    one.reach(VMM_START, 10)
    assert [(mark.name, mark.ns) for mark in one.marks()] == [(VMM_START, 0), (HANDOFF, 20)]
    assert one.start_ns == 10


def test_the_console_counts_behind_the_handoff():
    one = recorder()
    show(one, "firmware\n")
    assert names(one) == []
    one.reach(HANDOFF)
    show(one, "\nLinux\n")
    assert names(one) == [HANDOFF, CONSOLE]
    assert one.marks()[1].place == "'Linux'"  # the first line with anything in it


def test_a_line_that_is_not_over_is_shown():
    one = recorder()
    one.reach(HANDOFF)
    show(one, "Lin\tux")
    assert one.marks()[1].place == "'Lin?ux'"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[    1.234567] Run /sbin/init as init process\r\n", True),
        ("Run /init as init process\n", True),
        ("Run /init as init process", False),  # the line is not over
        ("Run /init as init process, perhaps\n", False),
        ("/init as init process\n", False),
        ("Run /init\nas init process\n", False),
    ],
)
def test_the_line_of_init(line, expected):
    one = recorder()
    show(one, line)
    assert (INIT in names(one)) is expected


def test_a_text_on_the_console_is_the_goal():
    one = recorder("console:version 6")
    asked = []
    one.on_goal = lambda: asked.append(names(one))
    show(one, "Linux version 6")
    assert (one.done, asked) == (True, [["console:version 6"]])


def test_nothing_counts_behind_the_goal():
    one = recorder(INIT)
    write(one, 7)
    write(one, 1)
    one.reach(HANDOFF)
    assert names(one) == ["linux_start_user", INIT]


@pytest.mark.parametrize("text", ["x", "x\n", "0123456789" * 10], ids=["no-line", "short-lines", "long-line"])
def test_an_endless_guest_takes_no_memory(text):
    one = recorder("console:z")
    for number in range(1000):
        write(one, number)
        show(one, text)
    assert len(one.marks()) <= 110
    assert len(one._printed) < 10_000  # it has no other use than to be searched
    show(one, "z")
    assert one.done


def test_each_known_value_has_a_name_of_its_own():
    known = {marker_name(value) for value in range(1, 8)}
    assert len(known) == 7
    assert known.isdisjoint(MARKS)
