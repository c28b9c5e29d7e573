"""The time of a run on KVM: signals that bring KVM_RUN back."""

import os
import signal
import time
from _thread import get_ident, get_native_id  # threading is not imported for each boot
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pvhboot.shim.errors import BootError

TICK: Final = 0.1  # seconds; how late a limit of time, or a pause, may take effect


def require_main_thread() -> None:
    """BootError elsewhere: a timer's signals bring KVM_RUN back, and those go to the main thread."""
    if get_native_id() != os.getpid():
        raise BootError("the kvm engine runs in the main thread only: elsewhere no signal can end an endless loop")


@contextmanager
def ticking() -> Iterator[None]:
    """A signal every TICK seconds that does nothing but bring KVM_RUN back. Handler and timer are restored at the end."""
    require_main_thread()
    started = time.monotonic()
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        signal.signal(signal.SIGALRM, lambda _number, _frame: None)
        signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if delay:  # what would have been due meanwhile is due at once
            signal.setitimer(signal.ITIMER_REAL, max(delay - (time.monotonic() - started), 0.001), interval)


def ticker() -> Callable[[], None]:
    """What makes a tick out of turn, called in another thread: it goes to the one that asks for this."""
    thread = get_ident()
    return lambda: signal.pthread_kill(thread, signal.SIGALRM)
