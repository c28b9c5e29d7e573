"""Pages in a headless Chromium: the system's, driven by playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Root has no sandbox; what a browser would load of its own accord would be taken for the page's doing.
_OPTIONS = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")


def _executable() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def browser_problem() -> str | None:
    """Why there is no browser here; None if there is one."""
    if find_spec("playwright") is None:
        return "no playwright: pip install playwright"
    return None if _executable() else "no chromium: Debian's package chromium has it"


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser of playwright's; while it is open its thread has a running event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_executable(), args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """Opens files in a browser, and keeps what their pages complain of (`complaints`) and ask for beside the file
    (`requests`). A page that has rested goes to the next file that is opened with the same options: to make one takes longer
    than all that a test does with it."""

    def __init__(self, browser: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._browser = browser
        self._open: list[tuple[dict[str, Any], Any]] = []  # with their options
        self._resting: dict[str, list[Any]] = {}
        self._addresses: dict[Any, str] = {}

    def open(self, path: Path, fragment: str = "", *, before: str = "", **options: Any) -> Any:
        """A page of playwright's, loaded. `before`: a script that runs in front of the page's; the options are those of a
        context, as in color_scheme="dark" and viewport={"width": 390, "height": 844}."""
        options["before"] = before
        resting = self._resting.get(repr(options))
        page = resting.pop() if resting else self._new_page(**options)
        self._open.append((options, page))
        self._addresses[page] = path.as_uri()
        page.goto(self._addresses[page] + fragment)
        return page

    def rest(self) -> None:
        """All pages are done with; nothing of what was done to them stays, nor of what they have said."""
        for options, page in self._open:
            page.goto("about:blank")
            page.mouse.move(0, 0)
            page.emulate_media(media="null", color_scheme=options.get("color_scheme", "light"))
            self._resting.setdefault(repr(options), []).append(page)
        self._open.clear()
        self.complaints.clear()
        self.requests.clear()

    def _new_page(self, before: str, **options: Any) -> Any:
        page = self._browser.new_context(**options).new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._on_request(request.url, self._addresses[page]))
        if before:
            page.add_init_script(before)
        return page

    def _on_request(self, url: str, address: str) -> None:
        if url.split("#")[0] != address and not url.startswith(("data:", "about:")):
            self.requests.append(url)
