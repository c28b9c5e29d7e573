"""Where the marks of a kernel lie, and how far a timeline is to go."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.firmware import MARKER_NAMES
from pvhboot.shim.errors import BootError

from ..com1 import prints_on_com1
from .marks import (
    CONSOLE,
    EXIT,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    NOT_REACHED,
    PROTECTED_MODE,
    START_KERNEL,
    UNKNOWN_MARKER,
    console_text,
)

_GOALS: Final = (HANDOFF, KERNEL_64, START_KERNEL, CONSOLE, INIT, EXIT, *MARKER_NAMES.values())
PLACED: Final = (PROTECTED_MODE, KERNEL_64, START_KERNEL)  # marks that lie at an address, other than plan and reset vector tell
SILENT: Final = "nothing on the command line prints to COM1: --append console=ttyS0"


class KernelPlaces(NamedTuple):
    """Of KERNEL_64 and START_KERNEL the linear addresses, or why there is none; and of what else of PLACED was known. CONSOLE
    and INIT are absent, with the reason, if a Linux is not told to print."""

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
    if START_KERNEL not in known:
        try:
            start = kernel.symbol(START_KERNEL)
        except BootError as error:
            absent[START_KERNEL] = f"not looked for: {error}"
        else:
            if start is None:
                absent[START_KERNEL] = "not looked for: the kernel has no symbol of that name"
            else:
                addresses[START_KERNEL] = start.vaddr
    if START_KERNEL in addresses and not prints_on_com1(plan.cmdline):  # another kernel needs no words to print
        absent |= dict.fromkeys((CONSOLE, INIT), f"{NOT_REACHED}: {SILENT}")
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


def warning(goal: str, places: KernelPlaces) -> str:
    """What is to be said of a goal to which a boot will hardly come; empty: nothing."""
    on_console = goal in (CONSOLE, INIT) or console_text(goal)
    return f"--until {goal} may never be reached: {SILENT}" if on_console and CONSOLE in places.absent else ""


def furthest(plan: BootPlan, places: KernelPlaces) -> str:
    """The last mark that can be seen: init of a Linux that has an initrd and prints on COM1, else the first byte there, else
    what its symbols tell."""
    if prints_on_com1(plan.cmdline):
        return INIT if plan.modules else CONSOLE
    return next((name for name in (START_KERNEL, KERNEL_64) if name in places.addresses), HANDOFF)


def looked_for(goal: str) -> tuple[str, ...]:
    """The marks on the way to a goal; of a goal that is none of MARKS those up to the handoff, and itself."""
    if goal in MARKS:
        return MARKS[: MARKS.index(goal) + 1]
    return (*MARKS[: MARKS.index(HANDOFF) + 1], goal)


def missing(goal: str, reached: Callable[[str], bool], absent: Mapping[str, str]) -> dict[str, str]:
    """Of what was looked for, all that was not reached, and why: as `absent` knows, unless the console has proved it wrong."""
    known = {name: why for name, why in absent.items() if name not in (CONSOLE, INIT) or not reached(CONSOLE)}
    return {
        name: known.get(CONSOLE if console_text(name) else name, NOT_REACHED) for name in looked_for(goal) if not reached(name)
    }
