"""What to look out for in a boot, found before it is timed."""

from collections.abc import Mapping
from typing import NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi.x86 import RESET_VECTOR
from pvhboot.shim.errors import BootError

from ..bus import KINDS
from ..engines.base import Limits
from ..places import Places
from .dry_run import LIMITS, dry_run
from .goal import KernelPlaces
from .marks import FIRST_INSTRUCTION, HANDOFF, PROTECTED_MODE


class Lookout(NamedTuple):
    """The linear addresses of marks, by their names; why one that may be missed has none; of Timeline.counts those that are
    known ahead: bytes of the ROM, and, if the dry run came to the handoff, instructions and accesses to devices up to there."""

    addresses: Mapping[str, int]
    absent: Mapping[str, str]
    counts: Mapping[str, int]


def place_text(places: Places, address: int) -> str:
    """A linear address, and what is there, as far as that is known."""
    try:
        place = places.locate(address)
    except BootError:  # the kernel's symbol table is broken
        place = None
    return f"{address:#x}" + (f" {place}" if place else "")


def device_accesses(counts: Mapping[str, int]) -> int:
    """How many of all kinds there are among Cpu.counts."""
    return sum(counts.get(kind, 0) for kind in KINDS)


def look_out(
    plan: BootPlan,
    kernel: KernelPlaces,
    recording: Recording | None = None,
    *,
    interrupts: bool = False,
    limits: Limits = LIMITS,
) -> Lookout:
    """Makes a dry run of the firmware, as dry_run has it, unless its protected mode is among the kernel's places."""
    addresses = {FIRST_INSTRUCTION: RESET_VECTOR, HANDOFF: plan.entry, **kernel.addresses}
    absent = dict(kernel.absent)
    if PROTECTED_MODE in addresses:
        return Lookout(addresses, absent, {"rom_bytes": len(plan.rom)})
    rehearsal = dry_run(plan, recording, interrupts=interrupts, limits=limits)
    if rehearsal.protected_mode is None:
        absent[PROTECTED_MODE] = "not looked for: a dry run of this firmware never came there"
    else:
        addresses[PROTECTED_MODE] = rehearsal.protected_mode
    counts = {"rom_bytes": len(plan.rom)}
    if rehearsal.counts:
        counts |= {"instructions": rehearsal.counts["instructions"], "device_accesses": device_accesses(rehearsal.counts)}
    return Lookout(addresses, absent, counts)
