"""Every broken firmware is caught on every engine, with the right clause, or the right instruction, named."""

import pytest
from mutants import ENTRY, MUTANTS, Mutant
from pvhboot.emu.check import VIOLATED
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import FAULT, HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh
from pvhboot.shim.elfwriter import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ElfSegment, note, write_elf
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, MIB


def kernel_image() -> bytes:
    """A kernel of a few bytes at ENTRY: it is never executed."""
    code = ElfSegment(PT_LOAD, ENTRY, b"\xf4" * 16, 64, PF_R | PF_W | PF_X, 4)
    entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, ENTRY.to_bytes(4, "little"))
    return write_elf(32, ENTRY, (code, ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4)), {})


def outcome_of(mutant: Mutant | None, engine: str):
    blob = build(BARE, sources=mutant.sources() if mutant else None)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB, cmdline="hello")
        return boot(plan, blob, get_engine(engine), Until(HANDOFF), Limits(seconds=20.0))


def test_the_unmutated_firmware_is_clean(engine_name):
    assert outcome_of(None, engine_name).ok


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, engine_name):
    outcome = outcome_of(mutant, engine_name)
    assert not outcome.ok
    if mutant.fault:
        assert outcome.run.stop.reason == FAULT
        place = outcome.blob.locate(outcome.run.stop.rip)
        assert place is not None
        assert place.symbol == mutant.fault
        return
    violated = tuple(finding.clause for finding in outcome.findings if finding.status == VIOLATED)
    assert violated == mutant.clauses
    assert all(finding.detail for finding in outcome.findings if finding.status == VIOLATED)
