"""Whether a guest of a kind could live in a file: what Linux and FreeBSD need of where they lie, after a right PVH handoff.

Sources: Linux arch/x86/platform/pvh/head.S (pvh_start_xen) and enlighten.c; FreeBSD sys/amd64/amd64/xen-locore.S (xen_start32)
and sys/x86/xen/pv.c (hammer_time_xen). What the handoff itself must hold is checked at the boot, not here.
"""

from dataclasses import dataclass
from typing import Final

from pvhboot.shim.abi.paging import LARGE_PAGE
from pvhboot.shim.abi.pvh import BOOT_STRUCTURES_END
from pvhboot.shim.abi.x86 import PAGE_SIZE

from ..facts import Facts
from ..ranges import align_up
from .base import ACCEPTS, PVH, Model, Rule, Ruling, Verdict, refuses


@dataclass(frozen=True)
class _Case:
    """What was proven of the kernel, or why nothing could be."""

    facts: Facts | None
    why: str

    @property
    def known(self) -> Facts:
        assert self.facts is not None
        return self.facts

    @property
    def end(self) -> int:
        return self.known.segments[-1].end


def _loadable(case: _Case) -> Ruling | None:
    return refuses(case.why) if case.facts is None else None


def _below(case: _Case) -> Ruling | None:
    if case.end <= BOOT_STRUCTURES_END:
        return None
    return refuses(f"the kernel with its bss reaches to {case.end:#x}: its first page tables map 1 GiB")


def _room(case: _Case) -> Ruling | None:
    if align_up(case.end, PAGE_SIZE) + PAGE_SIZE <= BOOT_STRUCTURES_END:
        return None
    return refuses(f"the kernel reaches to {case.end:#x}: its first page tables come behind it, and must lie below 1 GiB")


def _aligned(case: _Case) -> Ruling | None:
    first = case.known.segments[0].paddr
    if case.known.bits == 32 or not first % LARGE_PAGE:
        return None
    return refuses(f"the kernel begins at {first:#x}: a 64-bit Linux maps itself in pages of 2 MiB")


def _amd64(case: _Case) -> Ruling | None:
    return refuses("an ELF32: FreeBSD has a PVH entry on amd64 only") if case.known.bits == 32 else None


def _accepted(case: _Case) -> Ruling:
    facts = case.known
    reason = f"all of it, to {case.end:#x}, lies where its first page tables reach"
    return Ruling(ACCEPTS, reason, PVH, facts.entry)


_LOADABLE: Final = "it must be loadable and have a PVH entry"

LINUX: Final = Model(
    "linux",
    "as a Linux guest",
    (
        Rule(_LOADABLE, "Linux arch/x86/platform/pvh/head.S: pvh_start_xen", _loadable),
        Rule("the kernel with its bss must lie below 1 GiB", "Linux arch/x86/platform/pvh/head.S: pvh_start_xen", _below),
        Rule("its start must be at a multiple of 2 MiB", "Linux arch/x86/Kconfig: PHYSICAL_ALIGN", _aligned),
        Rule("the kernel with its bss must lie below 1 GiB", "Linux arch/x86/platform/pvh/head.S: pvh_start_xen", _accepted),
    ),
)
FREEBSD: Final = Model(
    "freebsd",
    "as a FreeBSD guest",
    (
        Rule(_LOADABLE, "FreeBSD sys/amd64/amd64/xen-locore.S: xen_start32", _loadable),
        Rule("it must be an ELF64", "FreeBSD sys/amd64/amd64/xen-locore.S: xen_start32", _amd64),
        Rule("the kernel with its bss must lie below 1 GiB", "FreeBSD sys/amd64/amd64/xen-locore.S: xen_start32", _below),
        Rule("a free page must follow it below 1 GiB", "FreeBSD sys/x86/xen/pv.c: hammer_time_xen", _room),
        Rule("the kernel and a free page behind it below 1 GiB", "FreeBSD sys/x86/xen/pv.c: hammer_time_xen", _accepted),
    ),
)


def judge_guests(facts: Facts | None, why: str) -> list[Verdict]:
    """Linux and FreeBSD; `why` there are no facts."""
    return [model.judge(_Case(facts, why)) for model in (LINUX, FREEBSD)]
