"""Hosts that say anything: a named panic or a right boot each time, no write outside of what the firmware may touch, an end.

500 of them here; PVHBOOT_NIGHTLY=1 makes it 10,000. Seeded; but hypothesis also draws constants of the modules that are loaded,
so that the whole suite has others than this file alone.
"""

import os
from collections import Counter

import pytest
from hostile import KERNEL, KERNEL_BYTES, Host, Judge, hosts, impatient_roms
from hypothesis import HealthCheck, Phase, given, seed, settings
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.x86 import HLT
from tiny import kernel_image

CASES = 10_000 if os.environ.get("PVHBOOT_NIGHTLY") else 500


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    kernel, initrd = folder / "kernel", folder / "initrd"
    kernel.write_bytes(kernel_image(HLT.ljust(KERNEL_BYTES, b"\x90"), KERNEL, bits=64))
    initrd.write_bytes(b"initrd" * 100)
    with Kernel.open(str(kernel)) as opened:
        yield Judge(opened, str(initrd), impatient_roms())


@pytest.mark.timeout(3600)
def test_any_host(judge):
    ends = Counter()

    @seed(20260)
    # Not made smaller when one fails: each takes tens of milliseconds, and it is readable as it is.
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    @given(hosts())
    def each(host):
        ends[judge.require(host)] += 1

    each()
    # The hosts reach everything that there is: else the strategy has gone stale.
    assert ends["boot"] > CASES // 20
    assert ends["linux"] > CASES // 100
    assert len(ends) > 12, ends


def test_an_honest_host_boots(judge):
    for machine in ("microvm", "microvm-acpi", "pc", "q35"):
        for universal in (False, True):
            for dma in (False, True):
                honest = Host(machine, universal, dma, "pvh", {}, {}, {}, {}, {}, 0, None, "", 0)
                assert judge.require(honest) == "boot"
