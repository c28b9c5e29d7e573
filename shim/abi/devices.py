"""The ports of the PC devices that firmware, guest and board share, and the registers that a guest of ours programs.

Sources: IBM PC AT Technical Reference, "I/O address map" (COM1, CMOS, keyboard controller); National Semiconductor PC16550D
datasheet, "Registers", table II (the UART); QEMU hw/misc/debugexit.c (isa-debug-exit, its default port and size).
"""

from typing import Final

COM1_PORT: Final = 0x3F8
UART_SIZE: Final = 8  # ports

# Offsets from the base port. The divisor latch takes the place of the first two while LCR has DLAB.
UART_RBR: Final = 0  # reading
UART_THR: Final = 0  # writing
UART_DLL: Final = 0
UART_IER: Final = 1
UART_DLM: Final = 1
UART_IIR: Final = 2  # reading
UART_FCR: Final = 2  # writing
UART_LCR: Final = 3
UART_MCR: Final = 4
UART_LSR: Final = 5
UART_MSR: Final = 6
UART_SCR: Final = 7

UART_FCR_ENABLE: Final = 1 << 0
UART_FCR_CLEAR_RX: Final = 1 << 1
UART_FCR_CLEAR_TX: Final = 1 << 2
UART_LCR_8N1: Final = 0x03  # 8 data bits, no parity, 1 stop bit
UART_LCR_DLAB: Final = 1 << 7
UART_MCR_DTR: Final = 1 << 0
UART_MCR_RTS: Final = 1 << 1
UART_LSR_THRE: Final = 1 << 5  # the holding register, or the FIFO, is empty
UART_LSR_TEMT: Final = 1 << 6  # and so is the shift register: the last bit is out

UART_CLOCK: Final = 1_843_200  # Hz, of the PC's crystal
UART_CLOCKS_PER_BIT: Final = 16
UART_DIVISOR_115200: Final = UART_CLOCK // (UART_CLOCKS_PER_BIT * 115_200)

CMOS_PORT: Final = 0x70  # the index; the data port follows
I8042_DATA_PORT: Final = 0x60
I8042_COMMAND_PORT: Final = 0x64
PORT_92: Final = 0x92  # system control port A: fast reset and A20

DEBUG_EXIT_PORT: Final = 0x501
DEBUG_EXIT_SIZE: Final = 2  # ports


def debug_exit_status(value: int) -> int:
    """The exit status of the QEMU process after the guest has written `value`: never 0."""
    return (value << 1 | 1) & 0xFF
