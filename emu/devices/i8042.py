"""The two classic ways to reset a PC: the keyboard controller's pulse command and port 0x92. No keyboard is attached.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" and "System Control
Port A (hex 0092)".
"""

from collections.abc import Callable
from typing import Final

_PULSE_RESET_LINE: Final = 0xFE
_PORT_92_FAST_RESET: Final = 0x01
_PORT_92_A20: Final = 0x02


class I8042:
    """Data port 0x60; its `command_port` is 0x64. Empty buffers, and a reset on command 0xfe."""

    def __init__(self, reset: Callable[[str], None]) -> None:
        self.command_port = _CommandPort(reset)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """No key."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Dropped: nothing is attached."""


class _CommandPort:
    def __init__(self, reset: Callable[[str], None]) -> None:
        self._reset = reset

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Both buffers empty."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A command; all but the reset are dropped."""
        if value == _PULSE_RESET_LINE:
            self._reset("the keyboard controller (0xfe to port 0x64)")


class FastReset:
    """Port 0x92: bit 0 resets; bit 1, the A20 gate, always reads as open."""

    def __init__(self, reset: Callable[[str], None]) -> None:
        self._reset = reset

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """A20 open."""
        return _PORT_92_A20

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Bit 0 set: reset."""
        if value & _PORT_92_FAST_RESET:
            self._reset("port 0x92")
