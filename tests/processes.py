"""Which processes there are, by what is on their command lines."""

import time
from collections.abc import Callable
from pathlib import Path


def processes_that_name(path: Path) -> list[int]:
    """The ids of those with that path in their command line."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(path).encode() in line.read_bytes():
                found.append(int(line.parent.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def comes_true(condition: Callable[[], bool]) -> bool:
    """Looks for half a minute."""
    for _ in range(300):
        if condition():
            return True
        time.sleep(0.1)
    return False
