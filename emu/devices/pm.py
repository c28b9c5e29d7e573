"""ACPI power management: the PM1 registers and the timer behind PMBASE, and the APM ports that switch ACPI on.

Source: see shim/abi/pm.py; widths as in QEMU hw/acpi/core.c. No event ever happens but the one of the timer that is there at
reset, as in QEMU. Where the board's time stands still the timer goes on by a microsecond at each look at it, so that two runs
are the same. Not modelled: sleep, the general-purpose events, SMI.
"""

from typing import Final

from pvhboot.shim.abi import pm as abi

from ..clock import SECOND, Clock

PM_TIMER_STEP: Final = abi.PM_TIMER_HZ // 1_000_000 + 1  # ticks from one look at it to the next
_REGISTERS_END: Final = abi.PM_TIMER + 4


class PowerPorts:
    """PM1 event and control registers and the timer; ports that are none of these read as all ones. The timer is that of a
    `clock`, if there is one."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._status = abi.PM1_STATUS_TMR_STS
        self._enable = 0
        self._control = 0
        self._timer = 0

    def enable_acpi(self, wanted: bool) -> None:
        """Sets or clears SCI_EN."""
        self._control = self._control & ~abi.PM1_CONTROL_SCI_EN | (abi.PM1_CONTROL_SCI_EN if wanted else 0)

    def read(self, offset: int, size: int) -> int:
        """A register, or a part of it."""
        if offset >= abi.PM_TIMER:
            ticks = self._timer + PM_TIMER_STEP if self._clock is None else self._clock.look() * abi.PM_TIMER_HZ // SECOND
            self._timer = ticks % (1 << abi.PM_TIMER_BITS)
        registers = bytearray(b"\xff" * max(_REGISTERS_END, offset + size))
        registers[abi.PM1_STATUS : abi.PM1_STATUS + 2] = self._status.to_bytes(2, "little")
        registers[abi.PM1_ENABLE : abi.PM1_ENABLE + 2] = self._enable.to_bytes(2, "little")
        registers[abi.PM1_CONTROL : abi.PM1_CONTROL + 2] = self._control.to_bytes(2, "little")
        registers[abi.PM_TIMER : _REGISTERS_END] = self._timer.to_bytes(4, "little")
        return int.from_bytes(registers[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """A register of 16 bits, whole or by byte. Writing status clears the events that are written as 1."""
        for at, byte in enumerate(value.to_bytes(size, "little"), offset):
            shift = at % 2 * 8
            if at & ~1 == abi.PM1_STATUS:
                self._status &= ~(byte << shift)
            elif at & ~1 == abi.PM1_ENABLE:
                self._enable = self._enable & ~(0xFF << shift) | byte << shift
            elif at & ~1 == abi.PM1_CONTROL:
                self._control = (self._control & ~(0xFF << shift) | byte << shift) & ~abi.PM1_CONTROL_SLP_EN


class ApmPorts:
    """The APM control and status ports: two bytes that are kept. A command switches ACPI on or off."""

    def __init__(self, chip: abi.PowerManagement, power: PowerPorts) -> None:
        self._chip = chip
        self._power = power
        self._bytes = bytearray(2)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """What was written."""
        return self._bytes[offset]

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Keeps the byte; in the control port it is a command, too."""
        self._bytes[offset] = value
        if offset == 0 and value in (self._chip.acpi_enable, self._chip.acpi_disable):
            self._power.enable_acpi(value == self._chip.acpi_enable)
