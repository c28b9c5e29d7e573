"""PCI configuration space, by the two ports of mechanism #1 and by the memory window of PCI Express (ECAM).

Source: PCI Local Bus Specification 3.0, sections 3.2.2.3.2 and 6.1; PCI Express Base Specification 3.0, section 7.2.2. A store
to CONFIG_ADDRESS of less than 32 bits does nothing, as in QEMU (hw/pci/pci_host.c). Not modelled: bits that a written 1 clears,
or that lock others (they keep what they have); base registers map nothing; no bus behind a bridge.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pvhboot.shim.abi import pci as abi
from pvhboot.shim.abi.devices import RESET_CONTROL_PORT

from ..bus import Device

_ADDRESS_BYTES: Final = 4
_RESET_CONTROL: Final = RESET_CONTROL_PORT - abi.PCI_CONFIG_ADDRESS, 1  # offset and size of an access to what lies within
_ECAM_BUS_SHIFT: Final = 20
_ECAM_DEVFN_SHIFT: Final = 12


def _ones(size: int) -> int:
    return (1 << 8 * size) - 1


class ConfigSpace:
    """The registers of one function, `config` at reset; of each byte the bits in `writable` can be written. After a store all
    `watchers` are called."""

    def __init__(self, config: bytes, writable: bytes) -> None:
        self._registers = bytearray(config)
        self._writable = writable
        self.watchers: list[Callable[[], None]] = []

    def read(self, register: int, size: int) -> int:
        """`size` bytes from a register on; all ones where there is none."""
        return int.from_bytes(self._registers[register : register + size].ljust(size, b"\xff"), "little")

    def write(self, register: int, size: int, value: int) -> None:
        """Changes the bits that can be written."""
        for at, byte in enumerate(value.to_bytes(size, "little"), register):
            if at < len(self._registers):
                mask = self._writable[at]
                self._registers[at] = self._registers[at] & ~mask | byte & mask
        for watcher in self.watchers:
            watcher()


class PciBus:
    """Bus 0: `functions` by (slot, function). Whatever is not there reads as all ones, and ignores stores."""

    def __init__(self, functions: Mapping[tuple[int, int], ConfigSpace]) -> None:
        self._functions = functions

    def ecam(self) -> "Ecam":
        """Its window in memory."""
        return Ecam(self)

    def find(self, bus: int, devfn: int) -> ConfigSpace | None:
        """The function whose number is `devfn` (slot * 8 + function)."""
        return None if bus else self._functions.get(divmod(devfn, abi.PCI_FUNCTIONS))


class ConfigPorts:
    """CONFIG_DATA; `address_port` is CONFIG_ADDRESS, with the reset control register, if there is one, at its second byte."""

    def __init__(self, bus: PciBus, reset_control: Device | None = None) -> None:
        self.address_port = _AddressPort(reset_control)
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        """From the register that the address names, `offset` bytes on; all ones if it names none."""
        space, register = self._target(offset)
        return _ones(size) if space is None else space.read(register, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """To the same."""
        space, register = self._target(offset)
        if space is not None:
            space.write(register, size, value)

    def _target(self, offset: int) -> tuple[ConfigSpace | None, int]:
        address = self.address_port.address
        if not address & abi.PCI_CONFIG_ENABLE:
            return None, 0
        bus, devfn = address >> abi.PCI_CONFIG_BUS_SHIFT & 0xFF, address >> abi.PCI_CONFIG_FUNCTION_SHIFT & 0xFF
        return self._bus.find(bus, devfn), address & 0xFF | offset


class _AddressPort:
    def __init__(self, reset_control: Device | None) -> None:
        self.address = 0
        self._reset_control = reset_control

    def read(self, offset: int, size: int) -> int:
        """What was written; its lower part at each offset, as QEMU has it."""
        if self._reset_control is not None and (offset, size) == _RESET_CONTROL:
            return self._reset_control.read(0, size)
        return self.address & _ones(size)

    def write(self, offset: int, size: int, value: int) -> None:
        """The address, whole."""
        if self._reset_control is not None and (offset, size) == _RESET_CONTROL:
            self._reset_control.write(0, size, value)
        if (offset, size) == (0, _ADDRESS_BYTES):
            self.address = value


class Ecam:
    """The memory window: 4 KiB for each function, of which those of QEMU's chipsets have the first 256 bytes."""

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus

    def read(self, offset: int, size: int) -> int:
        """From a function's register."""
        space = self._space(offset)
        return _ones(size) if space is None else space.read(offset % abi.PCIE_CONFIG_SIZE, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """To a function's register."""
        if (space := self._space(offset)) is not None:
            space.write(offset % abi.PCIE_CONFIG_SIZE, size, value)

    def _space(self, offset: int) -> ConfigSpace | None:
        return self._bus.find(offset >> _ECAM_BUS_SHIFT, offset >> _ECAM_DEVFN_SHIFT & 0xFF)
