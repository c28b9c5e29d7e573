"""Sizes as people type and read them."""

import re
from typing import Final

from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import GIB, KIB, MIB

DEFAULT_MEMORY: Final = "512M"

_UNITS: Final = {"": MIB, "K": KIB, "M": MIB, "G": GIB, "T": GIB * KIB}


def parse_memory(text: str) -> int:
    """Bytes from `512M`, `5G` or `96` (MiB, as QEMU's -m has it); BootError for anything else."""
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BootError(f"cannot read the memory size {text!r}: write 512M or 5G; a plain number is MiB")
    return int(match.group(1)) * _UNITS[match.group(2).upper()]


def show_size(size: int) -> str:
    """`size` bytes in the largest unit that leaves it whole."""
    for unit, name in ((KIB * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and not size % unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"
