"""Takes the marks of one boot as they come: from whoever drives the CPU, from COM1, from the marker ports."""

import time
from collections.abc import Callable
from typing import Final

from pvhboot.loader.printable import printable
from pvhboot.shim.abi.firmware import MARK_LINUX_KERNEL, MARK_LINUX_USER, MARKER_NAMES, MARKER_PORTS

from ..bus import OUT, Access
from .marks import CONSOLE, HANDOFF, INIT, START_KERNEL, UNKNOWN_MARKER, Mark, console_text

_MAX_MARKS: Final = 100  # with what a guest writes to the marker ports besides the known values
_SHOWN: Final = 60  # characters of a line of the console
_KEPT: Final = 4096  # bytes of it, where a text is looked for
# What Linux (init/main.c, run_init_process) prints in front of the first program.
_INIT_LINE: Final = (b"Run ", b" as init process")
# What a marker tells that the kernel's symbols, or its words, would tell a moment later or earlier, if at all.
_STANDS_FOR: Final = {MARK_LINUX_KERNEL: START_KERNEL, MARK_LINUX_USER: INIT}


def marker_name(value: int) -> str:
    """What existing tools call a value that is written to a marker port."""
    return MARKER_NAMES.get(value, f"{UNKNOWN_MARKER}{value}")


def _shown(line: bytes | bytearray) -> str:
    return repr(printable(bytes(line[:_SHOWN])))


class Recorder:
    """The marks so far; each counts when it is reached first. `done`: the one named `goal` is among them, and is the last;
    `on_goal` is called then. `clock` gives nanoseconds."""

    def __init__(self, goal: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.goal = goal
        self.clock = clock
        self.done = False
        self.on_goal: Callable[[], None] = lambda: None
        self._reached: dict[str, tuple[int, str]] = {}
        self._printed = bytearray()  # by COM1, the end of it
        self._text = console_text(goal).encode("utf-8", "surrogateescape")

    def reach(self, name: str, ns: int | None = None, place: str = "") -> None:
        """Here is a mark, now, or at `ns` of the clock."""
        if self.done or name in self._reached:
            return
        self._reached[name] = self.clock() if ns is None else ns, place
        if name == self.goal:
            self.done = True
            self.on_goal()

    def marks(self, describe: Callable[[str], str] = lambda _name: "") -> tuple[Mark, ...]:
        """In the order of their time, from the first on. `describe`: the place of one that nothing is known of."""
        first = self.start_ns
        found = sorted(self._reached.items(), key=lambda item: item[1][0])
        return tuple(Mark(name, ns - first, place or self._first_line(name) or describe(name)) for name, (ns, place) in found)

    @property
    def start_ns(self) -> int:
        """The clock at the first mark."""
        return min((ns for ns, _ in self._reached.values()), default=0)

    def has(self, name: str) -> bool:
        """Whether it was reached."""
        return name in self._reached

    def on_console(self, data: bytes) -> None:
        """COM1 has sent a byte."""
        now = self.clock()
        if HANDOFF in self._reached and CONSOLE not in self._reached:
            self._printed.clear()  # the firmware's
            self.reach(CONSOLE, now)
        self._printed += data
        if self._text and self._printed.endswith(self._text):
            self.reach(self.goal, now)
        if data == b"\n":
            self._end_line(now)
        if len(self._printed) > 2 * _KEPT:
            del self._printed[:-_KEPT]

    def on_access(self, access: Access) -> None:
        """A listener of the bus: the marker ports."""
        if access.kind == OUT and access.address in MARKER_PORTS:
            now = self.clock()
            place = f"{access.value:#x} to port {access.address:#x}"
            if access.value in MARKER_NAMES or len(self._reached) < _MAX_MARKS:
                self.reach(marker_name(access.value), now, place)
            if (other := _STANDS_FOR.get(access.value)) is not None:
                self.reach(other, now, place)

    def _first_line(self, name: str) -> str:
        """Of the console, as long as it is the only one, and not whole."""
        if name != CONSOLE:
            return ""
        return f"{'first byte ' if len(self._printed) == 1 else ''}{_shown(self._printed)}"

    def _end_line(self, now: int) -> None:
        start = self._printed.rfind(b"\n", 0, len(self._printed) - 1) + 1
        line = bytes(self._printed[start:]).rstrip()
        shown = _shown(line)
        if CONSOLE in self._reached and not self._reached[CONSOLE][1] and line:
            self._reached[CONSOLE] = self._reached[CONSOLE][0], shown
        before, behind = _INIT_LINE
        if before in line and line.endswith(behind):
            self.reach(INIT, now, shown)
