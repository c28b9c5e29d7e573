"""QEMU's firmware configuration device: its ports on a PC, its item keys, the file directory and the DMA descriptor.

Source: QEMU docs/specs/fw_cfg.rst (registers, DMA interface, directory), include/standard-headers/linux/qemu_fw_cfg.h (keys).
"""

from typing import Final, NamedTuple

from .layout import Layout

FW_CFG_PORT: Final = 0x510  # writing, 16 bits: the key of the item that is read next
FW_CFG_DATA_PORT: Final = 0x511  # 8 bits: the next byte of the item
FW_CFG_DMA_PORT: Final = 0x514  # the descriptor's address, 64 bits, big-endian
FW_CFG_DMA_LOW_PORT: Final = 0x518  # its lower half: writing it starts the transfer. The upper one is 0 after each
FW_CFG_PORTS: Final = 2
FW_CFG_DMA_PORTS: Final = 8

FW_CFG_SIGNATURE: Final = 0x00
FW_CFG_ID: Final = 0x01
FW_CFG_RAM_SIZE: Final = 0x03
FW_CFG_NB_CPUS: Final = 0x05
FW_CFG_KERNEL_ADDR: Final = 0x07
FW_CFG_KERNEL_SIZE: Final = 0x08
FW_CFG_INITRD_ADDR: Final = 0x0A
FW_CFG_INITRD_SIZE: Final = 0x0B
FW_CFG_KERNEL_ENTRY: Final = 0x10
FW_CFG_KERNEL_DATA: Final = 0x11
FW_CFG_INITRD_DATA: Final = 0x12
FW_CFG_CMDLINE_SIZE: Final = 0x14
FW_CFG_CMDLINE_DATA: Final = 0x15
FW_CFG_SETUP_SIZE: Final = 0x17
FW_CFG_SETUP_DATA: Final = 0x18
FW_CFG_FILE_DIR: Final = 0x19
FW_CFG_FILE_FIRST: Final = 0x20  # the key of the first file; those above are in the directory's order
FW_CFG_WRITE_CHANNEL: Final = 0x4000
FW_CFG_ARCH_LOCAL: Final = 0x8000
FW_CFG_ENTRY_MASK: Final = 0xFFFF & ~(FW_CFG_WRITE_CHANNEL | FW_CFG_ARCH_LOCAL)

FW_CFG_SIGNATURE_DATA: Final = b"QEMU"
FW_CFG_VERSION: Final = 1 << 0  # bits of FW_CFG_ID
FW_CFG_VERSION_DMA: Final = 1 << 1
FW_CFG_DMA_SIGNATURE: Final = b"QEMU CFG"  # what reading the DMA register gives, lowest port first

FW_CFG_DMA_CTL_ERROR: Final = 1 << 0
FW_CFG_DMA_CTL_READ: Final = 1 << 1
FW_CFG_DMA_CTL_SKIP: Final = 1 << 2
FW_CFG_DMA_CTL_SELECT: Final = 1 << 3  # the key is in the upper 16 bits
FW_CFG_DMA_CTL_WRITE: Final = 1 << 4
FW_CFG_DMA_CTL_KEY_SHIFT: Final = 16

FW_CFG_MAX_FILE_PATH: Final = 56  # bytes, with the terminator
FW_CFG_FILE_COUNT_BYTES: Final = 4  # of the directory's head: how many entries follow, big-endian
# As many as the keys from FW_CFG_FILE_FIRST on can name: no directory is longer.
FW_CFG_MAX_FILES: Final = FW_CFG_ENTRY_MASK - FW_CFG_FILE_FIRST + 1

E820_FILE: Final = b"etc/e820"


class FwCfgFile(NamedTuple):
    """A directory entry, 64 bytes, big-endian. `size` is in bytes, `select` the key, `name` ends with a NUL."""

    size: int
    select: int
    reserved: int
    name: bytes


class FwCfgDmaAccess(NamedTuple):
    """The DMA descriptor, 16 bytes, big-endian: `length` in bytes, `address` physical. `control` is 0 when all is done."""

    control: int
    length: int
    address: int


FW_CFG_FILE: Final = Layout(FwCfgFile, ("I", "H", "H", f"{FW_CFG_MAX_FILE_PATH}s"), "FW_CFG_FILE", big_endian=True)
FW_CFG_DMA: Final = Layout(FwCfgDmaAccess, "IIQ", "FW_CFG_DMA", big_endian=True)
