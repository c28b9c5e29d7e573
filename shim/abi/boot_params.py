"""The Linux/x86 boot protocol: a bzImage's setup header, and boot_params, which has it at the same offsets.

Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header", "Details of Header Fields", "32-bit Boot
Protocol"; Documentation/arch/x86/zero-page.rst and arch/x86/include/uapi/asm/bootparam.h (boot_params, setup_data). A field
is its offset and its struct format.
"""

from typing import Final, NamedTuple

from .layout import Layout

SETUP_SECTS: Final = (0x1F1, "<B")
VERSION: Final = (0x206, "<H")
KERNEL_VERSION: Final = (0x20E, "<H")
PAYLOAD: Final = (0x248, "<II")  # payload_offset and payload_length, since protocol 2.08

BOOT_FLAG: Final = (0x1FE, b"\x55\xaa")  # offset and bytes: of any boot sector, since before there was the header
HEADER_MAGIC: Final = (0x202, b"HdrS")  # since protocol 2.00

# What a loader that enters the kernel in protected mode reads and writes.
HEADER: Final = 0x1F1  # where the header begins
HEADER_JUMP: Final = 0x201  # a byte: so far behind HEADER_MAGIC it ends
HEADER_MIN: Final = 0x23C  # where it ends in PROTOCOL_MIN
HEADER_MAX: Final = 0x290  # boot_params has room up to here
TYPE_OF_LOADER: Final = (0x210, "<B")
LOADFLAGS: Final = (0x211, "<B")
CODE32_START: Final = (0x214, "<I")
RAMDISK_IMAGE: Final = (0x218, "<I")
RAMDISK_SIZE: Final = (0x21C, "<I")
CMD_LINE_PTR: Final = (0x228, "<I")
ALIGNMENT: Final = (0x230, "<I")  # kernel_alignment, since protocol 2.05
RELOCATABLE: Final = (0x234, "<B")
XLOADFLAGS: Final = (0x236, "<H")  # since protocol 2.12
CMDLINE_SIZE: Final = (0x238, "<I")  # bytes without the NUL, since protocol 2.06
SETUP_DATA: Final = (0x250, "<Q")  # since protocol 2.09
PREF_ADDRESS: Final = (0x258, "<Q")  # since protocol 2.10
INIT_SIZE: Final = (0x260, "<I")  # bytes, since protocol 2.10
HANDOVER_OFFSET: Final = (0x264, "<I")  # since protocol 2.11

LOADED_HIGH: Final = 1 << 0  # of LOADFLAGS: the protected-mode part is linked to 1 MiB
LOADFLAG_NAMES: Final = {
    LOADED_HIGH: "LOADED_HIGH",
    1 << 1: "KASLR",
    1 << 5: "QUIET",
    1 << 6: "KEEP_SEGMENTS",
    1 << 7: "CAN_USE_HEAP",
}
LOAD_PADDR_HIGH: Final = 0x100000  # where the protected-mode part goes with LOADED_HIGH, and without
LOAD_PADDR_LOW: Final = 0x10000
QEMU_SETUP_PADDR: Final = 0x10000  # where QEMU has firmware put the real-mode part (hw/i386/x86.c: x86_load_linux, since 2.02)
REAL_MODE_ENTRY: Final = 0x200  # so many bytes into the real-mode part ("Running the Kernel")
XLF_KERNEL_64: Final = 1 << 0  # of XLOADFLAGS: there is a 64-bit entry, so many bytes into the protected-mode part
ENTRY_64_OFFSET: Final = 0x200
XLOADFLAG_NAMES: Final = {
    XLF_KERNEL_64: "KERNEL_64",
    1 << 1: "CAN_BE_LOADED_ABOVE_4G",
    1 << 2: "EFI_HANDOVER_32",
    1 << 3: "EFI_HANDOVER_64",
    1 << 4: "EFI_KEXEC",
    1 << 5: "5LEVEL",
    1 << 6: "5LEVEL_ENABLED",
    1 << 7: "MEM_ENCRYPTION",
}
LOADER_UNDEFINED: Final = 0xFF  # a loader without a number
PROTOCOL_MIN: Final = 0x206  # of Linux 2.6.22
PROTOCOL_HEADER: Final = 0x200
PROTOCOL_ALIGNMENT: Final = 0x205
PROTOCOL_CMDLINE_SIZE: Final = 0x206
PROTOCOL_INIT_SIZE: Final = 0x20A
PROTOCOL_HANDOVER: Final = 0x20B
PROTOCOL_XLOADFLAGS: Final = 0x20C

# boot_params, beside the header.
BOOT_PARAMS_BYTES: Final = 4096
ACPI_RSDP_ADDR: Final = (0x070, "<Q")
E820_ENTRIES: Final = (0x1E8, "<B")
E820_TABLE: Final = 0x2D0  # of entries as in abi/e820.py


class SetupData(NamedTuple):
    """The head of a piece of setup_data, 16 bytes: `next` the physical address of the next one (0: none), `len` the bytes
    that follow."""

    next: int
    type: int
    len: int


SETUP_DATA_HEAD: Final = Layout(SetupData, "QII", "SETUP_DATA")

SECTOR_BYTES: Final = 512
DEFAULT_SETUP_SECTS: Final = 4  # meant by a field of 0
PAYLOAD_PROTOCOL: Final = 0x208
KERNEL_VERSION_BASE: Final = 0x200  # what the pointer to the string counts from


def setup_bytes(setup_sects: int) -> int:
    """The size of the real-mode part with its boot sector, in bytes, by the field SETUP_SECTS."""
    return ((setup_sects or DEFAULT_SETUP_SECTS) + 1) * SECTOR_BYTES


def protocol_name(version: int) -> str:
    """A boot protocol as the documentation writes it, by the field VERSION: "2.15" for 0x20f."""
    return f"{version >> 8}.{version & 0xFF:02}"
