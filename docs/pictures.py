"""Takes the pictures of docs/images anew: `python docs/pictures.py`, with playwright and the system's Chromium.

They are of a boot of q35: the page of `pvhboot report` where the task register is loaded, and what a notebook shows.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import sync_playwright
from pvhboot.emu.cli import main as pvhboot
from pvhboot.emu.notebook import record

IMAGES = Path(__file__).parent / "images"
_BOOT = ("--machine", "q35", "--append", "hello")
_INSTRUCTION = "ltr ax"
_SIZES = ((1280, 800, 1), (390, 844, 2))  # width and height in CSS pixels, and pixels for each
_STYLE = """
body { margin: 0; font: 12px sans-serif } body > section { padding: 10px 14px }
body > section > pre { margin: 0 0 10px; padding: 8px; border-left: 3px solid #2a6fc9; background: #8882 }
.light { background: #fff; color: #222 } .dark { background: #111; color: #ddd }
"""


def _cell(code: str, shown: Any, theme: str) -> str:
    """A notebook's cell and what it shows."""
    return f'<section class="{theme}"><pre>{code}</pre>{shown._repr_html_()}</section>'


def main() -> int:
    """Writes report-1280.png, report-390.png and notebook.png."""
    boot = record(machine="q35", append="hello")
    step = next(one.number for one in boot.trace if one.text == _INSTRUCTION)
    cells = [
        ("boot.memory_map", boot.memory_map, "light"),
        ("boot.gdt", boot.gdt, "light"),
        ("boot.trace[:6]", boot.trace[:6], "dark"),
    ]
    with TemporaryDirectory() as directory, sync_playwright() as playwright:
        page_file, cells_file = Path(directory) / "boot.html", Path(directory) / "cells.html"
        if status := pvhboot(["report", *_BOOT, "-o", str(page_file)]):
            return status
        text = "".join(_cell(*cell) for cell in cells)
        cells_file.write_text(f"<!doctype html><meta charset=utf-8><style>{_STYLE}</style>{text}", encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, height, scale in _SIZES:
            page = browser.new_page(
                viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme="light"
            )
            page.goto(f"{page_file.as_uri()}#step={step}")
            page.wait_for_selector(f"body[data-step='{step}']")
            page.wait_for_timeout(500)  # milliseconds: what scrolls comes to rest
            page.screenshot(path=IMAGES / f"report-{width}.png")
        page = browser.new_page(viewport={"width": 1080, "height": 100})
        page.goto(cells_file.as_uri())
        page.screenshot(path=IMAGES / "notebook.png", full_page=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
