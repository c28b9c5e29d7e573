"""Progress of long work on a terminal; nothing where standard error is none."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_AFTER: Final = 0.3  # seconds: what is over before that shows nothing
_EVERY: Final = 0.1  # seconds between two states of the line
_CLEAR: Final = "\r\x1b[K"


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A function to be told (done, total) while `what` is going on, which keeps a line on the terminal; None without one.

    The line is gone at the end.
    """
    with shown_words() as show:
        yield None if show is None else lambda done, total: show(f"{what}: {100 * done // max(total, 1)} %")


@contextmanager
def shown_words() -> Iterator[Callable[[str], None] | None]:
    """The same of what has no known total: a function to be told words."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = False
    due = time.monotonic() + _AFTER

    def show(words: str) -> None:
        nonlocal shown, due
        now = time.monotonic()
        if now >= due:
            shown, due = True, now + _EVERY
            sys.stderr.write(f"{_CLEAR}{words}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
