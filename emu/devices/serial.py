"""A 16550 UART that prints: transmitter always ready, nothing ever received, no interrupt line.

Source: National Semiconductor PC16550D datasheet, "Registers". The scratch register and the loop-back of the modem lines
work, since drivers probe a port with them.
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import devices as uart

_MSR_CTS_DSR_DCD: Final = 0xB0
_IIR_NONE: Final = 0x01
_IIR_FIFO: Final = 0xC0
_MCR_LOOP: Final = 0x10
_LATCH: Final = (uart.UART_DLL, uart.UART_DLM)


class Serial16550:
    """One UART; `transmit` gets each byte that the guest sends."""

    def __init__(self, transmit: Callable[[int], None]) -> None:
        self._transmit = transmit
        self._registers = {uart.UART_IER: 0, uart.UART_LCR: 0, uart.UART_MCR: 0, uart.UART_SCR: 0}
        self._divisor = [0x0C, 0x00]  # 9600 baud
        self._fifo = False

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - the bus splits: always a byte
        """A register by its offset from the base port."""
        if offset in _LATCH and self._registers[uart.UART_LCR] & uart.UART_LCR_DLAB:
            return self._divisor[offset]
        match offset:
            case uart.UART_RBR:
                return 0
            case uart.UART_IIR:
                return _IIR_NONE | (_IIR_FIFO if self._fifo else 0)
            case uart.UART_LSR:
                return uart.UART_LSR_THRE | uart.UART_LSR_TEMT
            case uart.UART_MSR:
                return self._modem_status()
        return self._registers[offset]

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A register by its offset from the base port; line and modem status are read-only."""
        if offset in _LATCH and self._registers[uart.UART_LCR] & uart.UART_LCR_DLAB:
            self._divisor[offset] = value
        elif offset == uart.UART_THR:
            if not self._registers[uart.UART_MCR] & _MCR_LOOP:
                self._transmit(value)
        elif offset == uart.UART_FCR:
            self._fifo = bool(value & uart.UART_FCR_ENABLE)
        elif offset in self._registers:
            self._registers[offset] = value & 0x0F if offset == uart.UART_IER else value

    def _modem_status(self) -> int:
        mcr = self._registers[uart.UART_MCR]
        if not mcr & _MCR_LOOP:
            return _MSR_CTS_DSR_DCD
        # Looped back: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 4) << 4 | (mcr & 8) << 4
