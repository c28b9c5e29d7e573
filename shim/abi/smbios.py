"""SMBIOS: the anchors by which an operating system finds the tables, in the files of QEMU's fw_cfg.

Source: DMTF DSP0134 (SMBIOS reference specification 3.6), 5.2.1 (the 32-bit entry point) and 5.2.2 (the 64-bit one); QEMU
hw/smbios/smbios.c (the files: the address and the checksums are left to the firmware).
"""

from typing import Final, NamedTuple

from .layout import Layout

SMBIOS_ANCHOR_FILE: Final = b"etc/smbios/smbios-anchor"
SMBIOS_TABLES_FILE: Final = b"etc/smbios/smbios-tables"

SMBIOS_21_ANCHOR: Final = b"_SM_"
SMBIOS_21_DMI_ANCHOR: Final = b"_DMI_"
SMBIOS_30_ANCHOR: Final = b"_SM3_"


class Smbios21(NamedTuple):
    """The 32-bit entry point, 31 bytes; `dmi_checksum` is that of the bytes from `dmi_anchor` on. Sizes are in bytes."""

    anchor: bytes
    checksum: int
    length: int
    major: int
    minor: int
    max_structure_size: int
    revision: int
    formatted: bytes
    dmi_anchor: bytes
    dmi_checksum: int
    table_length: int
    table_address: int
    structures: int
    bcd_revision: int


class Smbios30(NamedTuple):
    """The 64-bit entry point, 24 bytes."""

    anchor: bytes
    checksum: int
    length: int
    major: int
    minor: int
    docrev: int
    revision: int
    reserved: int
    max_table_size: int
    table_address: int


SMBIOS_21: Final = Layout(Smbios21, ("4s", "B", "B", "B", "B", "H", "B", "5s", "5s", "B", "H", "I", "H", "B"), "SMBIOS_21")
SMBIOS_30: Final = Layout(Smbios30, ("5s", "B", "B", "B", "B", "B", "B", "B", "I", "Q"), "SMBIOS_30")
