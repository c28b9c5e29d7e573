"""Timelines as a table, as JSON and as a picture, with made-up times."""

import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from pvhboot.emu.report.timeline import timeline_table, timelines_from_json, timelines_json
from pvhboot.emu.report.timeline_svg import timelines_svg
from pvhboot.emu.timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
    Mark,
    Timeline,
)

MS = 1_000_000
SVG = "{http://www.w3.org/2000/svg}"

ONE = Timeline(
    "pvhboot on kvm",
    "kvm",
    (
        Mark(VMM_START, 0),
        Mark(FIRST_INSTRUCTION, 6_400_000, "0xfffffff0 reset_vector (reset.s:9)"),
        Mark("fw_start", 6_450_100, "0x1 to port 0xf5"),
        Mark(HANDOFF, 8_123_456, "0x1000600 pvh_start_xen"),
        Mark(CONSOLE, 1234 * MS, "'Linux version 6.1'"),
    ),
    {"rom_bytes": 65536, "instructions": 119, "device_accesses": 1, "kvm_exits_interrupted": 12, "bytes_mapped": 46292992},
    "limit: 60 seconds of wall time are over",
    {INIT: "not reached", PROTECTED_MODE: "not looked for: a dry run of this firmware never came there"},
    77,
)
SHORT = Timeline("nothing", "qemu", (Mark(VMM_START, 0),), {}, "halt", {HANDOFF: "not reached"})

TABLE = """\
pvhboot on kvm
                               ms          step
  vmm-start                 0.000        +0.000
  first-instruction         6.400        +6.400  0xfffffff0 reset_vector (reset.s:9)
  fw_start                  6.450        +0.050  0x1 to port 0xf5
  handoff                   8.123        +1.673  0x1000600 pvh_start_xen
  console                1234.000     +1225.877  'Linux version 6.1'
  protected-mode                -             -  not looked for: a dry run of this firmware never came there
  init                          -             -  not reached
end: limit: 60 seconds of wall time are over
why: see `pvhboot boot` with the same options and --until exit
counts: rom_bytes 65536, instructions 119, device_accesses 1, kvm_exits_interrupted 12,
  bytes_mapped 46292992

nothing
                       ms          step
  vmm-start         0.000        +0.000
  handoff               -             -  not reached
end: halt
why: see `pvhboot boot` with the same options and --until handoff"""


def whole(label="all", marks=(*MARKS, EXIT), step=MS):
    return Timeline(label, "kvm", tuple(Mark(name, number * step) for number, name in enumerate(marks)), {})


def parse(text):
    return ElementTree.fromstring(text)


def bars(picture):
    return [rect for rect in picture.iter(f"{SVG}rect") if "data-phase" in rect.attrib]


def test_the_table():
    assert timeline_table([ONE, SHORT]) == TABLE


@pytest.mark.parametrize(
    ("end", "absent"),
    [("interrupted", {HANDOFF: "not reached"}), ("exit: the guest left with 3", {INIT: "not reached"}), ("limit", {})],
)
def test_an_end_that_needs_no_more_words(end, absent):
    assert "why:" not in timeline_table([SHORT._replace(end=end, absent=absent)])


def test_nothing_is_an_empty_table():
    assert timeline_table([]) == ""


def test_json_is_what_it_was():
    text = json.dumps(timelines_json([ONE, SHORT]))
    assert timelines_from_json(json.loads(text)) == [ONE, SHORT]
    assert json.loads(text)[0]["marks"][1] == {
        "name": FIRST_INSTRUCTION,
        "ns": 6_400_000,
        "place": "0xfffffff0 reset_vector (reset.s:9)",
    }


def test_a_bar_for_each_phase():
    picture = parse(timelines_svg([whole(), ONE, SHORT], "three"))
    phases = [rect.get("data-phase") for rect in bars(picture)]
    assert phases == [*MARKS[1:], EXIT, FIRST_INSTRUCTION, HANDOFF, CONSOLE]  # of the third there is none
    assert len({rect.get("fill") for rect in bars(picture)[:8]}) == 8
    strokes = [path for path in picture.iter(f"{SVG}path") if path.get("class") == "pvhboot-marker"]
    assert [stroke[0].text for stroke in strokes] == ["fw_start: 6.45 ms"]


def test_widths_are_times():
    picture = parse(timelines_svg([whole("slow", step=4 * MS), whole("fast")], ""))
    slow, fast = bars(picture)[:8], bars(picture)[8:]
    widths = [float(rect.get("width")) for rect in slow]
    assert max(widths) - min(widths) < 0.02
    assert float(fast[0].get("width")) == pytest.approx(widths[0] / 4, abs=0.02)
    for before, rect in pairwise(slow):
        end = float(before.get("x")) + float(before.get("width"))
        assert float(rect.get("x")) == pytest.approx(end, abs=0.02)


def test_nothing_lies_outside():
    label = "W" * 200
    picture = parse(timelines_svg([whole(label), whole("b", step=700 * MS)], "t"))
    _, _, width, height = map(float, picture.get("viewBox").split())
    for rect in picture.iter(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", 0)) <= float(rect.get("x", 0)) + float(rect.get("width")) <= width
        assert float(rect.get("y", 0)) + float(rect.get("height")) <= height
    for text in picture.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height


def test_it_is_told_to_who_cannot_see_it():
    picture = parse(timelines_svg([ONE, SHORT], "a title"))
    assert picture.get("role") == "img"
    by_id = {element.get("id"): element for element in picture.iter() if element.get("id")}
    title, described = (by_id[name] for name in picture.get("aria-labelledby").split())
    assert title.text == "a title"
    assert described.text == (
        "pvhboot on kvm: first-instruction after 6.40 ms, handoff after 8.12 ms, console after 1234 ms; "
        "nothing: nothing reached"
    )
    assert bars(picture)[1][0].text == "handoff: 1.72 ms, from 6.40 to 8.12 ms"


def test_the_legend_has_what_is_shown():
    one = whole(marks=(VMM_START, FIRST_INSTRUCTION, HANDOFF))
    for timelines, expected in (
        ([one, SHORT], {"set-up of the VM", "firmware to the handoff"}),
        ([one], {"set-up of the VM: 1.00", "firmware to the handoff: 1.00"}),
    ):
        shown = {element.text for element in parse(timelines_svg(timelines, "t")).iter(f"{SVG}text")}
        assert expected <= shown
        assert not [text for text in shown if text.startswith("to init")]


@pytest.mark.parametrize("name", ["<&>\"'", "\0\x1b[2J\ud800", "é…", ""])
def test_any_label_is_well_formed(name):
    timeline = Timeline(name, "kvm", (Mark(VMM_START, 0), Mark(name, 5), Mark(HANDOFF, 9)), {})
    text = timelines_svg([timeline], name)
    assert len(bars(parse(text.encode()))) == 1


@pytest.mark.parametrize("timelines", [[], [SHORT], [whole(step=0)], [whole(marks=(HANDOFF, KERNEL_64), step=1)]])
def test_little_can_be_drawn(timelines):
    parse(timelines_svg(timelines, "little"))


@pytest.mark.parametrize("longest", [1, 999, 7 * MS, 61 * MS, 10**12, 10**15])
def test_the_axis_has_a_few_ticks(longest):
    text = timelines_svg([Timeline("x", "kvm", (Mark(VMM_START, 0), Mark(START_KERNEL, longest)), {})], "t")
    lines = [path for path in parse(text).iter(f"{SVG}path") if path.get("class") == "pvhboot-line"]
    assert 2 <= len(lines) <= 7


def test_no_scripts_and_both_schemes():
    text = timelines_svg([whole()], "t")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|\bon\w+=|href", text)
