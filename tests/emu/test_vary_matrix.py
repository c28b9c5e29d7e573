"""The faults of a host against pvhboot's own firmwares: none goes unnoticed but what is listed here, with the reason.

microvm and q35 here; PVHBOOT_NIGHTLY=1 makes it all.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from multiprocessing import get_context

import pytest
from pvhboot.emu.vary.candidates import host_faults
from pvhboot.emu.vary.faults import NEVER
from pvhboot.emu.vary.judging import SILENT
from pvhboot.emu.vary.matrix import vary
from pvhboot.emu.vary.setup import Setup
from pvhboot.emu.vary.trial import reference
from pvhboot.shim.machines import MACHINES, MIB
from pvhboot.shim.stock import default_blob, default_guest

pytestmark = pytest.mark.timeout(3600)
NIGHTLY = bool(os.environ.get("PVHBOOT_NIGHTLY"))
TOLD = ("microvm", "q35") if not NIGHTLY else ("microvm", "microvm-acpi", "pc", "q35")

_HANDED_ON = "the firmware hands it on, byte for byte, with the checksums that the host asks it for: it cannot know better"
_NOT_READ_BACK = "the firmware does not read back what it stores to the chipset: no host loses that"
_MOVED = "another size takes other room: what is there is whole, and said to be where it is"
# What may go unnoticed: what goes wrong, what the kernel sees of it (each of the effects matches one pattern), and why.
SILENCES = [
    ("fw_cfg's file etc/smbios/*", ("SMBIOS*",), _HANDED_ON),
    ("fw_cfg's file etc/acpi/tables has *", ("ACPI table *", "RSDP, *", "RSDT, *"), _HANDED_ON),
    (
        "fw_cfg's file etc/acpi/tables is said *",
        ("memory map*", "start_info.memmap_entries*", "ACPI table *", "RSDP, *", "[RX]SDT, *", "SMBIOS, *"),
        _MOVED,
    ),
    ("fw_cfg's file etc/acpi/rsdp *", ("RSDP, *", "SMBIOS, *"), _MOVED),
    ("access * at 0xcf[8c] (pci-*", ("device store*",), _NOT_READ_BACK),
    ("DMA transfer *", ("SMBIOS*",), _HANDED_ON),
    ("DMA transfer *", ("ACPI table *", "RSDP, *"), _HANDED_ON),
]


def explained(result):
    """Which of them it is; None: none."""
    said, effects = str(result.change), result.verdict.effects
    for number, (what, seen, _why) in enumerate(SILENCES):
        if fnmatchcase(said, what) and all(any(fnmatchcase(effect, one) for one in seen) for effect in effects):
            return number
    return None


@pytest.fixture(scope="module")
def results():
    """By machine. Of the transfers that never end one is enough: each is waited for alike, and that takes its time."""
    found = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        for name in TOLD:
            blob = default_blob(MACHINES[name])
            setup = Setup(name, blob.data, default_guest(64), 64 * MIB, cmdline="a line")
            with reference(setup) as unchanged:
                faults = host_faults(unchanged.watched, unchanged.items)
            faults = [fault for fault in faults if NIGHTLY or fault.how != NEVER or fault.number == 1]
            found[name] = vary(setup, faults, executor=executor)
    return found


@pytest.mark.parametrize("machine", TOLD)
def test_no_fault_is_silent_but_those_that_are_listed(results, machine):
    unexplained = [
        (str(result.change), result.verdict.effects)
        for result in results[machine]
        if result.verdict.word == SILENT and explained(result) is None
    ]
    assert not unexplained
    assert len({result.verdict.word for result in results[machine]}) >= 4
    assert len(results[machine]) > 80


def test_what_is_listed_happens(results):
    silent = [result for found in results.values() for result in found if result.verdict.word == SILENT]
    if not NIGHTLY:
        assert {explained(result) for result in silent} >= {0, 1, 2, 4, 5, 6}
    else:
        assert {explained(result) for result in silent} == set(range(len(SILENCES)))
