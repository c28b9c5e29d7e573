"""What a boot does, so far as something in it can be changed: the instructions it executes, what it asks its devices, and what
it loads from RAM."""

from collections.abc import Mapping
from typing import NamedTuple

from pvhboot.loader.image import SizedSource
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.machines import low_rom_span, rom_span

from ..board import Board
from ..bus import Access
from ..engines.base import Cpu, Watch
from .mutants import Instruction


class Met(NamedTuple):
    """An access to a device, or a load from RAM (by its physical address and size), and the instruction that made it: its
    linear address, and how many were executed before it."""

    access: Access
    address: int
    instructions: int


class NotedItems(dict[int, SizedSource]):
    """Items of fw_cfg that note which of them are asked for."""

    def __init__(self, items: Mapping[int, SizedSource]) -> None:
        super().__init__(items)
        self.asked: set[int] = set()

    def get(self, key: int, default: SizedSource | None = None) -> SizedSource | None:  # type: ignore[override]
        """As of any dict."""
        if key in self:
            self.asked.add(key)
        return super().get(key, default)


class Survey:
    """A Watcher. `instructions` are those of the ROM by linear address; `elsewhere` are linear addresses of others, in RAM;
    `loads` are those from RAM."""

    def __init__(self) -> None:
        self.instructions: dict[int, Instruction] = {}
        self.elsewhere: set[int] = set()
        self.accesses: list[Met] = []
        self.loads: list[Met] = []
        self.first: dict[int, int] = {}  # by linear address, how many instructions were executed before it
        self._at = 0

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._memory, self._plan = cpu, board.memory, board.plan
        board.bus.listeners.append(lambda access: self.accesses.append(Met(access, self._at, cpu.instructions - 1)))
        return Watch(instruction=self._on_instruction, load=self._on_load)

    def _on_instruction(self, address: int, size: int) -> None:
        self._at = address
        if address in self.first:
            return
        self.first[address] = self._cpu.instructions - 1
        offset = rom_offset(self._plan, address)
        if offset is not None:
            data = self._plan.rom[offset : offset + size]
            paddr = self._cpu.translate(address)
            if paddr is not None and self._memory.read(paddr, size) == data:
                self.instructions[address] = Instruction(address, offset, data, self._cpu.bits)
                return
        self.elsewhere.add(address)

    def _on_load(self, paddr: int, size: int) -> None:
        if not self._memory.is_rom(paddr):
            self.loads.append(Met(Access("load", paddr, size, 0, ""), self._at, self._cpu.instructions - 1))


def rom_offset(plan: BootPlan, address: int) -> int | None:
    """Where in the ROM that lies which a CPU sees at an address while nothing is mapped otherwise; None outside."""
    rom = rom_span(len(plan.rom))
    if rom.start <= address < rom.end:
        return address - rom.start
    low = low_rom_span(plan.spec, len(plan.rom))
    if low is not None and low.start <= address < low.end:
        return len(plan.rom) - low.end + address
    return None
