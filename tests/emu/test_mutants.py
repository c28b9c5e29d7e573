"""Every broken firmware is caught on every engine, with the right clause, or the right instruction, named."""

import pytest
from mutant_boot import boot_mutant
from pvhboot.emu.check import VIOLATED
from pvhboot.emu.lab.mutant import Mutant
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.emu.reasons import FAULT, HALT
from pvhboot.shim.abi.firmware import PANICS
from pvhboot.shim.machines import MACHINES, MICROVM


@pytest.fixture
def outcome_of(tmp_path, engine_name):
    """Boots a mutant."""
    return lambda mutant: boot_mutant(mutant, engine_name, tmp_path).outcome


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
