"""The ports of the PC devices that firmware, guest and board share, and the registers that a guest of ours programs.

Sources: IBM PC AT Technical Reference, "I/O address map" (COM1, CMOS, keyboard controller); National Semiconductor PC16550D
datasheet, "Registers", table II (the UART); Intel 82801IB (ICH9) datasheet, "RST_CNT: Reset Control Register"; QEMU
hw/misc/debugexit.c (isa-debug-exit, its default port and size).
"""

from typing import Final

COM1_PORT: Final = 0x3F8
COM1_IRQ: Final = 4
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
UART_FCR_TRIGGERS: Final = (1, 4, 8, 14)  # bytes received that raise an interrupt, by the two bits at 6
UART_FIFO_SIZE: Final = 16  # bytes
UART_IER_RECEIVED: Final = 1 << 0
UART_IER_THRE: Final = 1 << 1
UART_IER_LINE: Final = 1 << 2
UART_IIR_NONE: Final = 0x01
UART_IIR_THRE: Final = 0x02
UART_IIR_RECEIVED: Final = 0x04
UART_IIR_LINE: Final = 0x06
UART_IIR_TIMEOUT: Final = 0x0C  # bytes have been received, fewer than the trigger says, and no more come
UART_IIR_FIFO: Final = 0xC0
UART_LCR_8N1: Final = 0x03  # 8 data bits, no parity, 1 stop bit
UART_LCR_DLAB: Final = 1 << 7
UART_MCR_DTR: Final = 1 << 0
UART_MCR_RTS: Final = 1 << 1
UART_MCR_OUT2: Final = 1 << 3  # on a PC: lets the interrupt through
UART_MCR_LOOP: Final = 1 << 4
UART_LSR_DR: Final = 1 << 0  # a byte has been received
UART_LSR_OE: Final = 1 << 1  # and one was lost, as nobody took those before it
UART_LSR_THRE: Final = 1 << 5  # the holding register, or the FIFO, is empty
UART_LSR_TEMT: Final = 1 << 6  # and so is the shift register: the last bit is out

UART_CLOCK: Final = 1_843_200  # Hz, of the PC's crystal
UART_CLOCKS_PER_BIT: Final = 16
UART_DIVISOR_115200: Final = UART_CLOCK // (UART_CLOCKS_PER_BIT * 115_200)

CMOS_PORT: Final = 0x70  # the index; the data port follows
I8042_DATA_PORT: Final = 0x60
I8042_COMMAND_PORT: Final = 0x64
PORT_92: Final = 0x92  # system control port A: fast reset and A20
KEYBOARD_IRQ: Final = 1
RESET_CONTROL_PORT: Final = 0xCF9
RESET_CONTROL_CPU: Final = 1 << 2  # going from 0 to 1 it resets; bits 1 and 3 say how hard

DEBUG_EXIT_PORT: Final = 0x501
DEBUG_EXIT_SIZE: Final = 2  # ports


def debug_exit_status(value: int) -> int:
    """The exit status of the QEMU process after the guest has written `value`: never 0."""
    return (value << 1 | 1) & 0xFF
