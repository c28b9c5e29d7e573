"""The time of a board's timers. It is virtual: who executes the guest says how it goes on, so that two runs can be the same."""

from collections.abc import Callable
from typing import Final

LOOK_NS: Final = 1000  # what an access to a timer takes, as on an ISA bus; a guest that waits for one gets on by it
SECOND: Final = 1_000_000_000  # ns


def _stands_still() -> int:
    return 0


class Timer:
    """What is done at a time of a clock."""

    def __init__(self, changed: Callable[[], None], expire: Callable[[], None]) -> None:
        self._changed = changed
        self.expire = expire
        self.due: int | None = None  # ns; None: never

    def set(self, due: int | None) -> None:
        """In place of what was set before."""
        if due != self.due:
            self.due = due
            self._changed()


class Clock:
    """Nanoseconds since power on."""

    def __init__(self) -> None:
        self._passed = 0
        self._since: Callable[[], int] = _stands_still
        self._timers: list[Timer] = []
        self._told: Callable[[], None] | None = None

    def drive(self, since: Callable[[], int], told: Callable[[], None] | None = None) -> None:
        """From now on `since` says how many ns have gone by since the last `advance`, and `told` is called when the next timer
        may be another one, or nearer than these ns say."""
        self._since, self._told = since, told

    def let_go(self) -> None:
        """It stands still from now on, and tells nobody."""
        self._passed, self._since, self._told = self.now, _stands_still, None

    @property
    def now(self) -> int:
        """The time, which is no later for being asked."""
        return self._passed + self._since()

    def look(self) -> int:
        """The time, for a guest that looks at a device: this takes a while."""
        self._passed += LOOK_NS
        self._change()
        return self.now

    def advance(self, ns: int) -> None:
        """So much has gone by."""
        self._passed += ns

    def timer(self, expire: Callable[[], None]) -> Timer:
        """A new one, that is not set."""
        timer = Timer(self._change, expire)
        self._timers.append(timer)
        return timer

    @property
    def next(self) -> int | None:
        """When the first timer is due; None: none is set."""
        return min((timer.due for timer in self._timers if timer.due is not None), default=None)

    def run_due(self) -> None:
        """Has the timers that are due expire, one after the other; one may set itself anew."""
        now = self.now
        while (due := self.next) is not None and due <= now:
            timer = next(timer for timer in self._timers if timer.due == due)
            timer.due = None
            timer.expire()

    def _change(self) -> None:
        if self._told is not None:
            self._told()
