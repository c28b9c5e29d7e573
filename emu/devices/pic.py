"""The 8259A interrupt controllers and their edge/level registers: they keep what is written, and no interrupt ever comes.

Source: see shim/abi/pic.py. Requests and interrupts in service read as 0; polling, rotation and the special mask do nothing.
An access of 16 bits to the first edge/level register never reaches the second: in QEMU (hw/intc/i8259.c) each is a device.
"""

from pvhboot.shim.abi import pic as abi


class Pic:
    """One controller: its two ports."""

    def __init__(self) -> None:
        self._mask = 0
        self._awaited = 0  # initialisation words that come at the second port before it is the mask again

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Nothing requested; the mask."""
        return self._mask if offset else 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """An initialisation word, the mask, or a command without effect here."""
        if not offset:
            if value & abi.PIC_ICW1:
                self._mask = 0
                self._awaited = 3 - bool(value & abi.PIC_ICW1_SINGLE) - (not value & abi.PIC_ICW1_IC4)
        elif self._awaited:
            self._awaited -= 1
        else:
            self._mask = value


class Elcr:
    """The byte that says which interrupts of a controller are level-triggered; `writable` are those that can be."""

    def __init__(self, writable: int) -> None:
        self._writable = writable
        self._levels = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """A bit for each interrupt: 1 is level. As often as bytes are asked for."""
        return int.from_bytes(bytes((self._levels,)) * size, "little")

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Byte after byte: the last one stays."""
        self._levels = value >> 8 * (size - 1) & self._writable
