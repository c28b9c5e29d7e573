"""What a boot costs: the time of each of its phases, and what the host did for it. Nothing is measured unless one is made."""

import os
import resource
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from . import IMPORTED_NS
from .clock import SECOND
from .engines.base import Watch

if TYPE_CHECKING:
    from pvhboot.loader.cache import Cache
    from pvhboot.loader.memory import GuestMemory

    from .board import Board
    from .engines.base import Cpu

# The phases of a boot, in the order in which they end.
INTERPRETER: Final = "interpreter"  # from the start of the process to the first line of pvhboot
IMPORTS: Final = "imports"  # modules, and the arguments of the command
BLOB: Final = "blob"  # the firmware is read
KERNEL: Final = "kernel"  # opened, unpacked, parsed and proven fit
PLAN: Final = "plan"
PLACE: Final = "place"  # guest memory is made, and filled by the plan
ENGINE: Final = "engine"  # devices and VM are set up
FIRMWARE: Final = "firmware"  # from the reset vector to the handoff
CHECK: Final = "check"  # of the handoff
GUEST: Final = "guest"  # from there to the end of the run

_STAT_STARTTIME: Final = 19  # proc_pid_stat(5): field 22; the third is the first behind the name
_SCHEDSTAT_WAITED: Final = 1  # Linux Documentation/scheduler/sched-stats.rst: ns spent waiting on a run queue


class Faults(NamedTuple):
    """Page faults of this process: `major` had to wait for a disk, `minor` had not."""

    minor: int
    major: int


class Stats:
    """A stop watch for one boot, which is a Watcher, too: the engine starts it in front of the first instruction.

    `phases` are nanoseconds by phase, in the order of their first end; `handoff_ns` is when the handoff was reached, of
    CLOCK_MONOTONIC, None if it was not. `cached`: the kernel came out of the cache, whose directory is `cache_directory`, None
    where there is no cache. `memory` is that of the guest, None where the engine brings its own. When the run has ended,
    `faults` are those since this was made, or since the start of the process, and `peak` is the most memory that the process
    has had resident, in bytes, None where the host does not say.
    """

    def __init__(self, start_ns: int | None = None) -> None:
        """`start_ns`, of CLOCK_MONOTONIC, is where the first phase begins; without it, now."""
        self.phases: dict[str, int] = {}
        self.handoff_ns: int | None = None
        self.cached = False
        self.cache_directory: str | None = None
        self.memory: GuestMemory | None = None
        self.faults = Faults(0, 0)
        self.peak: int | None = None
        self._last = time.monotonic_ns() if start_ns is None else start_ns
        self._before = _faults()

    @classmethod
    def of_process(cls) -> "Stats":
        """One that has counted since this process was started, and stands at the end of its imports."""
        stats = cls(process_start_ns())
        stats.mark(INTERPRETER, IMPORTED_NS)
        stats.mark(IMPORTS)
        stats._before = Faults(0, 0)
        return stats

    def mark(self, phase: str, at_ns: int | None = None) -> None:
        """The phase ends, now or at `at_ns`: what has passed since the last mark belongs to it."""
        now = time.monotonic_ns() if at_ns is None else at_ns
        self.phases[phase] = self.phases.get(phase, 0) + now - self._last
        self._last = now

    def blob_read(self) -> None:
        """The firmware has been read."""
        self.mark(BLOB)

    def imported(self) -> None:
        """The engine has been imported."""
        self.mark(IMPORTS)

    def kernel_opened(self, cache: "Cache | None") -> None:
        """The kernel has been proven fit, or was found in the cache."""
        self.mark(KERNEL)
        if cache is not None:
            self.cached, self.cache_directory = cache.found > 0, cache.directory

    def planned(self) -> None:
        """The plan has been made."""
        self.mark(PLAN)

    def placed(self, memory: "GuestMemory") -> None:
        """The plan has been placed into the memory of the guest."""
        self.mark(PLACE)
        self.memory = memory

    def start(self, cpu: "Cpu", board: "Board") -> Watch:  # noqa: ARG002
        """See Watcher: the first instruction is next. Nothing is watched."""
        self.mark(ENGINE)
        return Watch()

    def handed_over(self) -> None:
        """The handoff was reached."""
        self.mark(FIRMWARE)
        self.handoff_ns = self._last

    def checked(self) -> None:
        """The handoff has been checked."""
        self.mark(CHECK)

    def ended(self) -> None:
        """The run has ended, wherever."""
        self.mark(FIRMWARE if self.handoff_ns is None else GUEST)
        now = _faults()
        self.faults = Faults(now.minor - self._before.minor, now.major - self._before.major)
        self.peak = _peak()

    @property
    def to_handoff_ns(self) -> int | None:
        """From the start of the first phase to the handoff; None if it was not reached."""
        if self.handoff_ns is None:
            return None
        return sum(ns for phase, ns in self.phases.items() if phase not in (CHECK, GUEST))


def _faults() -> Faults:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Faults(used.ru_minflt, used.ru_majflt)


def _peak() -> int | None:
    """Not ru_maxrss, which begins with that of the process that has forked this one."""
    try:
        with open("/proc/self/status", "rb") as status:
            return next((int(line.split()[1]) << 10 for line in status if line.startswith(b"VmHWM:")), None)
    except OSError:
        return None


def process_start_ns() -> int:
    """When this process was made, of CLOCK_MONOTONIC.

    The kernel tells it in ticks of 10 ms. What has passed since is what the main thread has computed and waited for a CPU,
    both known to the nanosecond, and its waits for disks, which are not: the sum of the first two is held within that tick.
    """
    busy = time.process_time_ns()
    now = time.monotonic_ns()
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[_STAT_STARTTIME])
        with open("/proc/self/schedstat", "rb") as file:
            busy += int(file.read().split()[_SCHEDSTAT_WAITED])
    except (OSError, ValueError, IndexError):
        return now - busy
    tick = SECOND // os.sysconf("SC_CLK_TCK")
    at_most = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * tick
    return now - max(at_most - tick, min(busy, at_most))
