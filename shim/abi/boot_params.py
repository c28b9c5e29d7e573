"""The Linux/x86 boot protocol: where a bzImage's setup header has what a loader of its payload reads.

Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields". A field is its
offset in the file and its struct format.
"""

from typing import Final

SETUP_SECTS: Final = (0x1F1, "<B")
VERSION: Final = (0x206, "<H")
KERNEL_VERSION: Final = (0x20E, "<H")
PAYLOAD: Final = (0x248, "<II")  # payload_offset and payload_length, since protocol 2.08

BOOT_FLAG: Final = (0x1FE, b"\x55\xaa")  # offset and bytes: of any boot sector, since before there was the header
HEADER_MAGIC: Final = (0x202, b"HdrS")  # since protocol 2.00

SECTOR_BYTES: Final = 512
DEFAULT_SETUP_SECTS: Final = 4  # meant by a field of 0
PAYLOAD_PROTOCOL: Final = 0x208
KERNEL_VERSION_BASE: Final = 0x200  # what the pointer to the string counts from
