"""Ctrl-C while foreign code executes that calls back."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stopping_at_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop`, which ends what the context holds, and is raised behind it: raised in a callback, ctypes would print
    it and go on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    interrupted: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        interrupted.append(number)
        stop()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
