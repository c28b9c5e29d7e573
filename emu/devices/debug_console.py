"""The debug console of Bochs and QEMU (isa-debugcon): a byte written is printed, and a read says that it is there."""

from typing import Final

from ..kept import keep_printed

_PRESENT: Final = 0xE9


class DebugConsole:
    """Collects what is written into `output`, the last of it."""

    def __init__(self, output: bytearray) -> None:
        self._output = output

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """0xe9, by which software finds the port."""
        return _PRESENT

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Prints one byte."""
        self._output.append(value)
        keep_printed(self._output)
