"""What the firmware says of itself: its mark in the ROM, the ports it talks to, its POST codes and its panics.

Port 0x80 is the PC's POST port; 0x402 is the debug console of Bochs and QEMU (isa-debugcon), on which SeaBIOS logs too.
"""

from typing import Final, NamedTuple

from .layout import Layout

ROM_MARK: Final = b"pvhboot\0"  # the last bytes of every ROM that pvhboot builds

POST_PORT: Final = 0x80
DEBUGCON_PORT: Final = 0x402

# How a firmware learns what to boot.
PARAMS: Final = "params"  # from a parameter block in its ROM (abi/params.py)
FW_CFG: Final = "fw_cfg"  # from QEMU's fw_cfg (abi/fw_cfg.py)

ACPI: Final = "acpi"  # and with ACPI tables

# Marks of a boot's time: the ports and values that existing scripts for QEMU's boot time look for, and what those call them.
# Source: benchmark.h and qemu-perf-script.py of github.com/stefano-garzarella/qemu-boot-time, after qboot's benchmark.h.
MARK_FIRMWARE_PORT: Final = 0xF5
MARK_LINUX_PORT: Final = 0xF4
MARK_FIRMWARE_START: Final = 1  # the first instruction
MARK_LINUX_FW_CFG: Final = 2  # the jump to a bzImage that came by fw_cfg
MARK_LINUX_BOOT: Final = 3  # the jump to a bzImage of an option ROM's
MARK_LINUX_PVH: Final = 4  # the jump to a PVH kernel
MARK_FIRMWARE_BOOT: Final = 5  # a firmware is set up and looks for what to boot
MARK_LINUX_KERNEL: Final = 6  # start_kernel
MARK_LINUX_USER: Final = 7  # init is about to be executed
MARKER_PORTS: Final = (MARK_FIRMWARE_PORT, MARK_LINUX_PORT)  # either has any value
MARKER_NAMES: Final = {
    MARK_FIRMWARE_START: "fw_start",
    MARK_LINUX_FW_CFG: "linux_start_fwcfg",
    MARK_LINUX_BOOT: "linux_start_boot",
    MARK_LINUX_PVH: "linux_start_pvhboot",
    MARK_FIRMWARE_BOOT: "fw_do_boot",
    MARK_LINUX_KERNEL: "linux_start_kernel",
    MARK_LINUX_USER: "linux_start_user",
}

PREFIX: Final = "pvhboot"
PANIC_PREFIX: Final = f"{PREFIX} panic"


class Post(NamedTuple):
    """Progress, in verbose builds only, since each byte costs an exit: the code on POST_PORT, its name, the words on
    DEBUGCON_PORT."""

    code: int
    name: str
    text: str


POSTS: Final = (
    Post(0x10, "PROTECTED_MODE", "flat 32-bit protected mode"),
    Post(0x18, "CHIPSET", "the chipset"),
    Post(0x20, "PARAMS", "what to boot"),
    Post(0x30, "MEMMAP", "the memory map"),
    Post(0x38, "MODULES", "kernel, command line and initrd"),
    Post(0x3C, "ACPI", "ACPI tables"),
    Post(0x3D, "SMBIOS", "SMBIOS tables"),
    Post(0x3E, "MP_TABLE", "the MP table"),
    Post(0x40, "START_INFO", "start_info"),
    Post(0x50, "STAGE", "the custom stage"),
    Post(0x60, "HANDOFF", "the handoff"),
)


class Panic(NamedTuple):
    """Why the firmware stopped: the code on POST_PORT, its name, the words on DEBUGCON_PORT, and which firmwares have it."""

    code: int
    name: str
    text: str
    sources: tuple[str, ...]


_BOTH: Final = (PARAMS, FW_CFG)

PANICS: Final = (
    Panic(0xE0, "NO_PARAMS", "the ROM's parameter block is empty", (PARAMS,)),
    Panic(0xE1, "PARAMS_MAGIC", "no parameter block where this firmware expects it", (PARAMS,)),
    Panic(0xE2, "PARAMS_VERSION", "the parameter block has a version that this firmware does not know", (PARAMS,)),
    Panic(0xE3, "PARAMS_SIZE", "the parts of the parameter block do not add up to its size", (PARAMS,)),
    Panic(0xE4, "NO_ENTRY", "the kernel's entry address is 0", (PARAMS,)),
    Panic(0xE5, "E820_COUNT", "the memory map is empty, too long, or cut off", _BOTH),
    Panic(0xE6, "MODULE_COUNT", "too many modules", (PARAMS,)),
    Panic(0xE7, "STRING_END", "the command line does not end with a NUL", _BOTH),
    Panic(0xE8, "STRING_OFFSET", "a module's command line lies outside the strings", (PARAMS,)),
    Panic(0xE9, "STAGE_END", "the custom stage ran past its end: it must end with ret", _BOTH),
    Panic(0xEA, "NO_FW_CFG", "no fw_cfg device: this firmware is for QEMU", (FW_CFG,)),
    Panic(0xEB, "FW_CFG_DMA", "fw_cfg has failed a DMA transfer, or never ended it", (FW_CFG,)),
    Panic(0xEC, "FW_CFG_FILES", "the directory of fw_cfg has an absurd length", (FW_CFG,)),
    Panic(0xED, "NO_E820", "fw_cfg has no file etc/e820", (FW_CFG,)),
    Panic(0xEE, "E820_LOW", "the memory map has no RAM from 0 to above 1 MiB", (FW_CFG,)),
    Panic(0xEF, "E820_OVERLAP", "ranges of the memory map overlap, or lie in the ROM", (FW_CFG,)),
    Panic(
        0xF0,
        "NO_KERNEL",
        "no kernel: QEMU's -kernel must be an ELF file with a PVH note, or a bzImage",
        (FW_CFG,),
    ),
    Panic(0xF1, "CMDLINE_SIZE", "the command line is too long", (FW_CFG,)),
    Panic(
        0xF2,
        "INITRD_RAM",
        "the initrd does not lie in one range of RAM above 1 MiB, or QEMU took the kernel for a Multiboot one",
        (FW_CFG,),
    ),
    Panic(0xF3, "INITRD_KERNEL", "the initrd lies over the kernel: give the machine more memory", (FW_CFG,)),
    Panic(
        0xF4,
        "KERNEL_RAM",
        "the kernel, unpacked, does not fit into one range of RAM, or lies where this firmware works: "
        "give more memory, or link it elsewhere",
        (FW_CFG,),
    ),
    Panic(0xF5, "KERNEL_ENTRY", "the entry does not lie in the kernel", (FW_CFG,)),
    Panic(0xF6, "ACPI_SCRIPT", "the table-loader's script says what cannot be", (ACPI,)),
    Panic(0xF7, "ACPI_FILE", "the table-loader's script names a file that is not there", (ACPI,)),
    Panic(0xF8, "ACPI_ROOM", "no room for the ACPI tables: give the machine more memory", (ACPI,)),
    Panic(0xF9, "BOOT_PROTOCOL", "the kernel is a zImage, or its boot protocol is older than 2.06", (FW_CFG,)),
    Panic(0xFA, "SETUP_DATA", "the kernel's setup_data is too long, or does not lie in RAM", (FW_CFG,)),
)


class AllocatedFile(NamedTuple):
    """An entry of the firmware's own list of what it has put into memory for the table-loader: physical addresses of the file's
    name and of the file, and its size in bytes."""

    name: int
    address: int
    size: int


ALLOCATED_FILE: Final = Layout(AllocatedFile, "III", "ALLOCATED")


def post_message(post: Post) -> str:
    """The line on the debug console, without its line feed."""
    return f"{PREFIX} {post.code:#04x} {post.text}"


def panic_message(panic: Panic) -> str:
    """The line on the debug console, without its line feed."""
    return f"{PANIC_PREFIX} {panic.code:#04x} {panic.name}: {panic.text}"
