"""The interrupt lines of a PC: devices raise them, one controller listens."""

from collections.abc import Callable

from pvhboot.shim.abi.apic import ISA_IRQS

Sink = Callable[[int, bool], None]


class InterruptLines:
    """The lines IRQ0 to IRQ15, all low at first.

    A controller that is connected is told (number, level) of each change, and at once of the lines that are high. Who comes
    last takes the place of the one before: a hypervisor's controller that of the board's model.
    """

    def __init__(self) -> None:
        self._sink: Sink | None = None
        self._levels = [False] * ISA_IRQS

    def connect(self, sink: Sink) -> None:
        """From now on this controller is told."""
        self._sink = sink
        for number, level in enumerate(self._levels):
            if level:
                sink(number, level)

    def line(self, number: int) -> Callable[[bool], None]:
        """What a device calls to set one of the lines."""

        def set_level(level: bool) -> None:
            if self._levels[number] != level:
                self._levels[number] = level
                if self._sink is not None:
                    self._sink(number, level)

        return set_level
