"""The page of `report` in a browser, for every reader: popovers by mouse, keyboard and touch, light and dark, narrow, on paper,
by keyboard alone, and without a script."""

from itertools import pairwise

import pytest
from page_shown import fields, go, step_of
from pvhboot.emu.bitfields import descriptor_fields, register_fields
from report_pages import NAMES, made, page_bytes

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TEXT_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
THUMB = 40  # pixels that a control has at least, where it is pressed by one
# All texts that are seen, with their contrast: of elements that have a text of their own, on the first background behind them.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data; };
  const light = (colour) => [...rgba(colour)].slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const back = (element) => getComputedStyle(element).backgroundColor;
  const behind = (element) => (rgba(back(element))[3] === 255 ? back(element) : behind(element.parentElement));
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const isSeen = element.checkVisibility({ visibilityProperty: true }) && !element.closest("script, noscript, :disabled");
    if (!own || !isSeen) continue;
    const both = [light(getComputedStyle(element).color), light(behind(element))];
    const [darker, lighter] = both.sort((one, other) => one - other);
    found.push([element.textContent.slice(0, 30), (lighter + 0.05) / (darker + 0.05)]);
  }
  return found;
}"""
CONTROLS = "a[href], button, input, summary, [tabindex='0']"
# Numbers them, gives how many can be seen, and keeps which get the focus from then on, and whether that is to be seen.
NUMBER_CONTROLS = f"""() => {{
  const seen = [...document.querySelectorAll("{CONTROLS}")]
    .filter((one) => !one.disabled && one.tabIndex >= 0 && one.checkVisibility({{ visibilityProperty: true }}));
  seen.forEach((one, index) => (one.dataset.number = index));
  window.focused = [];
  document.addEventListener("focusin", ({{ target }}) => {{
    const {{ outlineStyle, outlineWidth }} = getComputedStyle(target);
    const number = target.dataset.number ?? null;
    if (number !== null) window.focused.push([number, outlineStyle !== "none" && parseFloat(outlineWidth) >= 2]);
  }});
  return seen.length;
}}"""


@pytest.fixture
def open_page(visitor, tmp_path):
    """Opens one of the pages."""

    def open_it(name, fragment="", **options):
        path = tmp_path / f"{name}.html"
        path.write_bytes(page_bytes(name))
        page = visitor.open(path, fragment, **{**DESKTOP, **options})
        if options.get("java_script_enabled", True) and "before" not in options:
            page.wait_for_selector("body[data-step]")
        return page

    return open_it


def state_at(name, step):
    """The registers that the engine told at a step."""
    recorded = made(name).told.recorded
    return next(dict(state) for number, state in enumerate(recorded.states()) if number == step)


def rows(bit_fields):
    """As the page shows them."""
    return [
        [field.bits, field.name, str(field.value) if field.high == field.low else hex(field.value), field.meaning]
        for field in bit_fields
    ]


def by_focus(page, selector):
    """Tabs to it: from the one in front of it, as a focus by script is none of a keyboard's."""
    page.evaluate("(selector) => document.querySelector(selector).focus()", selector)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")


@pytest.mark.parametrize("register", ["cr0", "cr4", "eflags", "efer"])
@pytest.mark.parametrize("reach", [lambda page, selector: page.hover(selector), by_focus], ids=["hover", "focus"])
def test_a_register_opens_to_its_bits(open_page, register, reach):
    page = open_page("microvm")
    for step in (0, 4, made("microvm").data["handoff"]):
        go(page, step)
        reach(page, f"[data-register={register}]")
        page.wait_for_selector("#popover", state="visible")
        assert fields(page) == [rows(register_fields(register, state_at("microvm", step)[register]))]
        assert page.get_attribute(f"[data-register={register}]", "aria-describedby") == "popover"
        page.keyboard.press("Escape")
        page.wait_for_selector("#popover", state="hidden")
        page.mouse.move(1, 1)


def is_within(box):
    """Whether a box lies within the window of a phone."""
    width, height = PHONE["viewport"].values()
    return 0 <= box["x"] <= width - box["width"] and 0 <= box["y"] <= height - box["height"]


def test_a_tap_opens_a_popover_and_one_beside_it_closes_it(open_page):
    page = open_page("microvm", "#step=4", **PHONE)
    page.tap("[data-register=cr0]")
    assert page.is_visible("#popover")
    assert is_within(page.locator("#popover").bounding_box())
    page.tap("#state-title")
    assert not page.is_visible("#popover")


def test_the_popover_stays_under_the_mouse_and_follows_the_step(open_page):
    page = open_page("microvm", "#step=3")
    page.hover("[data-register=cr0]")
    page.wait_for_selector("#popover", state="visible")
    page.hover("#popover .title")
    page.wait_for_timeout(300)  # longer than it stays without one
    assert page.is_visible("#popover")
    page.keyboard.press("ArrowRight")
    assert step_of(page) == 4
    assert fields(page) == [rows(register_fields("cr0", state_at("microvm", 4)["cr0"]))]
    page.mouse.move(1, 1)
    page.wait_for_selector("#popover", state="hidden")


@pytest.mark.parametrize("name", ["microvm", "qboot"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_segment_opens_to_the_64_bits_of_its_descriptor(open_page, name, width):
    data = made(name).data
    page = open_page(name, f"#step={data['handoff']}", viewport={"width": width, "height": 844})
    for register in ("cs", "ds"):
        descriptor = [load[3] for load in data["segment_loads"] if load[1] == register and load[0] <= data["handoff"]][-1]
        by_focus(page, f"[data-register={register}]")
        assert fields(page)[1] == rows(descriptor_fields(int(descriptor, 16)))
        digits = page.locator("#popover .digits i").all_inner_texts()
        assert "".join(digits) == f"{int(descriptor, 16):064b}"
        group = page.locator("#popover .group", has_text="type")
        group.hover()
        assert page.locator("#popover tr.pointed th").inner_text() == "type"


def test_the_gdt_is_that_of_memory_and_its_entries_open(open_page):
    data = made("microvm").data
    page = open_page("microvm", f"#step={data['handoff']}")
    entries = page.locator(".gdt .entry")
    assert entries.locator(".value").all_inner_texts() == data["gdts"][-1][3]
    entries.last.hover()
    page.wait_for_selector("#popover", state="visible")
    assert fields(page) == [rows(descriptor_fields(int(data["gdts"][-1][3][-1], 16)))]
    page.keyboard.press("Home")
    assert step_of(page) == 0
    assert entries.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["microvm", "qboot", "broken"])
def test_every_text_has_enough_contrast(open_page, name, scheme):
    page = open_page(name, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for step in {0, 4, made(name).data["handoff"] or 1}:
        go(page, min(step, len(made(name).data["steps"])))
        found = page.evaluate(CONTRASTS)
        assert len(found) > 100
        assert [(text, round(contrast, 2)) for text, contrast in found if contrast < TEXT_CONTRAST] == []


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_light_and_dark_differ_by_the_system_and_by_the_switch(open_page):
    light, dark = open_page("microvm", color_scheme="light"), open_page("microvm", color_scheme="dark")
    assert background(light) != background(dark)
    assert (light.inner_text("#theme"), dark.inner_text("#theme")) == ("Dark", "Light")
    light.click("#theme")
    assert background(light) == background(dark)
    light.click("#theme")
    dark.click("#theme")
    assert background(light) == background(dark) != background(open_page("microvm", color_scheme="dark"))
    dark.emulate_media(color_scheme="light")  # what was chosen stays
    assert dark.inner_text("#theme") == "Dark"


@pytest.mark.parametrize("options", [PHONE, {"viewport": {"width": 320, "height": 700}}, DESKTOP], ids=["390", "320", "1280"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows_sideways(open_page, name, options):
    page = open_page(name, **options)
    for step in (0, 4, len(made(name).data["steps"])):
        page.evaluate("(step) => window.page.go(step)", step)
        step_of(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_on_a_phone_the_controls_stay_in_reach_of_a_thumb(open_page):
    page = open_page("microvm", **PHONE)
    for scrolled in (0, 10_000):
        page.evaluate("(to) => window.scrollTo(0, to)", scrolled)
        for control in page.locator(".transport button, .transport input, #slider").all():
            box = control.bounding_box()
            assert box["y"] > PHONE["viewport"]["height"] / 2
            assert is_within(box)
            if control.get_attribute("id") != "slider":
                assert min(box["width"], box["height"]) >= THUMB
    page.tap("[data-go=next]")
    assert step_of(page) == 1


@pytest.mark.parametrize("name", ["microvm", "qboot"])
def test_tab_reaches_every_control_and_shows_where_it_is(open_page, name):
    page = open_page(name)
    go(page, made(name).data["handoff"])
    count = page.evaluate(NUMBER_CONTROLS)
    for _ in range(count + 5):  # a pane that scrolls is one more to Chromium
        page.keyboard.press("Tab")
    focused = page.evaluate("window.focused")
    assert {number for number, _ in focused} == {str(number) for number in range(count)}
    assert [number for number, is_seen in focused if not is_seen] == []
    assert step_of(page) == made(name).data["handoff"]


def test_the_page_has_landmarks_and_names(open_page):
    page = open_page("qboot")
    assert page.locator("main").count() == 1
    assert page.locator("h1").count() == 1
    unnamed = """() => [...document.querySelectorAll("button, input, [role=region], section, main")]
      .filter((one) => !one.textContent.trim() && !one.labels?.length)
      .filter((one) => !one.ariaLabel && !one.getAttribute("aria-labelledby"))
      .map((one) => one.outerHTML)"""
    assert page.evaluate(unnamed) == []
    ids = "() => [...document.querySelectorAll('[id]')].map((one) => one.id)"
    assert len(set(page.evaluate(ids))) == len(page.evaluate(ids))


def test_the_keys_are_told_and_closed(open_page):
    page = open_page("microvm")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("ArrowRight")
    assert step_of(page) == 0
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.click("#keys")
    page.click("#help button")
    assert not page.is_visible("#help")


@pytest.mark.parametrize("name", ["microvm", "qboot"])
def test_on_paper_there_is_the_step_and_nothing_to_press(open_page, name):
    page = open_page(name, f"#step={made(name).data['handoff']}", color_scheme="dark")
    assert page.is_visible("#slider")
    page.emulate_media(media="print")
    for hidden in (".tools", ".transport", ".find", "#slider", "#cursor"):
        assert not page.is_visible(hidden), hidden
    for shown in (".verdict", ".check", "#phases", "#instruction", "#code [aria-current]", ".registers", ".segments", ".map"):
        assert page.locator(shown).first.is_visible(), shown
    assert background(page) == "rgb(255, 255, 255)"
    clipped = "(selector) => { const one = document.querySelector(selector); return one.scrollHeight > one.clientHeight + 1; }"
    assert [pane for pane in ("#code", "#state", ".map", "#memory-detail") if page.evaluate(clipped, pane)] == []


def test_paper_has_all_that_is_folded_and_the_screen_then_has_it_folded_again(open_page):
    page = open_page("qboot")
    page.locator(".met-all > summary").click()
    is_open = "(state) => [...document.querySelectorAll('.summary details')].filter((one) => one.open === state).length"
    folded = page.evaluate(is_open, False)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(is_open, False) == 0
    assert page.locator(".cause").first.is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(is_open, False) == folded > 0


def test_the_steps_are_seen_at_once_where_all_is_well(open_page):
    page = open_page("q35", viewport={"width": 1280, "height": 900})
    for pane in ("#code", "#state", "#memory"):
        assert page.locator(pane).bounding_box()["y"] < 900 * 0.6
    assert not page.is_visible(".facts")
    page.locator(".booted > summary").click()
    assert page.is_visible(".facts")


@pytest.mark.parametrize("width", [1280, 1051, 390])
def test_what_wraps_in_a_step_hides_nothing_above_it(open_page, width):
    page, data = open_page("q35", viewport={"width": width, "height": 900}), made("q35").data
    longest = max(range(len(data["steps"])), key=lambda index: len(data["sites"][data["steps"][index]][3]))
    go(page, longest + 1)
    card, parts = page.locator(".now").bounding_box(), [".now .phase b", "#instruction", "#where"]
    boxes = [page.locator(part).bounding_box() for part in parts]
    for before, after in pairwise([{"y": card["y"], "height": 0}, *boxes]):
        assert before["y"] + before["height"] <= after["y"] + 1
    heading = page.locator(".now .phase")
    assert heading.evaluate("(one) => one.scrollHeight <= one.clientHeight + 1")
    assert boxes[1]["y"] + boxes[1]["height"] <= card["y"] + card["height"]


def test_what_moves_stays_still_where_that_is_wanted(open_page):
    step = made("microvm").data["handoff"]
    flash = "getComputedStyle(document.querySelector('.touched .stores')).animationName"
    last_store = max(
        record.number
        for record in made("microvm").told.recorded.firmware
        if any(effect.kind == "store" for effect in record.effects)
    )
    assert last_store <= step
    for motion, name in (("no-preference", "flash"), ("reduce", "none")):
        page = open_page("microvm", f"#step={last_store}", reduced_motion=motion)
        assert page.evaluate(flash) == name


def test_without_a_script_the_verdict_and_the_findings_are_there(open_page):
    page = open_page("qboot", java_script_enabled=False)
    assert page.is_visible(".verdict")
    assert page.locator(".finding.violated").first.is_visible()
    assert "need JavaScript" in page.inner_text("noscript")
    for control in ("#bench", "#theme", "#keys", "#beyond"):
        assert not page.is_visible(control)


def test_a_browser_that_cannot_expand_it_is_told_so(open_page, visitor):
    page = open_page("microvm", before="delete window.DecompressionStream")
    page.wait_for_selector("#trouble", state="visible")
    assert "DecompressionStream" in page.inner_text("#trouble")
    assert page.is_visible(".verdict")
    assert len(visitor.complaints) == 1  # and a developer finds it in the console
    visitor.complaints.clear()
