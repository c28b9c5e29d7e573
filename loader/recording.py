"""What a QEMU machine tells its firmware: fw_cfg files and items, and its PCI functions, as `pvhboot record` has written them.

A recording is JSON. Bytes are in hexadecimal, 32 to a line, without the zeros at their end. The plan's own items (kernel,
initrd, command line, memory size) and etc/e820 are not in it. loader/recordings/ has one for each machine that has fw_cfg, of
QEMU 7.2 with 512 MiB and one CPU.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.fw_cfg import FW_CFG_MAX_FILE_PATH, FW_CFG_MAX_FILES
from pvhboot.shim.abi.pci import PCI_CONFIG_SIZE, PCI_FUNCTIONS, PCI_SLOTS
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import MACHINES, MIB, MachineSpec

from .fields import field, number
from .sizes import PADDR_END

VERSION: Final = 1  # of the format
RECORDING_MAX: Final = 16 * MIB  # bytes of the JSON, and of each file in it
_LINE: Final = 32  # bytes
_KEY_MAX: Final = 0xFFFF


class RecordedFile(NamedTuple):
    """A file of fw_cfg: `size` bytes, which begin with `data` and go on with zeros."""

    size: int
    data: bytes
    writeable: bool


class RecordedFunction(NamedTuple):
    """A PCI function on bus 0: its 256 bytes of configuration space at reset, and which of their bits can be written."""

    slot: int
    function: int
    config: bytes
    writable: bytes


class Recording(NamedTuple):
    """`qemu` is the version, `machine` the name of the MachineSpec, `memory` in bytes. `items` are those of fw_cfg by key,
    without the zeros at their end, `files` by name."""

    qemu: str
    machine: str
    memory: int
    cpus: int
    items: Mapping[int, bytes]
    files: Mapping[bytes, RecordedFile]
    functions: tuple[RecordedFunction, ...]

    def to_json(self) -> str:
        """As `parse_recording` reads it: the same recording gives the same text."""
        data = {
            "version": VERSION,
            "qemu": self.qemu,
            "machine": self.machine,
            "memory": self.memory,
            "cpus": self.cpus,
            "items": {f"{key:#06x}": _lines(data) for key, data in sorted(self.items.items())},
            "files": {
                name.decode("ascii"): {"size": file.size, "writeable": file.writeable, "data": _lines(file.data)}
                for name, file in sorted(self.files.items())
            },
            "pci": [
                {
                    "slot": each.slot,
                    "function": each.function,
                    "config": _lines(each.config),
                    "writable": _lines(each.writable),
                }
                for each in sorted(self.functions)
            ],
        }
        return json.dumps(data, indent=1) + "\n"


def _lines(data: bytes) -> list[str]:
    data = data.rstrip(b"\0")
    return [data[at : at + _LINE].hex() for at in range(0, len(data), _LINE)]


def default_recording(spec: MachineSpec) -> Recording:
    """The one that comes with pvhboot, of a machine that has fw_cfg."""
    name = os.path.join(os.path.dirname(__file__), "recordings", f"{spec.name}.json")
    return read_recording(name)


def read_recording(path: str) -> Recording:
    """A recording from a file; BootError says what is wrong with it."""
    data = read_file(path, "recording", RECORDING_MAX)
    try:
        return parse_recording(data)
    except BootError as error:
        raise BootError(f"{path}: {error}") from None


def parse_recording(data: bytes) -> Recording:
    """A recording from JSON; BootError says which part of it is wrong."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BootError(f"no recording: not JSON ({error})") from None
    version = field(whole, "version", int, "the recording")
    if version != VERSION:
        raise BootError(f"a recording of version {version}: this pvhboot reads version {VERSION}")
    machine = field(whole, "machine", str, "the recording")
    machines = [name for name, spec in MACHINES.items() if spec.source == FW_CFG]
    if machine not in machines:
        raise BootError(f"a recording of the machine {machine!r}; there is: {', '.join(machines)}")
    items: dict[str, Any] = field(whole, "items", dict, "the recording")
    files: dict[str, Any] = field(whole, "files", dict, "the recording")
    if len(files) >= FW_CFG_MAX_FILES:
        raise BootError(f"the recording has {len(files)} files: fw_cfg has room for {FW_CFG_MAX_FILES - 1}, and etc/e820")
    pci: list[Any] = field(whole, "pci", list, "the recording")
    functions = tuple(_function(each, f"PCI function {at}") for at, each in enumerate(pci))
    if len({each[:2] for each in functions}) < len(functions):
        raise BootError("the recording has a PCI function twice")
    return Recording(
        field(whole, "qemu", str, "the recording"),
        machine,
        number(whole, "memory", "the recording", 1, PADDR_END),
        number(whole, "cpus", "the recording", 1, _KEY_MAX),
        {_key(text): _bytes(lines, f"item {text!r}") for text, lines in items.items()},
        {_name(name): _file(each, f"file {name!r}") for name, each in files.items()},
        functions,
    )


def _key(text: str) -> int:
    if not re.fullmatch(r"0x[0-9a-f]{4}", text):
        raise BootError(f"{text!r} is no key of an item: it is 0x and four hexadecimal digits")
    return int(text, 16)


def _name(text: str) -> bytes:
    if not (text.isascii() and text.isprintable() and 0 < len(text) < FW_CFG_MAX_FILE_PATH):
        raise BootError(f"{text!r} is no name of a file: it has 1 to {FW_CFG_MAX_FILE_PATH - 1} printable ASCII characters")
    return text.encode("ascii")


def _file(each: Any, what: str) -> RecordedFile:
    size = number(each, "size", what, 0, RECORDING_MAX)
    data = _bytes(field(each, "data", list, what), what)
    if len(data) > size:
        raise BootError(f"{what} has {len(data)} bytes and the size {size}")
    return RecordedFile(size, data, field(each, "writeable", bool, what))


def _function(each: Any, what: str) -> RecordedFunction:
    spaces = []
    for name in ("config", "writable"):
        data = _bytes(field(each, name, list, what), f"{name} of {what}")
        if len(data) > PCI_CONFIG_SIZE:
            raise BootError(f"{what} has {len(data)} bytes of {name}: there are {PCI_CONFIG_SIZE}")
        spaces.append(data.ljust(PCI_CONFIG_SIZE, b"\0"))
    slot, function = number(each, "slot", what, 0, PCI_SLOTS - 1), number(each, "function", what, 0, PCI_FUNCTIONS - 1)
    return RecordedFunction(slot, function, *spaces)


def _bytes(lines: Any, what: str) -> bytes:
    try:
        return b"".join(bytes.fromhex(line) for line in lines)
    except (TypeError, ValueError):
        raise BootError(f"{what}: not bytes in hexadecimal") from None
