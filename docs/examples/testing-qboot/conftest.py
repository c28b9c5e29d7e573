"""The firmware under test, and a machine that all tests of a module share."""

import os
from pathlib import Path

import pytest

QBOOT = Path(os.environ.get("QBOOT", "/usr/share/qemu/qboot.rom"))


@pytest.fixture(scope="session")
def qboot():
    """Debian's qboot (the package qemu-system-x86), or the ROM that QBOOT names."""
    if not QBOOT.is_file():
        pytest.skip(f"{QBOOT} is not there")
    return QBOOT


@pytest.fixture(scope="module")
def booted(pvh_module, qboot):
    """A machine that stands at the kernel's entry: a test works on it within `booted.checkpoint()`."""
    machine = pvh_module(firmware=qboot, machine="microvm", memory="64M", append="quiet")
    machine.run_until_handoff()
    return machine
