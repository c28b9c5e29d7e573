"""The parameter block: how a VMM without any device tells the `bare` blob what to boot.

This is a stable, versioned contract (docs/params.md). The block lies in the ROM, PARAMS_FROM_END bytes before its end, and
consists of a header and, directly after it and packed, three parts:

    ParamsHeader | E820_ENTRY * e820_entries | ParamsModule * modules | strings_size bytes of strings

The strings are NUL-terminated. The first is the kernel's command line; a module names its own by its offset into
them, where 0 means "none". With strings_size 0 there is no command line at all.
"""

from typing import Final, NamedTuple

from .layout import Layout
from .pvh import MEMMAP_MAX_ENTRIES

PARAMS_MAGIC: Final = int.from_bytes(b"PVHB", "little")
PARAMS_VERSION: Final = 1
PARAMS_FROM_END: Final = 0x10000  # bytes before the end of the ROM: physical address 0xffff0000
PARAMS_MAX_SIZE: Final = 0x8000  # bytes, header included; the firmware's code begins behind it
PARAMS_MAX_E820: Final = MEMMAP_MAX_ENTRIES
PARAMS_MAX_MODULES: Final = 512


class ParamsHeader(NamedTuple):
    """32 bytes. `size` is the whole block's, in bytes; 0 (as built) means that nobody has filled it."""

    magic: int
    version: int
    size: int
    entry: int
    e820_entries: int
    modules: int
    strings_size: int
    reserved: int = 0


class ParamsModule(NamedTuple):
    """24 bytes: where the host has put a module (physical address, bytes) and its string's offset (0: none)."""

    paddr: int
    size: int
    cmdline: int
    reserved: int = 0


PARAMS_HEADER: Final = Layout(ParamsHeader, "IIIIIIII", "PARAMS_HEADER")
PARAMS_MODULE: Final = Layout(ParamsModule, "QQII", "PARAMS_MODULE")

EMPTY_PARAMS: Final = PARAMS_HEADER.pack(ParamsHeader(PARAMS_MAGIC, PARAMS_VERSION, 0, 0, 0, 0, 0))
