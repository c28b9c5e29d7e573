"""The page of `report` in a browser: what is typed into its boxes is found, and leaves the keys to the steps."""

import pytest
from page_shown import step_of
from report_pages import made, page_bytes


@pytest.fixture
def open_page(visitor, tmp_path):
    """Opens one of the pages."""

    def open_it(name):
        path = tmp_path / f"{name}.html"
        path.write_bytes(page_bytes(name))
        page = visitor.open(path)
        page.wait_for_selector("body[data-step]")
        return page

    return open_it


@pytest.mark.parametrize("sought", ["cr0", "tr", "gdtr_base"])
def test_what_changes_a_register_is_found(open_page, sought):
    page, records = open_page("microvm"), made("microvm").told.recorded.records
    steps = [record.number for record in records if sought in record.changes]
    page.keyboard.press("/")
    page.keyboard.type(sought)
    page.keyboard.press("Enter")
    for step in steps:
        assert step_of(page) == step
        page.keyboard.press("n")
    assert page.inner_text("#found") == "none later"
    if len(steps) > 1:
        page.keyboard.press("p")
        assert step_of(page) == steps[-2]


def focused(page):
    """Which element has the focus, and whether that is to be seen."""
    return page.evaluate("[document.activeElement.id, document.activeElement.matches(':focus-visible')]")


BOXES = {
    "find": ("#sought", ["/", "c", "r", "0", "Enter"]),
    "back": ("#sought", ["End", "/", "c", "r", "0", "Shift+Enter"]),
    "leave": ("#sought", ["/", "c", "r", "0", "Escape"]),
    "go": ("#number", ["g", "1", "0", "0", "Enter"]),
    "stay": ("#number", ["g", "1", "0", "0", "Escape"]),
}


@pytest.mark.parametrize(("box", "keys"), BOXES.values(), ids=BOXES)
def test_behind_a_box_the_keys_go_to_the_steps_again(open_page, box, keys):
    page = open_page("microvm")
    changes = [record.number for record in made("microvm").told.recorded.records if "cr0" in record.changes]
    for key in keys:
        page.keyboard.press(key)
    step = {"Enter": 100 if box == "#number" else changes[0], "Shift+Enter": changes[-1], "Escape": 0}[keys[-1]]
    assert step_of(page) == step
    assert focused(page) == ["slider", True]
    assert page.input_value(box) == (str(step) if box == "#number" else "cr0")
    page.keyboard.press("ArrowRight")
    assert step_of(page) == step + 1
    page.keyboard.press("h")
    assert step_of(page) == made("microvm").data["handoff"]
    if box == "#sought":
        page.keyboard.press("p")
        assert step_of(page) == changes[-1]


def test_where_nothing_is_found_the_box_keeps_the_focus(open_page):
    page = open_page("microvm")
    for key in ("/", "x", "y", "z", "Enter"):
        page.keyboard.press(key)
    assert page.inner_text("#found") == "in no step"
    assert focused(page)[0] == "sought"
    page.keyboard.press("Shift+Enter")
    assert page.inner_text("#found") == "in no step"
    assert focused(page)[0] == "sought"


def test_what_was_sought_is_typed_over_and_what_was_said_of_it_goes_with_the_step(open_page):
    page = open_page("microvm")
    changes = {
        name: [record.number for record in made("microvm").told.recorded.records if name in record.changes]
        for name in ("cr0", "gdtr_base")
    }
    for name, steps in changes.items():
        page.keyboard.press("Home")
        page.keyboard.press("/")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        assert step_of(page) == steps[0]
    page.keyboard.press("Home")
    page.keyboard.press("p")
    assert page.inner_text("#found") == "none before"
    page.keyboard.press("ArrowRight")
    step_of(page)
    assert page.inner_text("#found") == ""


def test_the_keys_go_to_the_steps_from_the_summary_too_and_these_come_into_view(open_page):
    page = open_page("microvm")
    page.click(".summary summary >> nth=0")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.set_viewport_size({"width": 1280, "height": 400})
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("End")
    assert step_of(page) == 0  # that scrolls the summary
    page.keyboard.press("h")
    assert step_of(page) == made("microvm").data["handoff"]
    assert page.evaluate("document.getElementById('bench').getBoundingClientRect().top < innerHeight / 2")


def test_labels_devices_and_addresses_are_found(open_page):
    page, records = open_page("microvm"), made("microvm").told.recorded.records
    labelled = next(record.number for record in records if str(record.place).startswith("protected_mode"))
    device = next(record.number for record in records if any(effect.device == "fw_cfg-dma" for effect in record.effects))
    stored = next(record for record in records if any(effect.kind == "store" for effect in record.effects))
    at = next(effect.at for effect in stored.effects if effect.kind == "store")
    for sought, step in (("protected_mode", labelled), ("fw_cfg-dma", device), (hex(at), stored.number)):
        page.keyboard.press("Home")
        page.fill("#sought", sought)
        page.keyboard.press("Enter")
        assert step_of(page) == step
