"""Sizes as people type and read them."""

import re
from typing import Final

from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import GIB, KIB, MIB, Span

DEFAULT_MEMORY: Final = "512M"

PADDR_END: Final = 1 << 52  # physical addresses have at most 52 bits (Intel SDM vol. 3, 4.1.4)

_UNITS: Final = {"": MIB, "K": KIB, "M": MIB, "G": GIB, "T": GIB * KIB}


def parse_memory(text: str) -> int:
    """Bytes from `512M`, `5G` or `96` (MiB, as QEMU's -m has it); BootError for anything else."""
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BootError(f"cannot read the memory size {text!r}: write 512M or 5G; a plain number is MiB")
    return int(match.group(1)) * _UNITS[match.group(2).upper()]


def parse_address(text: str, what: str) -> int:
    """A physical address from `0x2000000` or `32M`; BootError, which says `what` it is, for anything else, or from 2^52 on."""
    match = re.fullmatch(r"0x([0-9a-f]{1,16})|(\d{1,12})([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BootError(f"cannot read {what} {text!r}: write 0x2000000 or 32M")
    value = int(match.group(1), 16) if match.group(1) else int(match.group(2)) * _UNITS[match.group(3).upper()]
    if value >= PADDR_END:
        raise BootError(f"{what} {text}: no physical address is that large")
    return value


def parse_reserved(text: str, what: str = "--reserve") -> Span:
    """A span to be reserved, from `16M@0x2000000` (its size, a plain number being MiB, and its address); BootError, which says
    `what` it is, for anything else."""
    size, at, address = text.partition("@")
    if not at:
        raise BootError(f"cannot read {what} {text!r}: write 16M@0x2000000, a size and an address")
    start = parse_address(address, f"the address of {what}")
    return Span("reserved", start, start + parse_memory(size))


def show_size(size: int) -> str:
    """`size` bytes in the largest unit that leaves it whole."""
    for unit, name in ((KIB * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and not size % unit:
            return f"{size // unit} {name}"
    return f"{size} bytes"


def as_memory(size: int) -> str:
    """`size` bytes, a multiple of 1 KiB, as --memory takes it."""
    return f"{size // MIB}M" if not size % MIB else f"{size // KIB}K"
