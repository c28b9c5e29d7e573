"""The fields of start_info in words."""

from collections.abc import Mapping
from typing import Final

from pvhboot.shim.abi import pvh

_WORDS: Final[Mapping[str, str]] = {
    "magic": "by this a kernel knows the structure",
    "version": "1 is the first with a memory map",
    "flags": "none are defined for this kind of guest",
    "nr_modules": "modules in the list",
    "modlist_paddr": "the module list",
    "cmdline_paddr": "the command line, which ends with a 0",
    "rsdp_paddr": "the RSDP, the root of the ACPI tables",
    "memmap_paddr": "the memory map",
    "memmap_entries": "entries of the memory map",
    "reserved": "must be 0",
}


def start_info_meaning(name: str, value: int) -> str:
    """What a field holds, or where it leads."""
    if name == "magic" and value != pvh.XEN_HVM_START_MAGIC_VALUE:
        return "not the magic number of PVH"
    absent = ": there is none" if name.endswith("_paddr") and not value else ""
    return f"{_WORDS[name]}{absent}"
