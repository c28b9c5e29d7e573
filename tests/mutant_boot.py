"""Boots of the broken firmwares of the lab, on the machine that each is for."""

from pathlib import Path
from typing import NamedTuple

import tiny
from plans import DirtyPlan, RefusedOnce
from pvhboot.emu.board import Board
from pvhboot.emu.diagnosis import Diagnosis, diagnose
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.lab.mutant import Mutant
from pvhboot.emu.lab.mutants import ENTRY
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, GIB, MIB

_LIMITS = Limits(seconds=20.0)


class MutantBoot(NamedTuple):
    outcome: Outcome
    diagnosis: Diagnosis


def kernel_image() -> bytes:
    """A kernel of a few bytes at ENTRY: it is never executed."""
    return tiny.kernel_image(paddr=ENTRY, memsz=64)


def boot_mutant(
    mutant: Mutant, engine_name: str, directory: Path, limits: Limits = _LIMITS, *, diagnosed: bool = False
) -> MutantBoot:
    """With 64 MiB on bare; elsewhere with an initrd, put into `directory`, and with 5 GiB, so that the map must be sorted."""
    initrd = directory / "initrd"
    initrd.write_bytes(b"module")
    spec, has_fw_cfg = mutant.machine, mutant.machine is not BARE
    blob = build(spec, sources=mutant.sources() if mutant.file else None)
    modules = [Module(str(initrd))] if has_fw_cfg else []
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        memory = 5 * GIB if has_fw_cfg else 64 * MIB
        plan = make_plan(spec, blob.data, kernel, memory=memory, modules=modules, cmdline="hello", dma=mutant.dma)
        if mutant.refused:
            plan = plan._replace(modules=(plan.modules[0]._replace(payload=RefusedOnce(str(initrd))),))
        if mutant.dirty:
            plan = DirtyPlan.of(plan)
        engine, until = get_engine(engine_name), Until(HANDOFF)
        outcome = boot(plan, blob, engine, until, limits)
        again = diagnosed and not outcome.ok
        return MutantBoot(outcome, diagnose(outcome, engine, until, limits, Board(plan) if again else None))
