"""The Multiboot header, by which QEMU takes a kernel that has one before it looks for a PVH note.

Source: Multiboot Specification 0.6.96, 3.1.1 "The layout of Multiboot header", 3.1.2 "The magic fields of Multiboot header";
QEMU hw/i386/multiboot.c (where it looks).
"""

import struct
from typing import Final

MULTIBOOT_HEADER_MAGIC: Final = 0x1BADB002
SEARCH_BYTES: Final = 8192  # of the file
MULTIBOOT_HAS_ADDR: Final = 1 << 16  # of the flags: what to load and where to enter is in the header, not in an ELF header
# With it, behind the magic fields: header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr ("The address fields").
ADDRESS_FIELDS: Final = (12, "<IIIII")
_HEADER_BYTES: Final = 48
_ALIGN: Final = 4
_MAGIC_FIELDS: Final = struct.Struct("<III")  # magic, flags, checksum: they add up to 0


def find_header(head: bytes | bytearray) -> int | None:
    """The offset at which QEMU finds a header in the first SEARCH_BYTES of a file; None if it finds none."""
    for at in range(0, len(head) - _HEADER_BYTES, _ALIGN):
        fields = _MAGIC_FIELDS.unpack_from(head, at)
        if fields[0] == MULTIBOOT_HEADER_MAGIC and not sum(fields) & 0xFFFFFFFF:
            return at
    return None
