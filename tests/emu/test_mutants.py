"""Every broken firmware is caught on every engine, with the right clause, or the right instruction, named."""

import pytest
from mutants import ENTRY, MUTANTS, Mutant
from plans import DirtyPlan, RefusedOnce
from pvhboot.emu.check import VIOLATED
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import FAULT, HALT, HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.firmware import PANICS
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, GIB, MACHINES, MIB, MICROVM


def kernel_image() -> bytes:
    """A kernel of a few bytes at ENTRY: it is never executed."""
    code = ElfSegment(PT_LOAD, ENTRY, b"\xf4" * 16, 64, PF_R | PF_W | PF_X, 4)
    entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, ENTRY.to_bytes(4, "little"))
    return write_elf(32, ENTRY, (code, ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4)), {})


@pytest.fixture
def outcome_of(tmp_path, engine_name):
    """Boots a mutant: with 64 MiB on bare; elsewhere with an initrd, and with 5 GiB, so that the map has to be sorted."""
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"module")

    def outcome(mutant):
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
            return boot(plan, blob, get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0))

    return outcome


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize("dirty", [True, False], ids=["dirty", "zeroed"])
@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_the_unmutated_firmware_is_clean(outcome_of, spec, dma, dirty):
    assert outcome_of(Mutant("none", "", "", "", machine=spec, dma=dma, dirty=dirty)).ok


def test_the_unmutated_firmware_stops_at_a_refusal(outcome_of):
    assert outcome_of(Mutant("none", "", "", "", machine=MICROVM, refused=True)).post_codes == (0xEB,)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.machine.name}-{mutant.name}")
def test_mutant_is_caught(mutant, outcome_of):
    outcome = outcome_of(mutant)
    assert not outcome.ok
    if mutant.panic:
        assert outcome.run.stop.reason == HALT
        assert outcome.post_codes == tuple(panic.code for panic in PANICS if panic.name == mutant.panic)
        return
    if mutant.fault:
        assert outcome.run.stop.reason == FAULT
        place = outcome.blob.locate(outcome.run.stop.rip)
        assert place is not None
        assert place.symbol == mutant.fault
        return
    violated = tuple(finding.clause for finding in outcome.findings if finding.status == VIOLATED)
    assert violated == mutant.clauses
    assert all(finding.detail for finding in outcome.findings if finding.status == VIOLATED)
