"""A 16550 UART: prints at once, receives what somebody types, and raises its interrupts.

Source: National Semiconductor PC16550D datasheet, "Registers" and "FIFO interrupt mode operation". The scratch register and
the loop-back work, since drivers probe a port with them. The transmitter is always ready; what has been received and is less
than the trigger level has timed out. Not modelled: modem status changes, and what can only go wrong on a wire (parity,
framing, break).
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import devices as uart

_MSR_CTS_DSR_DCD: Final = 0xB0
_LATCH: Final = (uart.UART_DLL, uart.UART_DLM)
_TRIGGER_SHIFT: Final = 6
_IMPLEMENTED: Final = {uart.UART_IER: 0x0F, uart.UART_MCR: 0x1F}  # bits; the others read as 0


class Serial16550:
    """One UART; `transmit` gets each byte that the guest sends, `interrupt` the level of its line."""

    def __init__(self, transmit: Callable[[int], None], interrupt: Callable[[bool], None] = lambda _level: None) -> None:
        self.waits_for_rts = False  # what is received waits until the guest requests it, as with a cable that has that wire
        self._transmit = transmit
        self._interrupt = interrupt
        self._registers = {uart.UART_IER: 0, uart.UART_LCR: 0, uart.UART_MCR: 0, uart.UART_SCR: 0}
        self._divisor = [0x0C, 0x00]  # 9600 baud
        self._fifo = False
        self._trigger = 1
        self._wire = bytearray()  # what has been typed and is not received yet
        self._received = bytearray()
        self._overrun = self._emptied = False  # `emptied`: the transmitter has, and nobody has been told

    @property
    def waiting(self) -> int:
        """How many bytes have been typed that the guest has not read."""
        return len(self._wire) + len(self._received)

    def receive(self, data: bytes) -> None:
        """Somebody types: it is received as fast as the guest reads it, none of it lost."""
        self._wire += data
        self._refill()
        self._update()

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - the bus splits: always a byte
        """A register by its offset from the base port."""
        if offset in _LATCH and self._registers[uart.UART_LCR] & uart.UART_LCR_DLAB:
            return self._divisor[offset]
        match offset:
            case uart.UART_RBR:
                return self._take()
            case uart.UART_IIR:
                return self._identify()
            case uart.UART_LSR:
                return self._line_status()
            case uart.UART_MSR:
                return self._modem_status()
        return self._registers[offset]

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A register by its offset from the base port; line and modem status are read-only."""
        if offset in _LATCH and self._registers[uart.UART_LCR] & uart.UART_LCR_DLAB:
            self._divisor[offset] = value
        elif offset == uart.UART_THR:
            self._send(value)
        elif offset == uart.UART_FCR:
            self._control_fifo(value)
        elif offset in self._registers:
            self._set(offset, value)
        self._update()

    def _set(self, offset: int, value: int) -> None:
        before = self._registers[offset]
        self._registers[offset] = value & _IMPLEMENTED.get(offset, 0xFF)
        if offset == uart.UART_IER and value & ~before & uart.UART_IER_THRE:
            self._emptied = True  # switched on, the interrupt comes at once
        elif offset == uart.UART_MCR:
            self._refill()

    def _send(self, value: int) -> None:
        self._emptied = False
        self._update()  # so that each byte's interrupt is one of its own
        if not self._registers[uart.UART_MCR] & uart.UART_MCR_LOOP:
            self._transmit(value)
        elif len(self._received) < self._room:
            self._received.append(value)
        else:
            self._overrun = True
            if not self._fifo:
                self._received[:] = (value,)
        self._emptied = True

    def _control_fifo(self, value: int) -> None:
        enabled = bool(value & uart.UART_FCR_ENABLE)
        if enabled != self._fifo or (enabled and value & uart.UART_FCR_CLEAR_RX):
            self._received.clear()
        self._fifo = enabled
        self._trigger = uart.UART_FCR_TRIGGERS[value >> _TRIGGER_SHIFT] if enabled else 1
        self._refill()

    @property
    def _room(self) -> int:
        return uart.UART_FIFO_SIZE if self._fifo else 1

    def _refill(self) -> None:
        """Receives from the wire what there is room for."""
        mcr = self._registers[uart.UART_MCR]
        if mcr & uart.UART_MCR_LOOP or (self.waits_for_rts and not mcr & uart.UART_MCR_RTS):
            return
        count = max(self._room - len(self._received), 0)
        self._received += self._wire[:count]
        del self._wire[:count]

    def _take(self) -> int:
        value = self._received.pop(0) if self._received else 0
        self._refill()
        self._update()
        return value

    def _pending(self) -> int:
        """What the interrupt with the highest priority is called."""
        enabled = self._registers[uart.UART_IER]
        if enabled & uart.UART_IER_LINE and self._overrun:
            return uart.UART_IIR_LINE
        if enabled & uart.UART_IER_RECEIVED and self._received:
            return uart.UART_IIR_RECEIVED if len(self._received) >= self._trigger else uart.UART_IIR_TIMEOUT
        if enabled & uart.UART_IER_THRE and self._emptied:
            return uart.UART_IIR_THRE
        return uart.UART_IIR_NONE

    def _identify(self) -> int:
        pending = self._pending()
        if pending == uart.UART_IIR_THRE:
            self._emptied = False
            self._update()
        return pending | (uart.UART_IIR_FIFO if self._fifo else 0)

    def _update(self) -> None:
        """Sets the line, which OUT2 lets through; looped back, OUT2 is off at the pin."""
        let_through = self._registers[uart.UART_MCR] & (uart.UART_MCR_OUT2 | uart.UART_MCR_LOOP) == uart.UART_MCR_OUT2
        self._interrupt(let_through and self._pending() != uart.UART_IIR_NONE)

    def _line_status(self) -> int:
        status = uart.UART_LSR_THRE | uart.UART_LSR_TEMT
        if self._received:
            status |= uart.UART_LSR_DR
        if self._overrun:
            status |= uart.UART_LSR_OE
            self._overrun = False
            self._update()
        return status

    def _modem_status(self) -> int:
        mcr = self._registers[uart.UART_MCR]
        if not mcr & uart.UART_MCR_LOOP:
            return _MSR_CTS_DSR_DCD
        # Looped back: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        return (mcr & 1) << 5 | (mcr & 2) << 3 | (mcr & 4) << 4 | (mcr & 8) << 4
