"""Entries of the PVH memory map in words."""

from pvhboot.shim.abi.pvh import MEMMAP_TYPE_NAMES


def type_name(kind: int) -> str:
    """What a MEMMAP_TYPE_* is called."""
    return MEMMAP_TYPE_NAMES.get(kind, f"type {kind}")


def entry_text(addr: int, size: int, kind: int) -> str:
    """An entry by its physical addresses, the end not included, and its type."""
    return f"{addr:#x}-{addr + size:#x}, {type_name(kind)}"
