"""Power management of QEMU's two PCs: the ports behind PMBASE, and the port by which ACPI is switched on.

Sources: ACPI specification 6.4, section 4.8.3 (PM1 registers, PM timer); Intel 82371AB (PIIX4) datasheet 290562, section 7.2;
Intel ICH9 datasheet 316972, section 13.8.3; QEMU hw/acpi/piix4.c and include/hw/acpi/ich9.h (the values at the APM port, which
the FADT tells the guest).
"""

from typing import Final, NamedTuple

from .chipset import I440FX, ICH9

# Offsets from PMBASE. PM1 registers are of 16 bits, the timer of 32.
PM1_STATUS: Final = 0
PM1_ENABLE: Final = 2
PM1_CONTROL: Final = 4
PM_TIMER: Final = 8

PM1_STATUS_TMR_STS: Final = 1 << 0  # the timer has overflowed; writing 1 clears it
PM1_CONTROL_SCI_EN: Final = 1 << 0  # the chipset's events are ACPI's
PM1_CONTROL_SLP_EN: Final = 1 << 13  # write-only
PM_TIMER_BITS: Final = 24
PM_TIMER_HZ: Final = 3_579_545

APM_CONTROL_PORT: Final = 0xB2  # the status port, a byte to keep, follows


class PowerManagement(NamedTuple):
    """`ports` that PMBASE gives, to a multiple of as many; what switches ACPI on and off at the APM port."""

    ports: int
    acpi_enable: int
    acpi_disable: int


POWER_MANAGEMENT: Final = {
    I440FX.name: PowerManagement(ports=64, acpi_enable=0xF1, acpi_disable=0xF0),
    ICH9.name: PowerManagement(ports=128, acpi_enable=0x02, acpi_disable=0x03),
}
