"""Boots that are sanitized, of the firmware as it is and of broken ones."""

from collections.abc import Sequence
from pathlib import Path

from pvhboot.emu.engines.base import Limits, Until, Watcher
from pvhboot.emu.lab.mutant import Mutant
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.sanitizer import Sanitizer, Trespass
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import build
from pvhboot.shim.machines import MIB, MachineSpec, Span
from pvhboot.shim.stock import default_guest

KERNEL = 0x100000  # where the conformance guest is linked and entered
FREE = 0x50000  # nobody's on bare and microvm, below the kernel
BEHIND = 0x300000  # nobody's, behind it
RESERVED = Span("reserved", 0x2000000, 0x2001000)
INITRD = Path(__file__)  # any file will do
EBX = "    mov ebx, START_INFO_PADDR\n"  # of handoff.s: all is done then
INITRD_DATA = "    mov eax, FW_CFG_READ_INITRD_DATA\n"
LOAD_INITRD = "    mov edi, eax\n" + INITRD_DATA  # of fw_cfg_kernel.s, with its place in eax


def sanitize(
    spec: MachineSpec,
    blob: Blob,
    *,
    memory: int = 64 * MIB,
    dma: bool = True,
    until: str = HANDOFF,
    reserved: tuple[Span, ...] = (),
    has_initrd: bool = True,
    instructions: int = 400_000,
    watchers: Sequence[Watcher] = (),
) -> tuple[tuple[Trespass, ...], Outcome]:
    """What is found in a boot of the conformance guest, and what came of it."""
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        modules = [Module(str(INITRD))] if has_initrd else []
        plan = make_plan(spec, blob.data, kernel, memory=memory, modules=modules, cmdline="hello", dma=dma, reserved=reserved)
        sanitizer = Sanitizer(plan, blob)
        limits = Limits(instructions=instructions)
        outcome = boot(plan, blob, get_engine("unicorn"), Until(until), limits, watchers=[sanitizer, *watchers])
    return sanitizer.findings, outcome


def mutated(machine: MachineSpec, file: str, old: str, new: str) -> Blob:
    """A firmware with a piece of one of its files replaced."""
    return build(machine, sources=Mutant("", file, old, new).sources())


def foreign(blob: Blob) -> Blob:
    """The same ROM, of which nothing is known."""
    return Blob(blob.data, {}, (), {})
