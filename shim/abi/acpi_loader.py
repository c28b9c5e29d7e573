"""QEMU's table-loader: the script in fw_cfg's etc/table-loader by which firmware puts ACPI tables into memory.

Source: QEMU hw/acpi/bios-linker-loader.c (struct BiosLinkerLoaderEntry: 128 bytes, little-endian, packed).
"""

from typing import Final, NamedTuple

from .fw_cfg import FW_CFG_MAX_FILE_PATH
from .layout import Layout

LOADER_FILE: Final = b"etc/table-loader"
RSDP_FILE: Final = b"etc/acpi/rsdp"

LOADER_FILE_NAME_BYTES: Final = FW_CFG_MAX_FILE_PATH  # zero-padded

LOADER_ALLOCATE: Final = 1
LOADER_ADD_POINTER: Final = 2
LOADER_ADD_CHECKSUM: Final = 3
LOADER_WRITE_POINTER: Final = 4

LOADER_ZONE_HIGH: Final = 1
LOADER_ZONE_FSEG: Final = 2


class LoaderAllocate(NamedTuple):
    """Puts a file into memory: `align` in bytes, a power of two; `zone` a LOADER_ZONE_*."""

    command: int
    file: bytes
    align: int
    zone: int
    padding: bytes = b""


class LoaderAddPointer(NamedTuple):
    """Adds the address of one file to the `size` bytes at an offset of another."""

    command: int
    dest: bytes
    src: bytes
    offset: int
    size: int
    padding: bytes = b""


class LoaderAddChecksum(NamedTuple):
    """Makes the bytes from `start` on, `length` of them, add up to 0 by the byte at `offset`."""

    command: int
    file: bytes
    offset: int
    start: int
    length: int
    padding: bytes = b""


class LoaderWritePointer(NamedTuple):
    """Tells the host the address of a file, plus `src_offset`: writes it to the file `dest` of fw_cfg."""

    command: int
    dest: bytes
    src: bytes
    dst_offset: int
    src_offset: int
    size: int
    padding: bytes = b""


_NAME: Final = f"{LOADER_FILE_NAME_BYTES}s"
LOADER_ENTRY_BYTES: Final = 128

ALLOCATE: Final = Layout(LoaderAllocate, ("I", _NAME, "I", "B", "63s"), "LOADER_ALLOCATE")
ADD_POINTER: Final = Layout(LoaderAddPointer, ("I", _NAME, _NAME, "I", "B", "7s"), "LOADER_ADD_POINTER")
ADD_CHECKSUM: Final = Layout(LoaderAddChecksum, ("I", _NAME, "I", "I", "I", "56s"), "LOADER_ADD_CHECKSUM")
WRITE_POINTER: Final = Layout(LoaderWritePointer, ("I", _NAME, _NAME, "I", "I", "B", "3s"), "LOADER_WRITE_POINTER")
assert {layout.size for layout in (ALLOCATE, ADD_POINTER, ADD_CHECKSUM, WRITE_POINTER)} == {LOADER_ENTRY_BYTES}
