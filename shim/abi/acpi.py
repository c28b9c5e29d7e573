"""The ACPI structures that lead from the RSDP to every table.

Source: ACPI specification 6.5, 5.2.5.3 (RSDP), 5.2.6 (system description table header), 5.2.7 and 5.2.8 (RSDT, XSDT), 5.2.9
(FADT).
"""

from typing import Final, NamedTuple

from .layout import Layout

RSDP_SIGNATURE: Final = b"RSD PTR "
RSDP_V1_BYTES: Final = 20  # what the first checksum is about
RSDP_REVISION_2: Final = 2  # the first with an XSDT
FADT_SIGNATURE: Final = b"FACP"
FADT_FACS: Final = 36  # offset of the 32-bit address of the FACS (FIRMWARE_CTRL)
FADT_DSDT: Final = 40  # offset of the 32-bit address of the DSDT


class Rsdp(NamedTuple):
    """36 bytes; revision 0 ends after `rsdt_address`. Addresses are physical."""

    signature: bytes
    checksum: int
    oem_id: bytes
    revision: int
    rsdt_address: int
    length: int
    xsdt_address: int
    extended_checksum: int
    reserved: bytes


class SdtHeader(NamedTuple):
    """36 bytes in front of every table; `length` is the whole table's, in bytes."""

    signature: bytes
    length: int
    revision: int
    checksum: int
    oem_id: bytes
    oem_table_id: bytes
    oem_revision: int
    creator_id: bytes
    creator_revision: int


RSDP: Final = Layout(Rsdp, ("8s", "B", "6s", "B", "I", "I", "Q", "B", "3s"), "RSDP")
SDT_HEADER: Final = Layout(SdtHeader, ("4s", "I", "B", "B", "6s", "8s", "I", "4s", "I"), "SDT_HEADER")
