"""What a page of `report` shows in a browser, read back."""

from collections.abc import Mapping
from typing import Any

_REGISTERS = """() => {
  const shown = {};
  const texts = (owner) => [...owner.querySelectorAll(".value")].map((value) => value.textContent);
  for (const owner of document.querySelectorAll(".register")) shown[owner.dataset.register] = texts(owner)[0];
  for (const owner of document.querySelectorAll("button.segment")) {
    const values = texts(owner.closest("tr"));
    ["", "_base", "_limit"].forEach((part, index) => (shown[owner.dataset.register + part] = values[index]));
  }
  return shown;
}"""
_MARKED = """() => [...document.querySelectorAll(".register")]
  .filter((owner) => getComputedStyle(owner.querySelector(".name"), "::before").content.includes("◆"))
  .map((owner) => owner.dataset.register)"""
_FIELDS = """() => [...document.querySelectorAll("#popover .fields")].map((table) =>
  [...table.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent)))"""
_FRAME = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def wait(page: Any, step: int) -> None:
    """Until a step is shown."""
    page.wait_for_selector(f'body[data-step="{step}"]')


def step_of(page: Any) -> int:
    """Which step is shown, once what was pressed has had its effect."""
    page.evaluate(_FRAME)
    return int(page.get_attribute("body", "data-step"))


def go(page: Any, step: int) -> None:
    """Types the number of a step."""
    page.fill("#number", str(step))
    page.keyboard.press("Enter")
    wait(page, step)
    page.evaluate("document.activeElement.blur()")


def registers(page: Any) -> dict[str, int]:
    """All registers that are shown, and segments with their hidden parts, by the names of STATE_REGISTERS."""
    return {name: int(text, 16) for name, text in page.evaluate(_REGISTERS).items()}


def marked(page: Any) -> set[str]:
    """The registers that have a mark beside their colour: the step has changed them."""
    return set(page.evaluate(_MARKED))


def fields(page: Any) -> list[list[list[str]]]:
    """The tables in the popover: rows of bits, name, value and meaning."""
    tables: list[list[list[str]]] = page.evaluate(_FIELDS)
    return tables


def differing(shown: Mapping[str, int], expected: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Of the registers that are shown, those that should hold something else."""
    return {name: (value, expected[name]) for name, value in shown.items() if value != expected[name]}
