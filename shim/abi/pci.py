"""PCI configuration space: the two ports of mechanism #1, and the registers that every device has.

Source: PCI Local Bus Specification 3.0, section 3.2.2.3.2 (the mechanism) and chapter 6 (the registers).
"""

from typing import Final

PCI_CONFIG_ADDRESS: Final = 0xCF8
PCI_CONFIG_DATA: Final = 0xCFC
PCI_CONFIG_ENABLE: Final = 1 << 31
PCI_CONFIG_BUS_SHIFT: Final = 16
PCI_CONFIG_SLOT_SHIFT: Final = 11
PCI_CONFIG_FUNCTION_SHIFT: Final = 8

PCI_VENDOR_ID: Final = 0x00  # 16 bits, the device's number behind: all ones where no device is
PCI_HEADER_TYPE: Final = 0x0E
PCI_HEADER_MULTI_FUNCTION: Final = 1 << 7
PCI_INTERRUPT_LINE: Final = 0x3C  # a byte; in the next one the pin, 1 is INTA#, 0 is none

PCI_SLOTS: Final = 32  # of a bus
PCI_FUNCTIONS: Final = 8  # of a device
PCI_CONFIG_SIZE: Final = 256  # bytes, of a function's space by mechanism #1
PCIE_CONFIG_SIZE: Final = 4096  # bytes, by ECAM


def config_address(slot: int, function: int, register: int, bus: int = 0) -> int:
    """What PCI_CONFIG_ADDRESS takes to reach the 32-bit register that holds `register`."""
    number = bus << PCI_CONFIG_BUS_SHIFT | slot << PCI_CONFIG_SLOT_SHIFT | function << PCI_CONFIG_FUNCTION_SHIFT
    return PCI_CONFIG_ENABLE | number | register & ~3
