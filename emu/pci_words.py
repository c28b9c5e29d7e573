"""Registers of PCI's configuration space in words."""

from collections.abc import Mapping
from typing import Final

from pvhboot.shim.abi import pci
from pvhboot.shim.abi.chipset import PAM_REGISTERS, Chipset, PciFunction

# Those that every device has, by the 32 bits that they lie in.
_COMMON: Final[Mapping[int, str]] = {
    pci.PCI_VENDOR_ID: "vendor and device",
    pci.PCI_HEADER_TYPE & ~3: "header type",
    pci.PCI_INTERRUPT_LINE: "interrupt line",
}


def register_text(chipset: Chipset | None, address: int) -> str:
    """Which register of which function a value of PCI_CONFIG_ADDRESS names, and what that is called."""
    bus = address >> pci.PCI_CONFIG_BUS_SHIFT & 0xFF
    slot = address >> pci.PCI_CONFIG_SLOT_SHIFT & pci.PCI_SLOTS - 1
    function = PciFunction(slot, address >> pci.PCI_CONFIG_FUNCTION_SHIFT & pci.PCI_FUNCTIONS - 1)
    register = address & pci.PCI_CONFIG_SIZE - 1
    own = {} if chipset is None or bus else _names_of(chipset)
    name = own.get((function, register & ~3)) or _COMMON.get(register & ~3)
    return f"{bus:02x}:{slot:02x}.{function.function}, register {register:#x}{f' ({name})' if name else ''}"


def _names_of(chipset: Chipset) -> Mapping[tuple[PciFunction, int], str]:
    """Its registers of 32 bits that a firmware programs."""
    return {
        (chipset.pm, chipset.pm_base): "PMBASE",
        (chipset.pm, chipset.pm_control & ~3): "the enable bit of PMBASE",
        **{(chipset.host, (chipset.pam + at) & ~3): "PAM" for at in range(PAM_REGISTERS)},
        **({} if chipset.pciexbar is None else {(chipset.host, chipset.pciexbar): "PCIEXBAR"}),
        **{(chipset.isa, at): "PIRQ routing" for at in chipset.pirq},
    }
