"""The items of QEMU's fw_cfg in words."""

from collections.abc import Mapping
from typing import Final

from pvhboot.shim.abi import fw_cfg

# What the items are that a boot asks for.
ITEM_WORDS: Final[Mapping[int, str]] = {
    fw_cfg.FW_CFG_SIGNATURE: "the signature",
    fw_cfg.FW_CFG_ID: "what the interface can do",
    fw_cfg.FW_CFG_RAM_SIZE: "the size of RAM",
    fw_cfg.FW_CFG_NB_CPUS: "the number of processors",
    fw_cfg.FW_CFG_KERNEL_ADDR: "where the kernel lies",
    fw_cfg.FW_CFG_KERNEL_SIZE: "the kernel's size",
    fw_cfg.FW_CFG_INITRD_ADDR: "where the initrd goes",
    fw_cfg.FW_CFG_INITRD_SIZE: "the initrd's size",
    fw_cfg.FW_CFG_KERNEL_ENTRY: "the kernel's entry",
    fw_cfg.FW_CFG_KERNEL_DATA: "the kernel itself",
    fw_cfg.FW_CFG_INITRD_DATA: "the initrd itself",
    fw_cfg.FW_CFG_CMDLINE_SIZE: "the command line's size",
    fw_cfg.FW_CFG_CMDLINE_DATA: "the command line itself",
    fw_cfg.FW_CFG_SETUP_SIZE: "the size of the kernel file's head",
    fw_cfg.FW_CFG_SETUP_DATA: "the kernel file's head",
    fw_cfg.FW_CFG_FILE_DIR: "the directory of files",
}
