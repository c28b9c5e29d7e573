"""The pages of `report` that tests look at in a browser, and what they are made of."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from plain import QBOOT
from pvhboot.emu.inputs import read_firmware
from pvhboot.emu.page.render import render
from pvhboot.shim.machines import BARE, MICROVM, Q35
from reports import Report, report

HALT = b"\xf4"  # hlt
_ROM = 64 << 10  # bytes


def _qboot() -> Report:
    if not QBOOT.is_file():
        pytest.skip(f"no {QBOOT}: Debian's package qemu-system-data has it")
    return report(MICROVM, blob=read_firmware(str(QBOOT)))


def _broken() -> Report:
    with TemporaryDirectory() as directory:
        rom = Path(directory) / "halt.bin"
        rom.write_bytes(HALT * _ROM)
        return report(MICROVM, blob=read_firmware(str(rom)))


_MADE: Mapping[str, Callable[[], Report]] = {
    "bare": lambda: report(BARE, until="exit"),
    "microvm": lambda: report(MICROVM),
    "q35": lambda: report(Q35),
    "qboot": _qboot,
    "broken": _broken,
}
NAMES = tuple(_MADE)
HANDED_OVER = tuple(name for name in NAMES if name != "broken")


@cache
def made(name: str) -> Report:
    """What a page is made of: bare with what follows the handoff, microvm, q35, qboot (foreign), broken (never gets to the
    kernel). Skips where there is no qboot."""
    return _MADE[name]()


@cache
def page_bytes(name: str) -> bytes:
    """The page."""
    return render(made(name).data)
