"""Runs of conformance guests: planned on `bare`, with their memory changed behind a loader's back."""

import re

from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.image import asm_source
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob

CHECKS = re.findall(r"^\s+CHECK (\w+)$", asm_source("guest_data.s"), re.MULTILINE)  # the names of all, in their order
CPIO = b"070701" + b"0" * 104 + b"TRAILER!!!\0"
MEMORY = 64 * MIB


def plan_for(data, memory=MEMORY, **more):
    return make_plan(BARE, default_blob(BARE).data, Kernel.from_bytes(data, "guest"), memory=memory, cmdline="hi", **more)


def run_spoilt(plan, engine_name, spoil=None, at_handoff=None):
    """A run with the guest's memory changed after loading, or at its entry: what it left with, and its report."""
    memory = plan.memory()
    if spoil is not None:
        spoil(memory)
    board = Board(plan, memory)

    def on_handoff(handoff):
        if at_handoff is not None:
            at_handoff(handoff.memory, handoff.registers["ebx"])

    run = get_engine(engine_name).run(board, Until(EXIT), Limits(seconds=60), on_handoff)
    assert run.stop.reason == EXIT, run.stop
    return run.stop.value, bytes(board.console)


def write(memory, paddr, data):
    memory.view(paddr, len(data))[:] = data
