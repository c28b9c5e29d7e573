"""The page of `report` in a browser: it loads; keys, mouse, numbers and links lead to its steps, and the state follows."""

from copy import deepcopy
from itertools import islice

import pytest
from page_shown import differing, go, marked, registers, step_of, wait
from pvhboot.emu.page.render import render
from report_pages import HANDED_OVER, NAMES, made, page_bytes

LEAST_SHOWN = 40  # registers, of a page with all of them
HOSTILE = "</script><img src=x onerror=alert(1)><!--\u2028\u202e<script>alert(2)</script>"


@pytest.fixture
def open_page(visitor, tmp_path):
    """Opens one of the pages."""

    def open_it(name, fragment="", **options):
        path = tmp_path / f"{name}.html"
        path.write_bytes(page_bytes(name))
        page = visitor.open(path, fragment, **options)
        page.wait_for_selector("body[data-step]")
        return page

    return open_it


def states(name, steps):
    """The registers that the engine told, at some steps."""
    recorded, wanted = made(name).told.recorded, set(steps)
    return {step: dict(state) for step, state in enumerate(islice(recorded.states(), max(wanted) + 1)) if step in wanted}


def some_steps(name):
    """Of a page: the first ones, the last ones, and some between."""
    last = len(made(name).data["steps"])
    return sorted({0, 1, 2, 5, last // 3, last // 2 + 1, last - 1, last})


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_without_a_complaint_or_a_request(open_page, name):
    page, data = open_page(name), made(name).data
    assert page.inner_text("h1") == data["title"]
    assert page.inner_text(".verdict") == data["verdict"]
    assert page.is_visible("#bench")
    assert not page.is_visible("#trouble")
    assert step_of(page) == 0
    assert page.inner_text("#of") == f"of {len(data['steps']):,}"


def test_what_is_hostile_is_shown_as_text(visitor, tmp_path):
    """Wherever a text of others comes to: its markup would make elements, its script a complaint of the page's policy."""
    data = deepcopy(made("microvm").data)
    for site in data["sites"]:
        site[3] = site[4] = HOSTILE
    for _, lines, _ in data["files"]:
        lines[:] = [f"{line} # {HOSTILE}" for line in lines]
    for named in (data["devices"], data["memory"]["regions"], data["memory"]["structures"]):
        for entry in named:
            entry[:] = [HOSTILE if type(part) is str and not part.isalnum() else part for part in entry]
    data["sentences"] = [HOSTILE] * len(data["sentences"])
    data["console"] = [[1, HOSTILE, HOSTILE]]
    data["title"] = data["verdict"] = data["end"]["words"] = HOSTILE
    data["beyond"] = {"clock": False, "events": [[None, "end", HOSTILE, 1]], "console": [[None, HOSTILE]], "left_out": 0}
    (tmp_path / "hostile.html").write_bytes(render(data))
    page = visitor.open(tmp_path / "hostile.html", "#step=5")
    wait(page, 5)
    page.keyboard.press("End")
    assert step_of(page) == len(data["steps"])
    for row in page.locator(".row button").all():
        row.click()
    page.focus("[data-register=cs]")
    assert page.locator("img").count() == 0
    for shown in ("h1", "#instruction", "#console-pane pre", "#kernel-console", "#events", "#devices", "#memory"):
        assert "<img src=x onerror=alert(1)>" in page.inner_text(shown), shown


@pytest.mark.parametrize("name", NAMES)
def test_registers_are_those_that_the_engine_told(open_page, name):
    page = open_page(name)
    for step, state in states(name, some_steps(name)).items():
        go(page, step)
        shown = registers(page)
        assert len(shown) >= LEAST_SHOWN
        assert differing(shown, state) == {}, step


@pytest.mark.parametrize("name", HANDED_OVER)
def test_where_the_firmware_ends_is_the_handoff(open_page, name):
    page, handoff = open_page(name), made(name).told.outcome.handoff
    page.keyboard.press("h")
    wait(page, made(name).data["handoff"])
    shown = registers(page)
    expected = dict(handoff.registers)
    for segment, held in handoff.segments.items():
        expected |= {segment: held.selector, f"{segment}_base": held.base, f"{segment}_limit": held.limit}
    compared = shown.keys() & expected.keys()
    assert len(compared) >= LEAST_SHOWN - 10
    assert differing({register: shown[register] for register in compared}, expected) == {}
    assert "handoff" in page.inner_text("#did").lower()


def test_without_a_handoff_nothing_leads_there_and_the_last_step_says_the_end(open_page):
    page = open_page("broken")
    assert page.is_disabled("[data-go=handoff]")
    page.keyboard.press("End")
    assert step_of(page) == len(made("broken").data["steps"])
    assert f"Here it ends: {made('broken').data['end']['words']}" in page.locator("#did li").all_inner_texts()


def test_what_a_step_changed_has_a_mark(open_page):
    page, data = open_page("microvm"), made("microvm").data
    protected = next(step for name, step, *_ in data["marks"] if name == "protected-mode")
    for step in (protected, protected + 1, data["handoff"]):
        go(page, step)
        changed = set(made("microvm").told.recorded.records[step - 1].changes)
        assert marked(page) == changed & registers(page).keys() - {"cs", "cs_base", "cs_limit"}
    go(page, protected)
    assert "cr0" in marked(page)
    go(page, 0)
    assert marked(page) == set()


@pytest.mark.parametrize("key", ["ArrowDown", "PageDown"])
def test_a_pane_that_has_the_focus_scrolls_by_keys(open_page, key):
    page = open_page("microvm", "#step=1")
    page.locator("#code").focus()
    page.keyboard.press(key)
    page.wait_for_function("document.getElementById('code').scrollTop > 0")
    assert step_of(page) == 1


def phase_starts(name):
    """The first step of each phase."""
    return [first + 1 for first, *_ in made(name).data["phases"]]


@pytest.mark.parametrize(
    ("keys", "leads_to"),
    [
        (["ArrowRight"], lambda _: 1),
        (["ArrowRight", "ArrowRight", "ArrowLeft"], lambda _: 1),
        (["ArrowLeft"], lambda _: 0),
        (["Shift+ArrowRight", "ArrowRight"], lambda _: 11),
        (["Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft"], lambda _: 10),
        (["ArrowDown"], lambda name: phase_starts(name)[1]),
        (["ArrowDown", "ArrowDown", "ArrowUp"], lambda name: phase_starts(name)[1]),
        (["ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"], lambda name: phase_starts(name)[2]),
        (["End"], lambda name: len(made(name).data["steps"])),
        (["End", "ArrowRight"], lambda name: len(made(name).data["steps"])),
        (["End", "Home"], lambda _: 0),
        (["PageDown"], lambda _: 10),
        (["PageDown", "PageUp"], lambda _: 0),
        (["h"], lambda name: made(name).data["handoff"]),
        (["g", "2", "1", "4", "Enter"], lambda _: 214),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_keys_lead_to_steps(open_page, keys, leads_to):
    page = open_page("microvm")
    for key in keys:
        page.keyboard.press(key)
    assert step_of(page) == leads_to("microvm")


def test_many_steps_are_as_quick_as_few(open_page):
    page = open_page("q35")
    page.keyboard.press("End")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    assert step_of(page) == len(made("q35").data["steps"]) - 20
    assert page.evaluate("document.querySelectorAll('*').length") < len(made("q35").data["steps"]) / 2


def test_the_slider_follows_the_mouse_and_the_state_the_slider(open_page):
    page = open_page("q35")
    box = page.locator("#slider").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 2, middle)
    page.mouse.down()
    seen = []
    for part in (0.25, 0.5, 0.9):
        page.mouse.move(box["x"] + box["width"] * part, middle)
        seen.append(step_of(page))
        assert page.get_attribute("#slider", "aria-valuenow") == str(seen[-1])
        assert differing(registers(page), states("q35", [seen[-1]])[seen[-1]]) == {}
    page.mouse.up()
    page.mouse.move(box["x"], middle)
    assert 0 < seen[0] < seen[1] < seen[2] == step_of(page)
    page.keyboard.press("ArrowRight")  # the slider has the focus
    assert step_of(page) == seen[2] + 1


def test_a_press_on_a_tick_of_a_lane_leads_to_the_access(open_page):
    page, data = open_page("q35"), made("q35").data
    fw_cfg = [name for name, _ in data["devices"]].index("fw_cfg-dma")
    step = data["effects"]["step"][data["effects"]["device"].index(fw_cfg)]
    box = page.locator(".lane[title=fw_cfg-dma] svg").bounding_box()
    place = page.evaluate("(step) => window.page.panes[0].scale.place(step)", step + 1)
    page.mouse.click(box["x"] + box["width"] * place + 2, box["y"] + box["height"] / 2)
    assert step_of(page) == step + 1


def test_the_slider_tells_its_range_and_the_instruction(open_page):
    page, data = open_page("microvm"), made("microvm").data
    go(page, 3)
    slider = page.locator("#slider")
    assert (slider.get_attribute("aria-valuemin"), slider.get_attribute("aria-valuemax")) == ("0", str(len(data["steps"])))
    assert slider.get_attribute("aria-valuetext") == f"3 of {len(data['steps'])}: {data['sites'][data['steps'][2]][3]}"


def test_each_phase_has_a_button_that_leads_to_it(open_page):
    page = open_page("q35")
    buttons = page.locator("#phases button")
    starts = phase_starts("q35")
    assert buttons.count() == len(starts)
    for index, start in enumerate(starts):
        buttons.nth(index).click()
        assert step_of(page) == start
        assert buttons.nth(index).get_attribute("aria-current") == "step"
    assert page.locator("#phases [aria-current]").count() == 1


def test_a_link_opens_its_step_and_the_address_follows(open_page):
    page = open_page("microvm", "#step=214")
    assert step_of(page) == 214
    assert page.input_value("#number") == "214"
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**#step=215")
    page.evaluate("location.hash = '#step=5'")
    wait(page, 5)
    page.evaluate("location.hash = '#step=99999999'")
    wait(page, len(made("microvm").data["steps"]))


def test_a_finding_opens_and_leads_to_the_step(open_page):
    page = open_page("qboot")
    violated = page.locator(".finding.violated")
    assert violated.count() == sum(finding[1] == "violated" for finding in made("qboot").data["findings"])
    assert violated.first.evaluate("(finding) => finding.compareDocumentPosition(document.querySelector('.met-all')) & 4")
    with_step = page.locator(".finding.violated:has(a)").first
    with_step.locator("summary").click()
    link = with_step.locator("a").first
    assert with_step.locator("li").first.inner_text().startswith(f"{link.inner_text()}: ")
    link.click()
    assert step_of(page) == int(link.get_attribute("href").removeprefix("#step="))
    page.keyboard.press("ArrowRight")  # the steps have the focus now
    assert step_of(page) == int(link.get_attribute("href").removeprefix("#step=")) + 1
    assert page.locator(".cause").count() == len(made("qboot").data["causes"]) > 0
    assert not page.locator(".cause").first.is_visible()  # nobody who wants to find it reads it by chance
    page.locator(".causes > summary").click()
    assert page.locator(".cause").first.is_visible()


def test_the_source_line_of_a_step_is_the_current_one_and_seen(open_page):
    page, data = open_page("microvm"), made("microvm").data
    for step in (1, 4, 100, data["handoff"]):
        go(page, step)
        file, number = data["sites"][data["steps"][step - 1]][5:7]
        current = page.locator("#code [aria-current]")
        assert current.count() == 1
        assert "".join(current.locator("code").inner_text().split()) == "".join(data["files"][file][1][number - 1].split())
        assert page.inner_text("#code-title").startswith(data["files"][file][0])
        pane, line = page.locator("#code").bounding_box(), current.bounding_box()
        assert pane["y"] <= line["y"] <= line["y"] + line["height"] <= pane["y"] + pane["height"] + 1


def test_without_a_source_the_disassembly_is_shown(open_page):
    page, data = open_page("qboot"), made("qboot").data
    for step in (1, 1000, data["handoff"]):
        go(page, step)
        address, _, _, text, *_ = data["sites"][data["steps"][step - 1]]
        current = page.locator("#code [aria-current]")
        assert current.locator(".at").inner_text().strip().startswith(f"{address:08x}")
        assert current.locator("code").inner_text().startswith(text)


def test_lines_say_how_often_they_ran(open_page):
    page, data = open_page("microvm"), made("microvm").data
    often = max(range(len(data["sites"])), key=data["steps"].count)
    steps = [number + 1 for number, site in enumerate(data["steps"]) if site == often]
    go(page, steps[0])
    times = page.locator("#code [aria-current] .times")
    assert times.inner_text() == f"×{len(steps)}"
    times.click()
    assert step_of(page) == steps[1]


def test_accesses_to_devices_are_listed_and_lead_to_their_steps(open_page):
    page, data = open_page("microvm"), made("microvm").data
    go(page, data["handoff"])
    kinds = [data["effect_kinds"][kind] for kind in data["effects"]["kind"]]
    count = sum(kind in ("in", "out", "read", "write") for kind in kinds)
    assert page.inner_text("#devices-title").endswith(f"{count} of {count} accesses so far")
    opened = open_page("microvm", f"#step={data['handoff']}")
    pane, last = opened.locator("#devices").bounding_box(), opened.locator("#devices a").last.bounding_box()
    assert pane["y"] <= last["y"] <= last["y"] + last["height"] <= pane["y"] + pane["height"] + 1
    link = page.locator("#devices a").first
    link.click()
    step = int(link.get_attribute("href").removeprefix("#step="))
    wait(page, step)
    assert page.locator("#devices [aria-current]").first.get_attribute("href") == f"#step={step}"


def test_memory_fills_up_and_its_structures_open(open_page):
    page, data = open_page("microvm"), made("microvm").data
    magic = next(fields for name, *_, fields in data["memory"]["structures"] if name == "start_info")[0]
    row = page.locator(".row", has=page.locator(".name", has_text="start_info"))
    assert not row.locator(".filled").get_attribute("d")
    row.locator("button").click()
    assert page.locator("#memory-detail tbody tr").first.inner_text().split("\t")[2] == "not written yet"
    go(page, data["handoff"])
    assert row.locator(".filled").get_attribute("d")
    assert page.locator("#memory-detail tbody tr").first.locator(".value").inner_text() == magic[3]


def test_at_each_step_an_entry_is_told_as_in_the_end(open_page):
    """Where the ACPI tables get an entry of the memory map the entries behind it are moved, the last one first."""
    page, memory = open_page("q35"), made("q35").data["memory"]
    index = [structure[0] for structure in memory["structures"]].index("memory map")
    page.locator(".row button", has=page.locator(".name", has_text="memory map")).click()
    shown = dict.fromkeys(range(len(memory["structures"][index][5])), ("not written yet", "", ""))
    for step in sorted({step for step, *_ in memory["written"][index]}):
        go(page, step)
        shown |= {field: (value, words, f"step {step}") for at, field, value, words in memory["written"][index] if at == step}
        rows = page.locator("#memory-detail tbody tr").all()
        cells = (".value", "small", "td:last-child")
        told = [tuple("".join(row.locator(cell).all_inner_texts()) for cell in cells) for row in rows]
        assert told == list(shown.values())
    assert [text for text, *_ in shown.values()] == [field[3] for field in memory["structures"][index][5]]


def test_what_came_after_the_handoff_is_told(open_page):
    page, data = open_page("bare"), made("bare").data
    assert page.locator("#events li").count() == len(data["beyond"]["events"])
    assert page.inner_text("#kernel-console").splitlines() == [line for _, line in data["beyond"]["console"]]
    assert not open_page("microvm").is_visible("#beyond")


def test_a_step_is_spoken_once_the_steps_come_to_rest(open_page):
    page, data = open_page("microvm"), made("microvm").data
    spoken = page.locator("#spoken")
    assert spoken.get_attribute("aria-live") == "polite"
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    text = data["sites"][data["steps"][4]][3]
    page.wait_for_function("(text) => document.getElementById('spoken').textContent.startsWith(text)", arg=f"Step 5: {text}.")
