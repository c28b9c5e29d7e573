"""Devices that are otherwise than those of QEMU, or that a board does not have."""

import struct
from collections.abc import Sequence

from pvhboot.emu.board import Board
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi import apic, fw_cfg
from pvhboot.shim.defs import Options, firmware_symbols
from pvhboot.shim.machines import MACHINES
from pvhboot.shim.stock import default_blob

_MODE = 7 << 8  # of an interrupt that the ICR sends


class Dma:
    """A DMA register that is told each store's descriptor."""

    def __init__(self, memory: GuestMemory, control: int) -> None:
        self._memory, self._control = memory, control

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(fw_cfg.FW_CFG_DMA_SIGNATURE[offset : offset + size], "little")

    def write(self, _offset: int, _size: int, value: int) -> None:
        paddr = int.from_bytes(value.to_bytes(4, "little"), "big")
        with self._memory.writing(paddr, 4) as word:
            word[:] = struct.pack(">I", self._control)


class LateDma:
    """One that executes a descriptor at the tenth look at the register."""

    def __init__(self, board: Board) -> None:
        self._register = board.bus._ports[fw_cfg.FW_CFG_DMA_PORT].device
        self._told: tuple[int, int, int] | None = None
        self._looks = 0

    def read(self, offset: int, size: int) -> int:
        self._looks += 1
        if self._told is not None and self._looks % 10 == 0:
            self._register.write(*self._told)
            self._told = None
        return self._register.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._told = offset, size, value


class Apic:
    """Other processors, which answer a start-up at once: as cpus.s has it, in a byte by APIC id and a count. They do so only
    where that code of the firmware lies."""

    def __init__(self, memory: GuestMemory, name: str, ids: Sequence[int]) -> None:
        symbols, rom = firmware_symbols(MACHINES[name], Options()), default_blob(MACHINES[name])
        self._present, self._count = symbols["CPU_PRESENT"], symbols["CPU_COUNT"]
        start = rom.symbols["ap_start"] - rom.paddr
        self._code = rom.data[start : rom.symbols["ap_end"] - rom.paddr]
        self._memory, self._ids = memory, ids
        self._registers: dict[int, int] = {}

    def read(self, offset: int, _size: int) -> int:
        return self._registers.get(offset, 0)

    def write(self, offset: int, _size: int, value: int) -> None:
        self._registers[offset] = value
        is_start_up = offset == apic.APIC_ICR - apic.LOCAL_APIC and value & _MODE == apic.APIC_ICR_STARTUP
        if not is_start_up or self._memory.read((value & 0xFF) << 12, len(self._code)) != self._code:
            return
        for number in self._ids:
            with self._memory.writing(self._present + number, 1) as byte:
                byte[:] = b"\1"
        with self._memory.writing(self._count, 4) as word:
            word[:] = (int.from_bytes(word, "little") + len(self._ids)).to_bytes(4, "little")
