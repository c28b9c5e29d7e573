"""The chipsets of QEMU's two PCs: what firmware has to program in them.

Sources: Intel 82441FX (PMC) datasheet 290549, section 3 (PAM); Intel 82371AB (PIIX4) datasheet 290562, sections 4.1 (PIRQRC)
and 7.1 (PMBASE, PMREGMISC); Intel Q35 (82Q35) datasheet 316966, sections 5.1 (PCIEXBAR, PAM); Intel ICH9 datasheet 316972,
sections 13.1 (PMBASE, ACPI_CNTL, PIRQ routing) and 10.1 (the interrupts of its devices).
"""

from typing import Final, NamedTuple

from .pci import PCI_SLOTS


class PciFunction(NamedTuple):
    """A function of bus 0."""

    slot: int
    function: int


class Chipset(NamedTuple):
    """Where a chipset has its registers, all on bus 0.

    `host`: the host bridge, `host_id` its device and vendor numbers as one 32-bit register. `pam`: the register of the F
    segment among the host bridge's PAM registers, the first of seven. `pciexbar`: the host bridge's register of the window on
    configuration space (ECAM), None without. `isa`: the bridge with the PIRQ routing registers `pirq` (each of 4 bytes, a PIRQ
    a byte). `pm`: the function with PMBASE (`pm_base`) and the byte (`pm_control`) with the bit (`pm_enable`) that opens its
    ports. `pirqs`: by slot, the number of the PIRQ that its INTA# is; the other pins follow in turn, within the group of four.
    `pins`: by PIRQ, the pin of the I/O APIC.
    """

    name: str
    host: PciFunction
    host_id: int
    pam: int
    pciexbar: int | None
    isa: PciFunction
    pirq: tuple[int, ...]
    pm: PciFunction
    pm_base: int
    pm_control: int
    pm_enable: int
    pirqs: tuple[int, ...]
    pins: tuple[int, ...]


# PAM (abi/pam.py has its bits): the byte at `pam` is about the F segment, the six that follow about C0000-EFFFF in front of it.
PAM_REGISTERS: Final = 7
UPPER_MEMORY: Final = 0xC0000  # physical address, where those pieces begin
F_SEGMENT: Final = 0xF0000  # physical addresses, with the ROM's low copy until PAM says otherwise
F_SEGMENT_END: Final = 0x100000
LOW_HOLE: Final = 0xA0000  # where the RAM from 0 ends on a PC: the legacy video memory follows

PM_BASE: Final = 0x600  # the I/O ports of power management: where SeaBIOS and qboot have them too
PM_BASE_IO: Final = 1  # bit 0 of a base register: it is one of I/O ports

PCIEXBAR: Final = 0xB0000000  # physical address of ECAM, as SeaBIOS and qboot have it
PCIEXBAR_ENABLE: Final = 1  # all 256 buses
PCIEXBAR_SIZE: Final = 256 << 20  # bytes

ELCR_PORT: Final = 0x4D0  # a byte for IRQ 0 to 7, behind it one for IRQ 8 to 15: a bit that is 1 is level triggered
PIRQ_IRQS: Final = (10, 10, 11, 11)  # the IRQs of PIRQA-D, and of PIRQE-H

I440FX: Final = Chipset(
    name="i440fx",
    host=PciFunction(0, 0),
    host_id=0x12378086,
    pam=0x59,
    pciexbar=None,
    isa=PciFunction(1, 0),
    pirq=(0x60,),
    pm=PciFunction(1, 3),
    pm_base=0x40,
    pm_control=0x80,
    pm_enable=1 << 0,
    pirqs=tuple((slot - 1) % 4 for slot in range(PCI_SLOTS)),  # QEMU hw/isa/piix3.c (pci_slot_get_pirq)
    pins=PIRQ_IRQS + PIRQ_IRQS,  # those of the PIC's IRQs: the I/O APIC has none of its own for PCI
)

# Of slots 25 to 31, the ICH9's own, the pins are PIRQA-D, but for the PCI bridge's; the others have PIRQE-H (QEMU
# hw/isa/lpc_ich9.c).
_ICH9_OWN: Final = (25, 26, 27, 28, 29, 31)

ICH9: Final = Chipset(
    name="q35",
    host=PciFunction(0, 0),
    host_id=0x29C08086,
    pam=0x90,
    pciexbar=0x60,
    isa=PciFunction(31, 0),
    pirq=(0x60, 0x68),
    pm=PciFunction(31, 0),
    pm_base=0x40,
    pm_control=0x44,
    pm_enable=1 << 7,
    pirqs=tuple(0 if slot in _ICH9_OWN else 4 if slot == 30 else 4 + slot % 4 for slot in range(PCI_SLOTS)),
    pins=tuple(range(16, 24)),
)
