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
MARKS: Final = (VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF, KERNEL_64, START_KERNEL, CONSOLE, INIT)


class Mark(NamedTuple):
    """A place that a boot came to: one of MARKS, or what a guest has told by a marker port; nanoseconds since the first."""

    name: str
    ns: int


class Timeline(NamedTuple):
    """One boot: `label` names it in a comparison. `marks` in the order of their time; what was not seen is missing. `counts`
    are guest instructions to the handoff, exits and the like: what does not depend on how busy the host is."""

    label: str
    engine: str
    marks: tuple[Mark, ...]
    counts: Mapping[str, int]

    def ns(self, name: str) -> int | None:
        """When a mark was reached, first; None if it was not."""
        return next((mark.ns for mark in self.marks if mark.name == name), None)
