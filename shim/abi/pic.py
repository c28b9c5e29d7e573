"""The two 8259A interrupt controllers of a PC, as far as the board keeps what is written to them.

Source: Intel 8259A datasheet 231468, "Programming the 8259A"; QEMU hw/intc/i8259_common.c (which bits of ELCR can be set).
"""

from typing import Final

PIC_MASTER_PORT: Final = 0x20  # the mask's port follows
PIC_SLAVE_PORT: Final = 0xA0
PIC_PORTS: Final = 2

PIC_ICW1: Final = 1 << 4  # of a store to the first port: initialisation begins
PIC_ICW1_IC4: Final = 1 << 0  # ICW4 comes too
PIC_ICW1_SINGLE: Final = 1 << 1  # ICW3 does not come

ELCR_WRITABLE: Final = (0xF8, 0xDE)  # of the master's and the slave's: timer, keyboard, cascade, clock and FPU are edges
