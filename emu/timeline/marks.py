"""The marks of a boot, whoever took them, and a timeline of them."""

from collections.abc import Mapping
from typing import Final, NamedTuple

VMM_START: Final = "vmm-start"  # the process that runs the VM is about to be made, or its VM
FIRST_INSTRUCTION: Final = "first-instruction"  # at the reset vector, is next
PROTECTED_MODE: Final = "protected-mode"  # the first instruction with CR0.PE set is next
HANDOFF: Final = "handoff"  # the first instruction of the kernel file, whichever of its entries, is next
KERNEL_64: Final = "kernel-64bit"  # the kernel proper at its 64-bit entry, the ELF header's; behind any decompressor
START_KERNEL: Final = "start_kernel"  # Linux's function of that name
CONSOLE: Final = "console"  # the first byte that COM1 gets behind the handoff
INIT: Final = "init"  # the first program of user space
EXIT: Final = "exit"  # the guest leaves by the debug-exit port: not one of MARKS, as few do
MARKS: Final = (VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF, KERNEL_64, START_KERNEL, CONSOLE, INIT)

NOT_REACHED: Final = "not reached"  # why a mark is absent that was looked for

UNKNOWN_MARKER: Final = "exit_point_"  # and a number: what was written to a marker port, if no tool has a name for it

CONSOLE_TEXT: Final = f"{CONSOLE}:"  # and a text: COM1 has printed it


def console_text(name: str) -> str:
    """The text that COM1 is to print, of a mark `console:TEXT`; empty of any other."""
    return name.removeprefix(CONSOLE_TEXT) if name.startswith(CONSOLE_TEXT) else ""


class Mark(NamedTuple):
    """A place that a boot came to: one of MARKS, EXIT, `console:TEXT`, or what a guest has told by a marker port; nanoseconds
    since the first mark. `place`: where the CPU was then, or what was printed, in words; empty: unknown."""

    name: str
    ns: int
    place: str = ""


class Timeline(NamedTuple):
    """One boot: `label` names it in a comparison. `marks` in the order of their time; what was not seen is missing. `counts`
    are guest instructions to the handoff, exits and the like: what does not depend on how busy the host is. `end`: how the run
    ended, in words. `absent`: of the marks that were looked for those that are missing, and why. `start_ns`: CLOCK_MONOTONIC
    at the first mark, which a process that has started this one can compare with its own; 0: unknown."""

    label: str
    engine: str
    marks: tuple[Mark, ...]
    counts: Mapping[str, int]
    end: str = ""
    absent: Mapping[str, str] = {}
    start_ns: int = 0

    def ns(self, name: str) -> int | None:
        """When a mark was reached, first; None if it was not."""
        return next((mark.ns for mark in self.marks if mark.name == name), None)
