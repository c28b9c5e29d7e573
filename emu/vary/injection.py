"""Where a fault happens: a board whose fw_cfg, whose bus or whose memory is not as it should be, once."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from pvhboot.loader.fw_cfg import fw_cfg_items, retold
from pvhboot.loader.image import SizedSource
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.acpi_loader import LOADER_FILE
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.errors import BootError, NoMemoryError

from ..board import Board
from ..bus import Bus
from ..engines.base import Cpu, Watch
from .faults import (
    ABSENT,
    DMA,
    DROPPED,
    ERROR,
    FLIP_HIGH,
    FLIP_LOW,
    HALF,
    ITEM,
    LIE_HALF,
    LIE_MORE,
    NEVER,
    NOTHING,
    RAM,
    READ,
    REGISTER,
    SHORT,
    WRITE,
    Fault,
    flipped,
    spoilt,
)

_HALF_WORD: Final = 4  # bytes of a half of the DMA register


class HostBoard(Board):
    """A board with these items in its fw_cfg, None without one, whose host has ACPI tables if the recording does."""

    def __init__(
        self, plan: BootPlan, memory: GuestMemory, recording: Recording | None, items: Mapping[int, SizedSource] | None
    ) -> None:
        """`memory` and `recording` as Board has them."""
        super().__init__(plan, memory, fw_cfg_items=items, recording=recording)

    @property
    def host_acpi(self) -> bool:
        """Whatever becomes of them in the items."""
        return self.plan.spec.acpi and LOADER_FILE in self.recording.files


class FaultyBoard(HostBoard):
    """A board with a host that is wrong in one thing."""

    def __init__(self, plan: BootPlan, memory: GuestMemory, recording: Recording | None, fault: Fault) -> None:
        """`memory` and `recording` as Board has them."""
        items = honest_items(plan, recording)
        if items is not None and fault.family == ITEM:
            items = _spoilt_items(items, fault)
        super().__init__(plan, memory, recording, items)
        self._fault = fault
        self._faulty: FaultyBus | None = None

    @property
    def bus(self) -> Bus:
        """With the fault in front of it, if that is one of the bus."""
        if self._fault.family not in (DMA, READ, WRITE):
            return super().bus
        if self._faulty is None:
            self._faulty = FaultyBus(super().bus, self.memory, self._fault)
        return self._faulty


def honest_items(plan: BootPlan, recording: Recording | None) -> dict[int, SizedSource] | None:
    """What the fw_cfg of the plan's machine holds; None if it has none."""
    return dict(fw_cfg_items(plan, recording)) if plan.spec.source == FW_CFG else None


class FaultyBus(Bus):
    """A bus that passes on what a CPU asks, but for one access."""

    def __init__(self, bus: Bus, memory: GuestMemory, fault: Fault) -> None:
        super().__init__("ones")
        self.log, self.listeners, self.counts = bus.log, bus.listeners, bus.counts
        self._bus, self._ram, self._fault = bus, memory, fault
        self._accesses = self._transfers = 0
        self._descriptor_high = 0

    def port_read(self, port: int, size: int) -> int:
        """See Bus."""
        return self._answer(self._bus.port_read(port, size), size)

    def memory_read(self, paddr: int, size: int) -> int:
        """See Bus."""
        return self._answer(self._bus.memory_read(paddr, size), size)

    def port_write(self, port: int, size: int, value: int) -> None:
        """See Bus."""
        passed_on = self._stored(size, value)
        if passed_on is None:
            return
        if self._fault.family == DMA and size == _HALF_WORD and self._met_transfer(port, passed_on):
            return
        self._bus.port_write(port, size, passed_on)

    def memory_write(self, paddr: int, size: int, value: int) -> None:
        """See Bus."""
        passed_on = self._stored(size, value)
        if passed_on is not None:
            self._bus.memory_write(paddr, size, passed_on)

    def _meets(self, family: str) -> bool:
        """Whether this access is the one."""
        self._accesses += 1
        return self._fault.family == family and self._fault.number == self._accesses - 1

    def _answer(self, value: int, size: int) -> int:
        return spoilt(self._fault.how, value, size) if self._meets(READ) else value

    def _stored(self, size: int, value: int) -> int | None:
        """What gets to the device; None: nothing."""
        if not self._meets(WRITE):
            return value
        return None if self._fault.how == DROPPED else spoilt(self._fault.how, value, size)

    def _met_transfer(self, port: int, value: int) -> bool:
        """Whether a store has begun the transfer that goes wrong, which then has been done here."""
        half = int.from_bytes(value.to_bytes(_HALF_WORD, "little"), "big")
        if port == fw_cfg.FW_CFG_DMA_PORT:
            self._descriptor_high = half
        if port != fw_cfg.FW_CFG_DMA_LOW_PORT:
            return False
        descriptor, self._descriptor_high = self._descriptor_high << 32 | half, 0
        self._transfers += 1
        if self._transfers - 1 != self._fault.number:
            return False
        how = self._fault.how
        if how in (FLIP_LOW, FLIP_HIGH):
            self._spoil_transfer(descriptor, port, value)
        elif how != NEVER:
            control = {ERROR: fw_cfg.FW_CFG_DMA_CTL_ERROR, NOTHING: 0}[how]
            with suppress(BootError), self._ram.writing(descriptor, 4) as word:  # no RAM: there is nobody to tell
                word[:] = control.to_bytes(4, "big")
        return True

    def _spoil_transfer(self, descriptor: int, port: int, value: int) -> None:
        """Done, but for a bit of what is moved to memory."""
        try:
            access = fw_cfg.FW_CFG_DMA.unpack(self._ram.read(descriptor, fw_cfg.FW_CFG_DMA.size))
        except NoMemoryError:
            access = fw_cfg.FwCfgDmaAccess(0, 0, 0)  # which fails by itself
        self._bus.port_write(port, _HALF_WORD, value)
        if access.control & fw_cfg.FW_CFG_DMA_CTL_READ and access.length:
            at = access.address if self._fault.how == FLIP_LOW else access.address + access.length - 1
            _flip(self._ram, at, self._fault.how)


class Flips:
    """A Watcher: a bit of RAM, or of a register, flips when so many instructions have been executed."""

    def __init__(self, fault: Fault) -> None:
        assert fault.family in (RAM, REGISTER)
        self._fault, self._left = fault, fault.number

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._memory = cpu, board.memory
        return Watch(instruction=self._on_instruction)

    def _on_instruction(self, _address: int, _size: int) -> None:
        self._left -= 1
        if self._left != -1:
            return
        target, how = self._fault.target, self._fault.how
        if isinstance(target, str):
            self._cpu.set_register(target, spoilt(how, self._cpu.registers()[target], 4))
        elif target is not None:
            _flip(self._memory, target, how)


def _flip(memory: GuestMemory, paddr: int, how: str) -> None:
    """A bit of a byte of RAM; nothing where there is none: a ROM, or what the chipset has taken away."""
    with suppress(BootError), memory.writing(paddr, 1) as byte:
        byte[:] = flipped(how, bytes(byte))


class _Spoilt:
    """An item that is not as it should be; `size` in bytes."""

    def __init__(self, item: SizedSource, how: str) -> None:
        self._item, self._how = item, how
        self.size = {HALF: item.size // 2, SHORT: max(0, item.size - 1)}.get(how, item.size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer; BootError if there are fewer bytes."""
        self._item.read_into(offset, buffer)
        at = {FLIP_LOW: 0, FLIP_HIGH: self.size - 1}.get(self._how, -1) - offset
        if 0 <= at < len(buffer):
            buffer[at : at + 1] = flipped(self._how, bytes(buffer[at : at + 1]))


def _spoilt_items(items: dict[int, SizedSource], fault: Fault) -> dict[int, SizedSource]:
    key, how = fault.number, fault.how
    if how in (LIE_MORE, LIE_HALF):
        return retold(items, lambda file: file if file.select != key else file._replace(size=_lie(how, file.size)))
    if how == ABSENT:
        return {other: item for other, item in items.items() if other != key}
    return items | {key: _Spoilt(items[key], how)}


def _lie(how: str, size: int) -> int:
    return size * 2 if how == LIE_MORE else size // 2
