"""Modules: what a boot loads beside the kernel, and where."""

from collections.abc import Sequence
from typing import NamedTuple

from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MAX_MODULES, Span

from .payload import Payload
from .sizes import show_size


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


def check_modules(modules: Sequence[Module], source: str) -> None:
    """BootError if a firmware that learns from `source` (PARAMS or FW_CFG) cannot be told of these modules."""
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


def place_modules(modules: Sequence[Module], taken: Sequence[Span], ram: Span, memory: int) -> tuple[PlannedModule, ...]:
    """From the top of low RAM downwards, each at the highest page that is free: where Linux likes its initrd.

    `memory` is all RAM in bytes, for the message. Raises BootError for what cannot be read, or does not fit.
    """
    busy = sorted(taken, key=lambda span: span.bounds)
    planned: list[PlannedModule] = []
    for module in modules:
        payload = Payload(module.path)
        paddr = (ram.end - payload.size) & ~(PAGE_SIZE - 1)
        for span in sorted(busy, key=lambda span: span.bounds, reverse=True):
            if paddr < span.end and span.start < paddr + payload.size:
                paddr = (span.start - payload.size) & ~(PAGE_SIZE - 1)
        if paddr <= 0:
            raise BootError(
                f"{module.path}: no room for its {payload.size} bytes beside the kernel in {show_size(memory)} of memory"
                + (": give more with --memory" if memory == ram.end else f", of which {show_size(ram.end)} lie below 4 GiB")
            )
        line = None if module.cmdline is None else encode_cmdline(module.cmdline, f"the command line of {module.path}")
        planned.append(PlannedModule(payload, paddr, line))
        busy.append(planned[-1].span)
    return tuple(planned)


def encode_cmdline(text: str, whose: str) -> bytes:
    """The bytes of a command line, without terminator; BootError, which says `whose`, if a NUL is in it."""
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise BootError(f"{whose} contains a NUL character: that would end it")
    return data
