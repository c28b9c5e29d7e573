"""The mutants of pvhboot's own firmwares: what the scenarios of the tests do not notice is listed in tests/survivors.py, with
the reason, and nothing else.

All mutants of bare, and a sample of microvm's; PVHBOOT_NIGHTLY=1 makes it all of both.
"""

import os

import pytest
from mutation import score
from survivors import SURVIVORS

NIGHTLY = bool(os.environ.get("PVHBOOT_NIGHTLY"))
SAMPLES = {"bare": None, "microvm": None if NIGHTLY else 80}
LEAST = 0.95  # of all mutants are noticed


@pytest.fixture(scope="module", params=SAMPLES)
def scored(request):
    return request.param, score(request.param, sample=SAMPLES[request.param], seed=1)


def listed(machine, name):
    """The entries that name a mutant."""
    return [
        entry
        for entry in SURVIVORS
        if machine in entry.firmwares and (entry.label, entry.text) == name[:2] and name.change in entry.changes
    ]


@pytest.mark.timeout(3600)
def test_who_survives_is_listed(scored):
    machine, found = scored
    unlisted = [found.names[mutation] for mutation in found.survivors if not listed(machine, found.names[mutation])]
    assert not unlisted


def test_who_is_listed_survives(scored):
    machine, found = scored
    noticed = [
        (found.names[mutation], by) for mutation, by in found.noticed.items() if by and listed(machine, found.names[mutation])
    ]
    assert not noticed


def test_each_entry_names_a_mutant(scored):
    machine, found = scored
    names = set(found.names.values())
    wanted = {(entry, change) for entry in SURVIVORS if machine in entry.firmwares for change in entry.changes}
    assert not {(entry, change) for entry, change in wanted if (entry.label, entry.text, change) not in names}


def test_the_score(scored):
    machine, found = scored
    noticed = sum(by is not None for by in found.noticed.values())
    assert noticed >= (LEAST if SAMPLES[machine] is None else 0.9) * len(found.noticed)


def test_no_reason_is_missing():
    assert all(entry.why for entry in SURVIVORS)
