"""The keyboard controller, with nothing attached to it, and the ways to reset a PC by a port.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" and "System Control
Port A (hex 0092)"; Intel 82801IB (ICH9) datasheet, "RST_CNT: Reset Control Register".
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi.devices import RESET_CONTROL_CPU

_PULSE_RESET_LINE: Final = 0xFE
_PORT_92_FAST_RESET: Final = 0x01
_PORT_92_A20: Final = 0x02

# Status port.
_OUTPUT_FULL: Final = 1 << 0
_SYSTEM_FLAG: Final = 1 << 2  # the self-test has passed
_UNLOCKED: Final = 1 << 4
_TIMEOUT: Final = 1 << 6  # a device does not answer

# Commands, and what answers them.
_READ_CONFIGURATION: Final = 0x20
_WRITE_CONFIGURATION: Final = 0x60
_ANSWERS: Final = {
    0xA9: 0x02,  # test the second port: its clock line is stuck high, as where there is none
    0xAA: 0x55,  # self-test: passed
    0xAB: 0x00,  # test the first port: passed
    0xC0: 0x80,  # input port: the keyboard is not locked
    0xD0: 0x03,  # output port: no reset, A20 open
}
_ECHO: Final = 0xD2  # as if the keyboard had sent it
_ECHO_SECOND: Final = 0xD3
_TO_SECOND_PORT: Final = 0xD4
_TAKE_A_BYTE: Final = (_WRITE_CONFIGURATION, 0xD1, _ECHO, _ECHO_SECOND, _TO_SECOND_PORT)  # the next one at the data port
_NO_ANSWER: Final = 0xFE
_KEYBOARD_INTERRUPT: Final = 1 << 0  # of the configuration, which starts with the first port on


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


class KeyboardController:
    """The same ports as a driver wants them: it answers at once, and for a keyboard that is not there says so."""

    def __init__(self, reset: Callable[[str], None], interrupt: Callable[[bool], None]) -> None:
        """`interrupt` gets the level of the keyboard's line."""
        self.command_port = _DrivenCommandPort(self)
        self._reset = reset
        self._interrupt = interrupt
        self._configuration = _SYSTEM_FLAG
        self._command: int | None = None  # whose byte comes next
        self._output: int | None = None
        self._timeout = 0

    @property
    def status(self) -> int:
        """What the command port reads."""
        full = 0 if self._output is None else _OUTPUT_FULL
        return full | self._configuration & _SYSTEM_FLAG | _UNLOCKED | self._timeout

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """What was answered; 0 if nothing was."""
        value, self._output, self._timeout = self._output, None, 0
        self._interrupt(False)
        return value or 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A command's byte, or one for the keyboard, which does not answer."""
        command, self._command = self._command, None
        if command == _WRITE_CONFIGURATION:
            self._configuration = value
        elif command in (_ECHO, _ECHO_SECOND):
            self._answer(value if command == _ECHO else 0)
        elif command in (None, _TO_SECOND_PORT):
            self._answer(_NO_ANSWER)
            self._timeout = _TIMEOUT

    def command(self, value: int) -> None:
        """A byte for the controller itself."""
        self._command = value if value in _TAKE_A_BYTE else None
        if value == _PULSE_RESET_LINE:
            self._reset("the keyboard controller (0xfe to port 0x64)")
        elif value == _READ_CONFIGURATION:
            self._answer(self._configuration)
        elif value in _ANSWERS:
            self._answer(_ANSWERS[value])

    def _answer(self, value: int) -> None:
        self._output, self._timeout = value, 0
        self._interrupt(bool(self._configuration & _KEYBOARD_INTERRUPT))


class _DrivenCommandPort:
    def __init__(self, controller: KeyboardController) -> None:
        self._controller = controller

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The status."""
        return self._controller.status

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A command."""
        self._controller.command(value)


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


class ResetControl:
    """Port 0xcf9: a reset when RST_CPU goes from 0 to 1."""

    def __init__(self, reset: Callable[[str], None]) -> None:
        self._reset = reset
        self._value = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """What was written."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """RST_CPU newly set: reset."""
        rises = value & ~self._value & RESET_CONTROL_CPU
        self._value = value
        if rises:
            self._reset("port 0xcf9")
