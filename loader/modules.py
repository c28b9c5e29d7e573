"""Modules: what a boot loads beside the kernel, and where."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.pvh import BOOT_STRUCTURES_END
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MAX_MODULES, Span

from .payload import Payload
from .ranges import align_up
from .sizes import show_size

LINUX: Final = "linux"
FREEBSD: Final = "freebsd"
GUESTS: Final = (LINUX, FREEBSD)  # by whose rules modules are placed


class Module(NamedTuple):
    """A module to load: its file and its command line (None: it has none)."""

    path: str
    cmdline: str | None = None


class PlannedModule(NamedTuple):
    """A module with its place (physical address, page-aligned) and the bytes of its command line, without terminator."""

    payload: Payload
    paddr: int
    cmdline: bytes | None

    @property
    def span(self) -> Span:
        """Where its bytes lie."""
        return Span(f"module {self.payload.path}", self.paddr, self.paddr + self.payload.size)


def check_modules(modules: Sequence[Module], source: str, guest: str) -> None:
    """BootError if a firmware that learns from `source` (PARAMS or FW_CFG) cannot be told of these modules, or not as `guest`
    wants them."""
    if modules and source == FW_CFG and guest == FREEBSD:
        raise BootError("fw_cfg has one initrd without a command line, which is no module for FreeBSD: use --machine bare")
    most = MAX_MODULES[source]
    if len(modules) > most:
        more = ": fw_cfg has the initrd and no other" if source == FW_CFG else ""
        raise BootError(f"{len(modules)} modules: at most {most} {'is' if most == 1 else 'are'} possible{more}")
    if source == FW_CFG and any(module.cmdline is not None for module in modules):
        raise BootError("a module with a command line: fw_cfg has none for its initrd")


def place_initrd(modules: Sequence[Module], ram: Span, reserve: int) -> tuple[PlannedModule, ...]:
    """Where QEMU puts it (hw/i386/x86.c): as high in low RAM, without its last `reserve` bytes, as a whole page and one more
    byte allow, whatever lies there.

    Raises BootError for what cannot be read, or does not fit.
    """
    planned = []
    for module in modules:
        payload = Payload(module.path)
        paddr = (ram.end - reserve - 1 - payload.size) & ~(PAGE_SIZE - 1)
        if paddr <= 0:
            raise BootError(
                f"{module.path}: {payload.size} bytes do not fit into RAM below {ram.end:#x}: give more with --memory"
            )
        planned.append(PlannedModule(payload, paddr, None))
    return tuple(planned)


def place_modules(modules: Sequence[Module], free: Sequence[Span], ram: Span, memory: int) -> tuple[PlannedModule, ...]:
    """From the top of low RAM downwards, each at the highest page that is free: where Linux likes its initrd.

    `free` are the spans of the low RAM `ram` that nothing else needs, sorted; `memory` is all RAM in bytes, for the message.
    Raises BootError for what cannot be read, or does not fit.
    """
    left = [span for span in free if span.size >= PAGE_SIZE]
    planned: list[PlannedModule] = []
    for module in modules:
        payload = Payload(module.path)
        for number in reversed(range(len(left))):
            span = left[number]
            paddr = (span.end - payload.size) & ~(PAGE_SIZE - 1)
            if paddr >= max(span.start, PAGE_SIZE):
                left[number] = span._replace(end=paddr)
                break
        else:
            raise _no_room(payload, "beside the kernel", ram, memory)
        planned.append(PlannedModule(payload, paddr, _cmdline(module)))
    return tuple(planned)


def place_modules_behind(
    modules: Sequence[Module], kernel_end: int, free: Sequence[Span], ram: Span, memory: int
) -> tuple[PlannedModule, ...]:
    """As FreeBSD wants them: upwards from the kernel's end, page after page, each with a command line, and behind the last at
    least a page of RAM, all below 1 GiB. Without modules too the kernel needs that page.

    Parameters and errors as of place_modules; BootError too for a module without a command line: FreeBSD compares it as a
    string, and a missing one is the null pointer.
    """
    at = align_up(kernel_end, PAGE_SIZE)
    room = next((span.end for span in free if span.start <= at < span.end), at)
    room = min(room, BOOT_STRUCTURES_END)
    planned: list[PlannedModule] = []
    for module in modules:
        if module.cmdline is None:
            raise BootError(
                f"{module.path}: a module without a command line, as Linux's initrd is: FreeBSD compares command lines, and "
                "takes the first module for its loader's metadata: give --module FILE,CMDLINE"
            )
        payload = Payload(module.path)
        planned.append(PlannedModule(payload, at, _cmdline(module)))
        at = align_up(at + payload.size, PAGE_SIZE)
        if at + PAGE_SIZE > room:
            raise _no_room(payload, f"directly behind the kernel, with a free page after it and below {room:#x},", ram, memory)
    if at + PAGE_SIZE > room:
        raise BootError(f"no free page directly behind the kernel, at {at:#x}: FreeBSD takes its first memory there")
    return tuple(planned)


def _no_room(payload: Payload, where: str, ram: Span, memory: int) -> BootError:
    return BootError(
        f"{payload.path}: no room for its {payload.size} bytes {where} in {show_size(memory)} of memory"
        + (": give more with --memory" if memory == ram.end else f", of which {show_size(ram.end)} lie below 4 GiB")
    )


def _cmdline(module: Module) -> bytes | None:
    return None if module.cmdline is None else encode_cmdline(module.cmdline, f"the command line of {module.path}")


def encode_cmdline(text: str, whose: str) -> bytes:
    """The bytes of a command line, without terminator; BootError, which says `whose`, if a NUL is in it, or what is no
    character."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise BootError(f"{whose} contains {text[error.start]!r}, which is no character") from None
    if b"\0" in data:
        raise BootError(f"{whose} contains a NUL character: that would end it")
    return data
