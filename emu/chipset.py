"""The PCI chipset of a board: configuration space on the bus, and what its registers bring about."""

from collections.abc import Callable, Sequence
from typing import Final

from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.recording import RecordedFunction
from pvhboot.shim.abi import chipset as abi
from pvhboot.shim.abi import pci, pic, pm
from pvhboot.shim.abi.x86 import IO_PORTS
from pvhboot.shim.errors import BootError

from .bus import Bus, Device
from .clock import Clock
from .devices.pam import Pam
from .devices.pci import ConfigPorts, ConfigSpace, Ecam, PciBus
from .devices.pic import Elcr
from .devices.pm import ApmPorts, PowerPorts
from .weakly import weakly

# PCIEXBAR (82Q35 datasheet, section 5.1): the window's size by the two bits above the one that enables it.
_ECAM_SIZES: Final = {0: abi.PCIEXBAR_SIZE, 1: abi.PCIEXBAR_SIZE >> 1, 2: abi.PCIEXBAR_SIZE >> 2}
_ECAM_BASE: Final = (1 << 36) - 1


def add_chipset(
    bus: Bus,
    chipset: abi.Chipset,
    memory: GuestMemory,
    functions: Sequence[RecordedFunction],
    reset_control: Device | None = None,
    clock: Clock | None = None,
) -> None:
    """Puts the chipset with these functions on the bus, with `reset_control` at its port, and a timer that goes by `clock`;
    BootError if a function is missing that it needs."""
    spaces = {(each.slot, each.function): ConfigSpace(each.config, each.writable) for each in functions}
    for needed in (chipset.host, chipset.pm):
        if (needed.slot, needed.function) not in spaces:
            raise BootError(f"the recording has no PCI function {needed.slot:02x}.{needed.function}: the chipset needs it")
    pci_bus = PciBus(spaces)
    ports = ConfigPorts(pci_bus, reset_control)
    bus.claim_ports(pci.PCI_CONFIG_ADDRESS, 4, "pci-address", ports.address_port, width=4)
    bus.claim_ports(pci.PCI_CONFIG_DATA, 4, "pci-config", ports, width=4)
    _watch_host(bus, chipset, memory, spaces[chipset.host], weakly(pci_bus.ecam))
    power = PowerPorts(clock)
    _watch_power(bus, chipset, spaces[chipset.pm], power)
    bus.claim_ports(pm.APM_CONTROL_PORT, 2, "apm", ApmPorts(pm.POWER_MANAGEMENT[chipset.name], power))
    for port, writable in enumerate(pic.ELCR_WRITABLE, abi.ELCR_PORT):
        bus.claim_ports(port, 1, "elcr", Elcr(writable), width=2)


def _watch_host(bus: Bus, chipset: abi.Chipset, memory: GuestMemory, space: ConfigSpace, ecam: Callable[[], Ecam]) -> None:
    pam, move, read = Pam(memory), weakly(bus.move_memory), weakly(space.read)

    def update() -> None:
        pam.update(read(chipset.pam, abi.PAM_REGISTERS).to_bytes(abi.PAM_REGISTERS, "little"))
        if chipset.pciexbar is not None:
            register = read(chipset.pciexbar, 8)
            size = _ECAM_SIZES.get(register >> 1 & 3)
            enabled = size is not None and register & abi.PCIEXBAR_ENABLE
            move("ecam", ecam(), (register & _ECAM_BASE & -size, size) if size and enabled else None)

    update()
    space.watchers.append(update)


def _watch_power(bus: Bus, chipset: abi.Chipset, space: ConfigSpace, power: PowerPorts) -> None:
    count, move, read = pm.POWER_MANAGEMENT[chipset.name].ports, weakly(bus.move_ports), weakly(space.read)

    def update() -> None:
        base = read(chipset.pm_base, 4) & (IO_PORTS - 1) & -count
        enabled = read(chipset.pm_control, 1) & chipset.pm_enable
        move("pm", power, 4, (base, count) if enabled else None)

    update()
    space.watchers.append(update)
