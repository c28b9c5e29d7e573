"""What a CPU did last, and what it should not have done: watched in a run that failed, or in the same run made again."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi.fw_cfg import FW_CFG_DMA, FW_CFG_DMA_LOW_PORT
from pvhboot.shim.abi.x86 import INSTRUCTION_MAX
from pvhboot.shim.blob import Place
from pvhboot.shim.errors import NoMemoryError
from pvhboot.shim.machines import Span, rom_span

from .board import Board
from .bus import OUT, WRITE, Access
from .devices.fw_cfg import DMA_NAME
from .disassembly import decode
from .engines.base import STATE_REGISTERS, Cpu, State, Watch, code_at
from .places import Places

RECENT: Final = 64  # instructions, all iterations of a rep as one
_KEPT: Final = 16  # of all else
_WORD: Final = 4  # bytes
_SLIDE_STEP: Final = 2  # bytes of an `add [eax], al`, which is two zeros
_SLIDE: Final = 64 * _SLIDE_STEP  # bytes of zeros that are executed one after the other: no code looks so


def swapped(value: int) -> int:
    """A number of 32 bits with its bytes the other way round."""
    return int.from_bytes(value.to_bytes(_WORD, "little"), "big")


class Executed(NamedTuple):
    """An instruction that was executed, or has faulted: where, how it was decoded, its bytes, and the registers in front of it
    (empty: not recorded). `times`: how often in a row; a rep as often as the engine tells of it, which is not once for each
    iteration."""

    address: int
    bits: int
    data: bytes
    text: str
    place: Place | None
    times: int = 1
    registers: Mapping[str, int] = {}

    @property
    def is_branch(self) -> bool:
        """A conditional jump, or a loop."""
        return self.text.startswith(("j", "loop")) and not self.text.startswith("jmp")


class Jump(NamedTuple):
    """From one instruction to another that does not lie behind it."""

    origin: int
    target: int


class Store(NamedTuple):
    """The first store of an instruction to a span that it should have left alone. `by_device`: the instruction has had a device
    write there."""

    span: str
    paddr: int
    size: int
    instruction: int
    by_device: bool


class Transfer(NamedTuple):
    """A DMA transfer of fw_cfg: what its descriptor said, where that lies, and the instruction that started it. `length` in
    bytes, addresses physical."""

    control: int
    length: int
    address: int
    descriptor: int
    instruction: int


class History(NamedTuple):
    """What was watched, the oldest first: the last instructions, the last jumps (not the short ones forward), the last jumps
    out of the firmware's ROM, the stores to what is not the firmware's before the handoff, those to a ROM that cannot be
    written, each with its instruction, and the last transfers of fw_cfg. `slide`: the jump to where zeros were executed before
    the handoff, many in a row."""

    executed: tuple[Executed, ...] = ()
    jumps: tuple[Jump, ...] = ()
    exits: tuple[Jump, ...] = ()
    stores: tuple[Store, ...] = ()
    rom_stores: tuple[tuple[Access, int], ...] = ()
    transfers: tuple[Transfer, ...] = ()
    slide: Jump | None = None

    @property
    def last_branch(self) -> int | None:
        """Where in `executed` the last conditional jump stands; None if there is none."""
        return next((at for at in reversed(range(len(self.executed))) if self.executed[at].is_branch), None)


class _Step(NamedTuple):
    address: int
    times: int
    state: State | None


class Recent:
    """Watches a run: see Watcher. The last `count` instructions are kept, and before the handoff who stores to `spans`, where
    the engine sees that. Registers are asked for from the instruction on that has the number `registers_from`: that costs
    more than all else."""

    def __init__(
        self, places: Places, count: int = RECENT, *, spans: Sequence[Span] = (), registers_from: int | None = None
    ) -> None:
        self._places = places
        self._spans = tuple(spans)
        self._registers_from = registers_from or 0
        self._steps: deque[_Step] = deque(maxlen=count)
        self._jumps: deque[Jump] = deque(maxlen=_KEPT)
        self._exits: deque[Jump] = deque(maxlen=_KEPT)
        self._transfers: deque[Transfer] = deque(maxlen=_KEPT)
        self._replaced: dict[int, int] = {}  # by physical address: what a device has written over last
        self._stores: list[Store] = []
        self._rom_stores: list[tuple[Access, int]] = []
        self._last = 0
        self._slide_start = 0
        self._slide: Jump | None = None
        self._before_handoff = True
        self._whole: History | None = None

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._board = cpu, board
        self._rom = rom_span(len(board.plan.rom))
        board.bus.listeners.append(self._on_access)
        board.memory.before_write.append(self._before_device_store)
        store = self._on_store if self._spans and cpu.sees_memory else None
        return Watch(self._on_instruction, store=store, device_store=self._on_device_store, over=self._on_end)

    def history(self) -> History:
        """As far as the run has come. When it is over and its CPU gone, of all of it."""
        if self._whole is not None:
            return self._whole
        return History(
            self._executed(),
            tuple(self._jumps),
            tuple(self._exits),
            tuple(self._stores),
            tuple(self._rom_stores),
            tuple(self._transfers),
            self._slide,
        )

    def _on_end(self) -> None:
        self._whole = self.history()

    def _on_instruction(self, address: int, _size: int) -> None:
        last = self._last
        if address == last and self._steps:
            again = self._steps.pop()
            self._steps.append(again._replace(times=again.times + 1))
            return
        if not 0 < address - last <= INSTRUCTION_MAX and self._steps:
            jump = Jump(last, address)
            self._jumps.append(jump)
            if self._in_rom(last) and not self._in_rom(address) and address != self._board.entry:
                self._exits.append(jump)
        if address - last != _SLIDE_STEP:
            self._slide_start = address
        elif address - self._slide_start == _SLIDE and self._before_handoff and self._slide is None:
            self._look_for_zeros(address)
        self._last = address
        if address == self._board.entry:
            self._before_handoff = False
        state = self._cpu.state() if self._cpu.instructions >= self._registers_from else None
        self._steps.append(_Step(address, 1, state))

    def _look_for_zeros(self, end: int) -> None:
        start = self._slide_start
        paddr = self._cpu.translate(start)
        if paddr is not None and self._jumps and not any(self._board.memory.read(paddr, end - start)):
            self._slide = self._jumps[-1]

    def _in_rom(self, address: int) -> bool:
        return self._rom.start <= address < self._rom.end

    def _on_store(self, paddr: int, size: int, _value: int) -> None:
        self._keep_store(paddr, size, by_device=False)

    def _before_device_store(self, paddr: int, size: int) -> None:
        if size == _WORD:
            self._replaced[paddr] = int.from_bytes(self._board.memory.read(paddr, size), "big")

    def _on_device_store(self, paddr: int, size: int) -> None:
        self._keep_store(paddr, size, by_device=True)

    def _keep_store(self, paddr: int, size: int, *, by_device: bool) -> None:
        if not self._before_handoff or len(self._stores) == _KEPT:
            return
        for span in self._spans:
            if paddr < span.end and span.start < paddr + size:
                known = any((store.span, store.instruction) == (span.name, self._last) for store in self._stores)
                if not known:
                    self._stores.append(Store(span.name, paddr, size, self._last, by_device))

    def _on_access(self, access: Access) -> None:
        if access.kind == WRITE and len(self._rom_stores) < _KEPT and self._in_rom(access.address):
            self._rom_stores.append((access, self._last))
        elif access == (OUT, FW_CFG_DMA_LOW_PORT, _WORD, access.value, DMA_NAME):
            self._keep_transfer(swapped(access.value))

    def _keep_transfer(self, descriptor: int) -> None:
        """By now the host has written to the control word, and to no other: not to that one either if it lies in a ROM."""
        try:
            said = FW_CFG_DMA.unpack(self._board.memory.read(descriptor, FW_CFG_DMA.size))
        except NoMemoryError:
            return
        control = self._replaced.get(descriptor, said.control)
        self._transfers.append(Transfer(control, said.length, said.address, descriptor, self._last))

    def _executed(self) -> tuple[Executed, ...]:
        bits = self._cpu.bits
        found = []
        for address, times, state in self._steps:
            known = bits if state is None else state.bits
            decoded = decode(self._code_at(address), address, known)
            registers = {} if state is None else dict(zip(STATE_REGISTERS, state.values, strict=True))
            place = self._places.locate(address)
            found.append(Executed(address, known, decoded.data, decoded.text, place, times, registers))
        return tuple(found)

    def _code_at(self, address: int) -> bytes:
        """By now paging may have been turned on, and have taken the ROM away."""
        code = code_at(self._cpu, self._board.memory, address)
        if not code and self._in_rom(address):
            return self._board.memory.read(address, min(INSTRUCTION_MAX, self._rom.end - address))
        return code
