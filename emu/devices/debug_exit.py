"""QEMU's isa-debug-exit: a write ends the machine. QEMU's process status is then (value << 1) | 1."""

from collections.abc import Callable


class DebugExit:
    """Calls `leave` with the value that the guest writes."""

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave = leave

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Zero, as QEMU gives."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Leaves."""
        self._leave(value)
