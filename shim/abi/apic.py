"""The APICs: where they are, and what it takes to start a processor.

Source: Intel SDM volume 3, 11.4 (the local APIC's registers), 11.6.1 (ICR) and 9.4 (the start of the application processors);
Intel 82093AA datasheet (the I/O APIC); QEMU hw/intc/ioapic.c (24 pins, IRQ 0 on pin 2).
"""

from typing import Final

LOCAL_APIC: Final = 0xFEE00000  # physical addresses
IO_APIC: Final = 0xFEC00000
LOCAL_APIC_VERSION: Final = 0x14
IO_APIC_VERSION: Final = 0x11

APIC_SVR: Final = LOCAL_APIC + 0xF0
APIC_SVR_ENABLE: Final = 1 << 8
APIC_ICR: Final = LOCAL_APIC + 0x300  # the lower half: writing it sends
APIC_ICR_INIT: Final = 5 << 8
APIC_ICR_STARTUP: Final = 6 << 8  # the lowest 8 bits are the page of the first instruction
APIC_ICR_ASSERT: Final = 1 << 14
APIC_ICR_ALL_BUT_SELF: Final = 3 << 18

CPUID_1_EBX_APIC_ID_SHIFT: Final = 24
APIC_IDS: Final = 256  # as many as 8 bits can name; the last one is everybody's

ISA_IRQS: Final = 16
CASCADE_IRQ: Final = 2  # the second PIC: no device has it
TIMER_PIN: Final = 2  # of the I/O APIC: IRQ 0
