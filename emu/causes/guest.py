"""Rules on a guest behind a clean handoff, by what it has said, and what it was told."""

from typing import Final

from pvhboot.shim.abi.elf import LINUX_NOTE_NAME

from ..com1 import prints_on_com1, shown_line
from ..reasons import CONSOLE
from .scene import Cause, Scene

_PANIC: Final = b"Kernel panic - not syncing"  # Linux kernel/panic.c
_IN_FRONT: Final = 2  # lines
# What a panic of Linux says (init/do_mounts.c, init/main.c), and what to do about it.
_REMEDIES: Final = {
    b"Unable to mount root fs": "give it an initrd with an /init that it can execute: --initrd",
    b"No working init found": "put an executable /init into the initrd, or name one: --append rdinit=/bin/sh",
    b"Attempted to kill init": "init has ended: look at what it printed, or have it reboot in place of leaving",
}


def kernel_panic(scene: Scene) -> Cause | None:
    """Linux has panicked, and says why."""
    lines = scene.console.splitlines()
    at = next((at for at, line in enumerate(lines) if _PANIC in line), None)
    if at is None:
        return None
    # In front of it may stand a time, and a level.
    line = lines[at]
    said = shown_line(line[line.index(_PANIC) :])
    return Cause(
        f"Linux panicked: {said}",
        "The kernel has given up, and says so on COM1. With panic=-1 it then resets the machine, else it stays there.",
        tuple(shown_line(line) for line in lines[max(0, at - _IN_FRONT) : at + 1] if line.strip()),
        next(
            (remedy for words, remedy in _REMEDIES.items() if words in line), "look at the lines in front of it on the console"
        ),
    )


def silent_console(scene: Scene) -> Cause | None:
    """A text on COM1 is waited for, or a Linux is, that nobody has told to print there."""
    if scene.in_firmware or scene.console or scene.until is None or scene.until.kind != CONSOLE:
        return None
    is_linux = any(note.name == LINUX_NOTE_NAME for note in scene.plan.kernel.notes)
    if not is_linux or prints_on_com1(scene.plan.cmdline):
        return None
    line = scene.plan.cmdline
    return Cause(
        "nothing on the command line has the kernel print on COM1",
        "The run waits for a text on COM1, and Linux prints there only if it is told to.",
        ("there is no command line" if not line else f"the command line: {shown_line(line)}",),
        "--append console=ttyS0 (with earlyprintk=ttyS0 it prints earlier)",
    )


RULES: Final = (kernel_panic, silent_console)
