"""Asks a QEMU that does not run what its firmware would see: a Recording.

QEMU makes the ACPI tables when the firmware first looks at them, of what the chipset's registers hold then. So the power
management ports and ECAM are put where firmware puts them first.
"""

import shutil
from collections.abc import Iterator, Sequence
from typing import Final

from pvhboot.loader.recording import RecordedFile, RecordedFunction, Recording
from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import chipset as abi
from pvhboot.shim.abi import fw_cfg, pci
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.abi.pvh import MEMMAP_TYPE_RAM
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MachineSpec

from ..names import TCG
from .command import PROGRAM
from .process import DAEMONIZE, output_of
from .qtest import Qtest, QtestMachine

_DESCRIPTOR: Final = 0x1000  # physical addresses of RAM that is free, as nothing runs
_BUFFER: Final = 0x10000
_CHUNK: Final = 0x10000  # bytes
_ITEM_BYTES: Final = 0x1000  # of an item that are looked at: no single one is longer
_FILE_MAX: Final = 4 << 20  # bytes
# The plan has these.
_PLANNED_KEYS: Final = {
    fw_cfg.FW_CFG_SIGNATURE,
    fw_cfg.FW_CFG_ID,
    fw_cfg.FW_CFG_RAM_SIZE,
    *range(fw_cfg.FW_CFG_KERNEL_ADDR, fw_cfg.FW_CFG_KERNEL_SIZE + 1),
    *range(fw_cfg.FW_CFG_INITRD_ADDR, fw_cfg.FW_CFG_INITRD_SIZE + 1),
    *range(fw_cfg.FW_CFG_KERNEL_ENTRY, fw_cfg.FW_CFG_FILE_DIR + 1),
}
# Those of which another one tells the size.
_SIZED_KEYS: Final = {
    fw_cfg.FW_CFG_CMDLINE_SIZE: fw_cfg.FW_CFG_CMDLINE_DATA,
    fw_cfg.FW_CFG_SETUP_SIZE: fw_cfg.FW_CFG_SETUP_DATA,
}
# What no firmware of a PVH boot looks at, and is large, or depends on the kernel; and what the plan has.
_LEFT_OUT: Final = (b"bootorder", b"etc/fdt", fw_cfg.E820_FILE)
_OPTION_ROMS: Final = b"genroms/"


def record(spec: MachineSpec, memory: int, cpus: int, extra: Sequence[str]) -> Recording:
    """Of QEMU's machine for `spec`, with `memory` bytes of RAM and further arguments. BootError for all that can go wrong."""
    if shutil.which(PROGRAM) is None:
        raise BootError(f"a recording needs {PROGRAM} on the PATH: install it (qemu-system-x86)")
    if DAEMONIZE in extra:
        raise BootError(f"{DAEMONIZE}: nobody could end a QEMU in the background")
    with QtestMachine(spec, memory, cpus, TCG, extra) as machine:
        _require_machine(machine, spec)
        spaces = {} if spec.chipset is None else _config_spaces(machine)
        if spec.chipset is not None:
            _program(machine, spec.chipset)
        reader = FwCfgReader(machine)
        size = int.from_bytes(reader.item(fw_cfg.FW_CFG_RAM_SIZE, 8), "little")
        if size != memory:
            raise BootError(f"QEMU has {show_size(size)} of memory, not {show_size(memory)}: give it by --memory")
        items = {key: data for key in _item_keys() if (data := reader.item(key, _ITEM_BYTES).rstrip(b"\0"))}
        files = dict(reader.files())
        functions = tuple(
            RecordedFunction(slot, function, config, _writable(machine, slot, function))
            for (slot, function), config in spaces.items()
        )
    count = int.from_bytes(items.get(fw_cfg.FW_CFG_NB_CPUS, b""), "little")
    return Recording(qemu_version(), spec.name, memory, count, items, files, functions)


def _require_machine(machine: QtestMachine, spec: MachineSpec) -> None:
    """BootError if the further arguments have made another machine of it."""
    machine.port_write(pci.PCI_CONFIG_ADDRESS, 4, pci.config_address(0, 0, pci.PCI_VENDOR_ID))
    found = machine.port_read(pci.PCI_CONFIG_DATA, 4)
    if found != (0xFFFFFFFF if spec.chipset is None else spec.chipset.host_id):
        raise BootError(f"this QEMU is no {spec.name}: its host bridge is {found:#010x}")


def reserved_by_host(spec: MachineSpec, memory: int, accelerator: str, extra: Sequence[str]) -> tuple[E820Entry, ...]:
    """What such a QEMU's etc/e820 has beside RAM. UnavailableError if there is no QEMU, BootError if it does not start."""
    with QtestMachine(spec, memory, 1, accelerator, extra) as machine:
        reader = FwCfgReader(machine)
        size, key = next(((entry.size, entry.select) for name, entry in reader.directory() if name == fw_cfg.E820_FILE), (0, 0))
        data = reader.item(key, size)
    entries = (E820_ENTRY.unpack(data[at : at + E820_ENTRY.size]) for at in range(0, size, E820_ENTRY.size))
    return tuple(entry for entry in entries if entry.type != MEMMAP_TYPE_RAM)


def read_items(machine: Qtest) -> dict[int, bytes]:
    """All that fw_cfg has but kernel and initrd, by key, of a QEMU that stands still. RAM is left as it was."""
    before = [(paddr, machine.read(paddr, size)) for paddr, size in ((_DESCRIPTOR, fw_cfg.FW_CFG_DMA.size), (_BUFFER, _CHUNK))]
    try:
        reader = FwCfgReader(machine)
        items = {key: reader.item(key, _ITEM_BYTES) for key in (*_item_keys(), *_PLANNED_KEYS)}
        for size_key, key in _SIZED_KEYS.items():
            size = int.from_bytes(items[size_key][:4], "little")
            if size > _FILE_MAX:
                raise BootError(f"QEMU's fw_cfg item {key:#x} has {size} bytes: too many to record")
            items[key] = reader.item(key, size)
        files = list(reader.directory())
        items[fw_cfg.FW_CFG_FILE_DIR] = reader.item(
            fw_cfg.FW_CFG_FILE_DIR, fw_cfg.FW_CFG_FILE_COUNT_BYTES + len(files) * fw_cfg.FW_CFG_FILE.size
        )
        return items | {entry.select: reader.item(entry.select, entry.size) for _name, entry in files}
    finally:
        for paddr, data in before:
            machine.write(paddr, data)


def qemu_version() -> str:
    """As QEMU tells it; BootError if there is none."""
    text = output_of(PROGRAM, "--version").decode(errors="replace")
    return text.partition("\n")[0].removeprefix("QEMU emulator version ")


def _item_keys() -> Iterator[int]:
    """Those below the files, and as many of the PC's own."""
    for key in range(fw_cfg.FW_CFG_FILE_FIRST):
        if key not in _PLANNED_KEYS:
            yield key
        yield fw_cfg.FW_CFG_ARCH_LOCAL + key


def _config_spaces(machine: QtestMachine) -> dict[tuple[int, int], bytes]:
    """By (slot, function) on bus 0."""
    spaces = {}
    for slot in range(pci.PCI_SLOTS):
        for function in range(pci.PCI_FUNCTIONS):
            space = b"".join(
                _config_read(machine, slot, function, register).to_bytes(4, "little")
                for register in range(0, pci.PCI_CONFIG_SIZE, 4)
            )
            if space[pci.PCI_VENDOR_ID : pci.PCI_VENDOR_ID + 2] == b"\xff\xff":
                if function == 0:
                    break
                continue
            spaces[slot, function] = space
            if function == 0 and not space[pci.PCI_HEADER_TYPE] & pci.PCI_HEADER_MULTI_FUNCTION:
                break
    return spaces


def _config_read(machine: QtestMachine, slot: int, function: int, register: int) -> int:
    machine.port_write(pci.PCI_CONFIG_ADDRESS, 4, pci.config_address(slot, function, register))
    return machine.port_read(pci.PCI_CONFIG_DATA, 4)


def _config_write(machine: QtestMachine, slot: int, function: int, register: int, value: int) -> None:
    machine.port_write(pci.PCI_CONFIG_ADDRESS, 4, pci.config_address(slot, function, register))
    machine.port_write(pci.PCI_CONFIG_DATA, 4, value)


def _writable(machine: QtestMachine, slot: int, function: int) -> bytes:
    """The bits of a function that are 0 after a 0, and 1 after a 1. It is of no use to anybody then."""
    masks = []
    for register in range(0, pci.PCI_CONFIG_SIZE, 4):
        _config_write(machine, slot, function, register, 0)
        zeros = _config_read(machine, slot, function, register)
        _config_write(machine, slot, function, register, 0xFFFFFFFF)
        masks.append(_config_read(machine, slot, function, register) & ~zeros)
    return b"".join(mask.to_bytes(4, "little") for mask in masks)


def _program(machine: QtestMachine, chipset: abi.Chipset) -> None:
    """Power management ports and ECAM, where pvhboot's firmware has them."""
    _config_write(machine, *chipset.pm, chipset.pm_base, abi.PM_BASE | abi.PM_BASE_IO)
    control = _config_read(machine, *chipset.pm, chipset.pm_control & ~3)
    bit = chipset.pm_enable << chipset.pm_control % 4 * 8
    _config_write(machine, *chipset.pm, chipset.pm_control & ~3, control | bit)
    if chipset.pciexbar is not None:
        _config_write(machine, *chipset.host, chipset.pciexbar + 4, 0)
        _config_write(machine, *chipset.host, chipset.pciexbar, abi.PCIEXBAR | abi.PCIEXBAR_ENABLE)


class FwCfgReader:
    """fw_cfg by DMA, through RAM that nobody else uses meanwhile."""

    def __init__(self, machine: Qtest) -> None:
        self._machine = machine

    def item(self, key: int, size: int) -> bytes:
        """So many bytes from an item's start; zeros behind its end."""
        control = key << fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT | fw_cfg.FW_CFG_DMA_CTL_SELECT
        parts = []
        for at in range(0, size, _CHUNK):
            count = min(_CHUNK, size - at)
            if not self._transfer(control | fw_cfg.FW_CFG_DMA_CTL_READ, count):
                raise BootError(f"QEMU's fw_cfg does not give the item {key:#x} by DMA")
            parts.append(self._machine.read(_BUFFER, count))
            control = 0
        return b"".join(parts)

    def directory(self) -> Iterator[tuple[bytes, fw_cfg.FwCfgFile]]:
        """Every file by its name."""
        count = int.from_bytes(self.item(fw_cfg.FW_CFG_FILE_DIR, fw_cfg.FW_CFG_FILE_COUNT_BYTES), "big")
        if count > fw_cfg.FW_CFG_MAX_FILES:
            raise BootError(f"QEMU's fw_cfg has a directory of {count} files")
        start = fw_cfg.FW_CFG_FILE_COUNT_BYTES
        directory = self.item(fw_cfg.FW_CFG_FILE_DIR, start + count * fw_cfg.FW_CFG_FILE.size)
        for at in range(start, len(directory), fw_cfg.FW_CFG_FILE.size):
            entry = fw_cfg.FW_CFG_FILE.unpack(directory[at : at + fw_cfg.FW_CFG_FILE.size])
            yield entry.name.rstrip(b"\0"), entry

    def files(self) -> Iterator[tuple[bytes, RecordedFile]]:
        """Those that are kept."""
        for name, _entry in self.directory():
            if not name.isascii():
                raise BootError(
                    f"QEMU's fw_cfg has a file {name.decode(errors='backslashreplace')}: only ASCII can be recorded"
                )
        kept = {name: each for name, each in self.directory() if name not in _LEFT_OUT and not name.startswith(_OPTION_ROMS)}
        for name, entry in kept.items():
            if entry.size > _FILE_MAX:
                raise BootError(
                    f"QEMU's fw_cfg file {name.decode(errors='replace')} has {entry.size} bytes: too many to record"
                )
        contents = {name: self.item(entry.select, entry.size) for name, entry in kept.items()}
        # Writing may have effects: not before all is read.
        for name, entry in kept.items():
            yield name, RecordedFile(entry.size, contents[name].rstrip(b"\0"), self._is_writeable(entry, contents[name]))

    def _is_writeable(self, entry: fw_cfg.FwCfgFile, data: bytes) -> bool:
        """By writing its first byte to it."""
        if not data:
            return False
        self._machine.write(_BUFFER, data[:1])
        control = entry.select << fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT | fw_cfg.FW_CFG_DMA_CTL_SELECT
        return self._transfer(control | fw_cfg.FW_CFG_DMA_CTL_WRITE, 1)

    def _transfer(self, control: int, size: int) -> bool:
        """Executes a descriptor; whether it was without error."""
        machine = self._machine
        machine.write(_DESCRIPTOR, fw_cfg.FW_CFG_DMA.pack(fw_cfg.FwCfgDmaAccess(control, size, _BUFFER)))
        machine.port_write(fw_cfg.FW_CFG_DMA_LOW_PORT, 4, int.from_bytes(_DESCRIPTOR.to_bytes(4, "big"), "little"))
        return machine.read(_DESCRIPTOR, 4) == bytes(4)
