"""The parameter block of a firmware, filled: what abi/params.py lays out."""

from collections.abc import Sequence

from pvhboot.shim.abi import params
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.errors import BootError

from .modules import PlannedModule


def takes_params(firmware: bytes) -> bool:
    """Whether a ROM has room for the block; BootError if it wants another version of it."""
    if len(firmware) < params.PARAMS_FROM_END:
        return False
    header = params.PARAMS_HEADER.unpack(firmware, len(firmware) - params.PARAMS_FROM_END)
    if header.magic != params.PARAMS_MAGIC:
        return False
    if header.version != params.PARAMS_VERSION:
        raise BootError(
            f"the firmware wants a parameter block of version {header.version}: "
            f"this pvhboot writes version {params.PARAMS_VERSION}"
        )
    return True


def params_block(entry: int, memmap: Sequence[E820Entry], modules: Sequence[PlannedModule], cmdline: bytes | None) -> bytes:
    """Header, memory map, modules and strings; BootError if the command lines are too long for it."""
    strings = bytearray()
    if cmdline is not None:
        strings += cmdline + b"\0"
    records = b""
    for module in modules:
        offset = 0
        if module.cmdline is not None:
            offset = len(strings)
            strings += module.cmdline + b"\0"
        records += params.PARAMS_MODULE.pack(params.ParamsModule(module.paddr, module.payload.size, offset))
    entries = b"".join(map(E820_ENTRY.pack, memmap))
    size = params.PARAMS_HEADER.size + len(entries) + len(records) + len(strings)
    if size > params.PARAMS_MAX_SIZE:
        room = params.PARAMS_MAX_SIZE - (size - len(strings))
        raise BootError(f"the command lines have {len(strings)} bytes with their terminators: there is room for {room}")
    header = params.ParamsHeader(
        params.PARAMS_MAGIC, params.PARAMS_VERSION, size, entry, len(memmap), len(modules), len(strings)
    )
    return params.PARAMS_HEADER.pack(header) + entries + records + bytes(strings)
