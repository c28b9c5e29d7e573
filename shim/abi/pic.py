"""The two 8259A interrupt controllers of a PC.

Source: Intel 8259A datasheet 231468, "Programming the 8259A" (the command words and their bits), "Interrupt sequence" (INTA,
the default IR7); IBM PC AT Technical Reference, "System interrupts" (the second one on IR2 of the first); QEMU
hw/intc/i8259_common.c (which bits of ELCR can be set).
"""

from typing import Final

PIC_MASTER_PORT: Final = 0x20  # the mask's port follows
PIC_SLAVE_PORT: Final = 0xA0
PIC_PORTS: Final = 2
PIC_INPUTS: Final = 8  # of each; the highest has the lowest priority until it is rotated
PIC_CASCADE: Final = 2  # the master's input that is the slave

PIC_ICW1: Final = 1 << 4  # of a store to the first port: initialisation begins
PIC_ICW1_IC4: Final = 1 << 0  # ICW4 comes too
PIC_ICW1_SINGLE: Final = 1 << 1  # ICW3 does not come
PIC_ICW1_LEVEL: Final = 1 << 3  # all inputs are level-triggered
PIC_ICW2_BASE: Final = 0xF8  # the vector of input 0
PIC_ICW4_8086: Final = 1 << 0
PIC_ICW4_AUTO_EOI: Final = 1 << 1
PIC_ICW4_NESTED: Final = 1 << 4  # special fully nested: the cascade's interrupts may interrupt one another

# OCW2, a store to the first port with bits 3 and 4 clear: what it does, with the input in its lowest bits where it is specific.
PIC_OCW2_COMMAND: Final = 7 << 5
PIC_OCW2_INPUT: Final = 7
PIC_ROTATE_IN_AUTO_EOI_OFF: Final = 0 << 5
PIC_EOI: Final = 1 << 5
PIC_SPECIFIC_EOI: Final = 3 << 5
PIC_ROTATE_IN_AUTO_EOI_ON: Final = 4 << 5
PIC_ROTATE_ON_EOI: Final = 5 << 5
PIC_SET_PRIORITY: Final = 6 << 5
PIC_ROTATE_ON_SPECIFIC_EOI: Final = 7 << 5

PIC_OCW3: Final = 1 << 3
PIC_OCW3_READ_ISR: Final = 1 << 0  # IRR, if it is clear
PIC_OCW3_READ: Final = 1 << 1  # choose the register that is read
PIC_OCW3_POLL: Final = 1 << 2
PIC_OCW3_MASK_MODE: Final = 1 << 5  # the special mask mode, on or off
PIC_OCW3_SET_MASK_MODE: Final = 1 << 6
PIC_POLL_REQUEST: Final = 1 << 7  # of a polled word: there is one, its input in the lowest bits

ELCR_WRITABLE: Final = (0xF8, 0xDE)  # of the master's and the slave's: timer, keyboard, cascade, clock and FPU are edges
