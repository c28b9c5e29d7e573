"""The APICs: where they are, their registers, and what it takes to start a processor.

Source: Intel SDM volume 3, 11.4 (the local APIC's registers), 11.5.1 (the local vector table), 11.5.3 (errors), 11.5.4 (the
timer), 11.6.1 (ICR), 11.6.2 (logical destinations), 11.8.3 (priorities) and 9.4 (the start of the application processors);
Intel 82093AA datasheet (the I/O APIC); QEMU hw/intc/ioapic.c (24 pins, IRQ 0 on pin 2).
"""

from typing import Final

LOCAL_APIC: Final = 0xFEE00000  # physical addresses
IO_APIC: Final = 0xFEC00000
LOCAL_APIC_VERSION: Final = 0x14
IO_APIC_VERSION: Final = 0x11

LOCAL_APIC_LVT_LAST: Final = 5  # the number of the last entry of the local vector table, as the version register has it
LOCAL_APIC_BYTES: Final = 0x1000
LOCAL_APIC_STEP: Final = 0x10  # from one register of 32 bits to the next

# The local APIC's registers, physical addresses.
APIC_ID: Final = LOCAL_APIC + 0x20
APIC_VERSION: Final = LOCAL_APIC + 0x30
APIC_TPR: Final = LOCAL_APIC + 0x80
APIC_PPR: Final = LOCAL_APIC + 0xA0
APIC_EOI: Final = LOCAL_APIC + 0xB0
APIC_LDR: Final = LOCAL_APIC + 0xD0
APIC_DFR: Final = LOCAL_APIC + 0xE0
APIC_SVR: Final = LOCAL_APIC + 0xF0
APIC_ISR: Final = LOCAL_APIC + 0x100  # eight registers of 32 vectors each, as the next two have
APIC_TMR: Final = LOCAL_APIC + 0x180
APIC_IRR: Final = LOCAL_APIC + 0x200
APIC_ESR: Final = LOCAL_APIC + 0x280
APIC_ICR: Final = LOCAL_APIC + 0x300  # the lower half: writing it sends
APIC_ICR_HIGH: Final = LOCAL_APIC + 0x310
APIC_LVT_TIMER: Final = LOCAL_APIC + 0x320
APIC_LVT_THERMAL: Final = LOCAL_APIC + 0x330
APIC_LVT_COUNTERS: Final = LOCAL_APIC + 0x340
APIC_LVT_LINT0: Final = LOCAL_APIC + 0x350
APIC_LVT_LINT1: Final = LOCAL_APIC + 0x360
APIC_LVT_ERROR: Final = LOCAL_APIC + 0x370
APIC_TIMER_INITIAL: Final = LOCAL_APIC + 0x380
APIC_TIMER_CURRENT: Final = LOCAL_APIC + 0x390
APIC_TIMER_DIVIDE: Final = LOCAL_APIC + 0x3E0

APIC_VECTORS: Final = 256
APIC_FIRST_VECTOR: Final = 16  # those below cannot be sent
APIC_VECTOR: Final = 0xFF
APIC_SVR_ENABLE: Final = 1 << 8
APIC_SVR_NO_FOCUS: Final = 1 << 9  # focus checking is off: is kept, and does nothing
APIC_LVT_MASKED: Final = 1 << 16
APIC_TIMER_MODE: Final = 3 << 17  # of the timer's entry
APIC_TIMER_PERIODIC: Final = 1 << 17
APIC_TIMER_DIVIDE_1: Final = 0b1011  # all bits that there are; 2 to 128 are 0 to 3 and 8 to 10
APIC_DELIVERY: Final = 7 << 8  # of ICR, the local vector table and the I/O APIC, as the next two
APIC_ACTIVE_LOW: Final = 1 << 13  # not of ICR
APIC_LEVEL: Final = 1 << 15
APIC_DELIVERY_FIXED: Final = 0 << 8
APIC_DELIVERY_LOWEST: Final = 1 << 8
APIC_DELIVERY_EXTINT: Final = 7 << 8  # the vector is the 8259A's
APIC_ICR_LOGICAL: Final = 1 << 11
APIC_ICR_SHORTHAND: Final = 3 << 18
APIC_ICR_SELF: Final = 1 << 18
APIC_ICR_ALL: Final = 2 << 18
APIC_DESTINATION_SHIFT: Final = 24  # of the upper half of ICR, of the ID and of LDR
APIC_DFR_FLAT: Final = 0xFFFF_FFFF
APIC_DFR_MODEL_SHIFT: Final = 28
APIC_ESR_SEND_VECTOR: Final = 1 << 5
APIC_ESR_RECEIVE_VECTOR: Final = 1 << 6
APIC_ESR_REGISTER: Final = 1 << 7
APIC_ICR_INIT: Final = 5 << 8
APIC_ICR_STARTUP: Final = 6 << 8  # the lowest 8 bits are the page of the first instruction
APIC_ICR_ASSERT: Final = 1 << 14
APIC_ICR_ALL_BUT_SELF: Final = 3 << 18

CPUID_1_EBX_APIC_ID_SHIFT: Final = 24
APIC_IDS: Final = 256  # as many as 8 bits can name; the last one is everybody's

ISA_IRQS: Final = 16  # the inputs of the two 8259A; that which is the second one no device has
TIMER_PIN: Final = 2  # of the I/O APIC: IRQ 0

# The I/O APIC's two ports in memory, offsets; the registers behind them; an entry of its table, two registers a pin.
IO_APIC_INDEX: Final = 0x00
IO_APIC_DATA: Final = 0x10
IO_APIC_BYTES: Final = 0x1000
IO_APIC_PINS: Final = 24
IO_APIC_ID: Final = 0
IO_APIC_VERSION_REGISTER: Final = 1
IO_APIC_ARBITRATION: Final = 2
IO_APIC_TABLE: Final = 0x10
IO_APIC_REMOTE: Final = 1 << 14  # a level has been sent, and EOI is yet to come
IO_APIC_MASKED: Final = 1 << 16
