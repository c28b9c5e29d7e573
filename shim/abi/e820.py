"""The e820 entry, as the BIOS call and QEMU's etc/e820 pack it: what a host tells a firmware about memory.

Source: ACPI specification, "INT 15H, E820H - Query System Address Map": base, length, type, 20 bytes without the
extended attributes. The types are those of the PVH memory map.
"""

from typing import Final, NamedTuple

from .layout import Layout


class E820Entry(NamedTuple):
    """One range: physical address, size in bytes, type (a MEMMAP_TYPE_*)."""

    addr: int
    size: int
    type: int


E820_ENTRY: Final = Layout(E820Entry, "QQI", "E820_ENTRY")
