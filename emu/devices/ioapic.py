"""The I/O APIC: the lines of a PC, each to a vector of the local APIC.

Source: see shim/abi/apic.py. Not modelled: delivery modes other than fixed and lowest priority, and messages to other
processors.
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import apic as abi

_WRITABLE: Final = (
    0xFF << 32 + abi.APIC_DESTINATION_SHIFT
    | abi.IO_APIC_MASKED
    | abi.APIC_LEVEL
    | abi.APIC_ACTIVE_LOW
    | abi.APIC_ICR_LOGICAL
    | abi.APIC_DELIVERY
    | abi.APIC_VECTOR
)


class IoApic:
    """Its pins and registers; `send` is given the vector of each interrupt, and whether it is a level."""

    def __init__(self, send: Callable[[int, bool], None]) -> None:
        self._send = send
        self._id = self._index = 0
        self._levels = 0
        self._entries = [abi.IO_APIC_MASKED] * abi.IO_APIC_PINS

    def set_line(self, number: int, level: bool) -> None:
        """IRQ 0 to 15 of the PC, of which 0 is on another pin."""
        pin = abi.TIMER_PIN if number == 0 else number
        rises = level and not self._levels >> pin & 1
        self._levels = self._levels & ~(1 << pin) | level << pin
        if rises or (level and self._entries[pin] & abi.APIC_LEVEL):
            self._deliver(pin)

    def end(self, vector: int) -> None:
        """The local APIC's EOI of a vector: a level that is still high asks again."""
        for pin, entry in enumerate(self._entries):
            if entry & abi.APIC_VECTOR == vector and entry & abi.IO_APIC_REMOTE:
                self._entries[pin] &= ~abi.IO_APIC_REMOTE
                if self._levels >> pin & 1:
                    self._deliver(pin)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The index, or the register that it names."""
        if offset == abi.IO_APIC_INDEX:
            return self._index
        if offset != abi.IO_APIC_DATA:
            return 0
        match self._index:
            case abi.IO_APIC_ID | abi.IO_APIC_ARBITRATION:
                return self._id
            case abi.IO_APIC_VERSION_REGISTER:
                return abi.IO_APIC_VERSION | abi.IO_APIC_PINS - 1 << 16
        pin, upper = divmod(self._index - abi.IO_APIC_TABLE, 2)
        return self._entries[pin] >> 32 * upper & 0xFFFF_FFFF if 0 <= pin < abi.IO_APIC_PINS else 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """The same; what a pin is about to ask for it asks for when it is unmasked, if it is a level."""
        if offset == abi.IO_APIC_INDEX:
            self._index = value & 0xFF
        elif offset == abi.IO_APIC_DATA and self._index == abi.IO_APIC_ID:
            self._id = value & 0x0F00_0000
        elif offset == abi.IO_APIC_DATA:
            pin, upper = divmod(self._index - abi.IO_APIC_TABLE, 2)
            if 0 <= pin < abi.IO_APIC_PINS:
                self._program(pin, upper, value)

    def _program(self, pin: int, upper: int, value: int) -> None:
        old = self._entries[pin]
        other = 0xFFFF_FFFF << 32 * (1 - upper)
        entry = (old & other | value << 32 * upper) & _WRITABLE | old & abi.IO_APIC_REMOTE
        self._entries[pin] = entry if entry & abi.APIC_LEVEL else entry & ~abi.IO_APIC_REMOTE
        if entry & abi.APIC_LEVEL and self._levels >> pin & 1:
            self._deliver(pin)

    def _deliver(self, pin: int) -> None:
        entry = self._entries[pin]
        fixed = entry & abi.APIC_DELIVERY in (abi.APIC_DELIVERY_FIXED, abi.APIC_DELIVERY_LOWEST)
        if not fixed or entry & (abi.IO_APIC_MASKED | abi.IO_APIC_REMOTE):
            return
        level = bool(entry & abi.APIC_LEVEL)
        if level:
            self._entries[pin] |= abi.IO_APIC_REMOTE
        self._send(entry & abi.APIC_VECTOR, level)
