"""Where the marks of a kernel lie, and how far a timeline is to go."""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.firmware import MARKER_NAMES
from pvhboot.shim.errors import BootError

from .marks import (
    CONSOLE,
    EXIT,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    PROTECTED_MODE,
    START_KERNEL,
    UNKNOWN_MARKER,
    console_text,
)

_GOALS: Final = (HANDOFF, KERNEL_64, START_KERNEL, CONSOLE, INIT, EXIT, *MARKER_NAMES.values())
PLACED: Final = (PROTECTED_MODE, KERNEL_64, START_KERNEL)  # marks that lie at an address, other than plan and reset vector tell
# Words of Linux's command line that have it print on COM1 (Documentation/admin-guide/kernel-parameters.txt).
_ON_COM1: Final = ("console=ttyS0", "console=uart", "earlycon=uart", "earlyprintk=serial", "earlyprintk=ttyS0")


class KernelPlaces(NamedTuple):
    """Of KERNEL_64 and START_KERNEL the linear addresses, or why there is none; and of what else of PLACED was known."""

    addresses: Mapping[str, int]
    absent: Mapping[str, str]


def kernel_places(plan: BootPlan, known: Mapping[str, int] = {}) -> KernelPlaces:
    """What is known, of any of PLACED; else what the kernel's file tells. Its 64-bit entry is that of the ELF header, an
    address of the identity mapping; start_kernel is where it is linked, as nobody moves Linux's virtual addresses here."""
    addresses = dict(known)
    absent: dict[str, str] = {}
    kernel = plan.kernel
    linked = kernel.elf_entry
    if KERNEL_64 in known:
        pass
    elif not kernel.kind.endswith("ELF64"):
        absent[KERNEL_64] = f"none: the kernel is {kernel.kind}"
    elif linked == kernel.entry:
        absent[KERNEL_64] = "none: the ELF header's entry is that of the handoff"
    else:
        is_physical = kernel.segments[0].paddr <= linked < kernel.end
        addresses[KERNEL_64] = linked + (plan.moved_by if is_physical else 0)
    if START_KERNEL in known:
        return KernelPlaces(addresses, absent)
    try:
        start = kernel.symbol(START_KERNEL)
    except BootError as error:
        absent[START_KERNEL] = f"not looked for: {error}"
    else:
        if start is None:
            absent[START_KERNEL] = "not looked for: the kernel has no symbol of that name"
        else:
            addresses[START_KERNEL] = start.vaddr
    return KernelPlaces(addresses, absent)


def placed_from(texts: Iterable[str]) -> dict[str, int]:
    """The addresses of --place; BootError if one is none."""
    placed: dict[str, int] = {}
    for text in texts:
        name, _, address = text.partition("=")
        if name not in PLACED or not re.fullmatch(r"0x[0-9a-f]{1,16}", address, re.IGNORECASE):
            raise BootError(
                f"cannot read --place {text!r}: write start_kernel=0xffffffff81000000, or of {' or '.join(PLACED[:-1])}"
            )
        placed[name] = int(address, 16)
    return placed


def goal_from(text: str) -> str:
    """The name of the mark of --until; BootError if it names none."""
    if text not in _GOALS and not console_text(text) and not re.fullmatch(f"{UNKNOWN_MARKER}[0-9]+", text):
        raise BootError(f"cannot read --until {text!r}: write {', '.join(_GOALS)}, {UNKNOWN_MARKER}N or console:TEXT")
    return text


def require_possible(goal: str, places: KernelPlaces) -> None:
    """BootError for a goal to which no boot of the kernel can come. (To START_KERNEL one without symbols may, by a marker.)"""
    if goal == KERNEL_64 and goal in places.absent:
        raise BootError(f"--until {goal}: there is {places.absent[goal]}")


def furthest(plan: BootPlan, places: KernelPlaces) -> str:
    """The last mark that can be seen: init of a Linux that has an initrd and prints on COM1, else the first byte there, else
    what its symbols tell."""
    words = (plan.cmdline or b"").decode(errors="replace").split()
    if any(word.startswith(_ON_COM1) for word in words):
        return INIT if plan.modules else CONSOLE
    return next((name for name in (START_KERNEL, KERNEL_64) if name in places.addresses), HANDOFF)


def looked_for(goal: str) -> tuple[str, ...]:
    """The marks on the way to a goal; of a goal that is none of MARKS those up to the handoff, and itself."""
    if goal in MARKS:
        return MARKS[: MARKS.index(goal) + 1]
    return (*MARKS[: MARKS.index(HANDOFF) + 1], goal)
