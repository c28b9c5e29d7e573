"""The firmwares that a bench compares, where this host has them."""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from pvhboot.loader.limits import check_firmware
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import ROM_MAX, UNIVERSAL, MachineSpec
from pvhboot.shim.stock import default_blob

from ..engines.qemu.process import output_of

OURS: Final = "pvhboot"
QBOOT: Final = "qboot"
SEABIOS: Final = "SeaBIOS"


class Firmware(NamedTuple):
    """A ROM in a file; without one, `path` is None and `reason` says why."""

    name: str
    path: str | None
    rom: bytes
    reason: str = ""


def ours(directory: str) -> Firmware:
    """Our own one for any of QEMU's machines, written into the directory."""
    rom = default_blob(UNIVERSAL).data
    path = os.path.join(directory, f"{UNIVERSAL.name}.bin")
    with open(path, "wb") as file:
        file.write(rom)
    return Firmware(OURS, path, rom)


def qboot(given: str | None, program: str | None) -> Firmware:
    """The file that was named, or the one that QEMU has; `program` is its path, None without. BootError for what is no ROM."""
    return _named(QBOOT, given) if given is not None else _found(QBOOT, "qboot.rom", b"", program)


def seabios(given: str | None, program: str | None, spec: MachineSpec) -> Firmware:
    """As `qboot`. The one for microvm may lie beside another firmware of the same name."""
    name = "bios-microvm.bin" if spec.chipset is None else "bios-256k.bin"
    return _named(SEABIOS, given) if given is not None else _found(SEABIOS, name, SEABIOS.encode(), program)


def _named(name: str, path: str) -> Firmware:
    rom = read_file(path, "firmware", ROM_MAX)
    check_firmware(rom, f"{path}: ")
    return Firmware(name, path, rom)


def _found(name: str, file: str, words: bytes, program: str | None) -> Firmware:
    """The first of that file name that has these words in it."""
    for directory in _data_directories(program) if program is not None else ():
        try:
            firmware = _named(name, os.path.join(directory, file))
        except BootError:
            continue
        if words in firmware.rom:
            return firmware
    return Firmware(name, None, b"", f"QEMU has no {file} of {name}'s: name one with --{name.lower()}")


def _data_directories(program: str) -> Iterator[str]:
    """Where QEMU looks for its ROMs (`-L help`)."""
    try:
        said = output_of(program, "-L", "help")
    except BootError:
        return
    yield from (os.path.normpath(os.fsdecode(line)) for line in said.splitlines())
