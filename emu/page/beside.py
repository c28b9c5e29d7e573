"""What a trace does not tell of a boot: what devices read in memory, what they print, which descriptors the CPU has loaded."""

from typing import Final, NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi import x86

from ..board import Board
from ..bus import OUT, Access
from ..descriptors import read_descriptor, read_gdt
from ..disassembly import words_of
from ..engines.base import STATE_REGISTERS, STATE_SEGMENTS, Cpu, Watch
from ..trace import Record

_DESCRIPTORS: Final = 64  # of a GDT that are kept
_PRINTERS: Final = frozenset({"debugcon", "serial"})  # devices
_TABLE_REGISTERS: Final = frozenset({"gdtr_base", "gdtr_limit"})


class Fetch(NamedTuple):
    """A device has read `data` at a physical address for the record of an index."""

    record: int
    paddr: int
    data: bytes


class LoadedGdt(NamedTuple):
    """The descriptors, as numbers, that lay at GDTR's base when so many instructions were over. `limit` is the last byte."""

    step: int
    base: int
    limit: int
    descriptors: tuple[int, ...]


class Load(NamedTuple):
    """In protected mode a segment register was loaded with a selector by the instruction in front of a step. `descriptor` is
    what stood in the GDT then, with the bits that loading sets; None: nothing is known."""

    step: int
    register: str
    selector: int
    descriptor: int | None


class Beside:
    """A Watcher beside a Tracer, that is told the records, too."""

    def __init__(self) -> None:
        self.fetches: list[Fetch] = []
        self.gdts: list[LoadedGdt] = []
        self.loads: list[Load] = []
        self.printed: dict[tuple[int, int], bytes] = {}  # by the index of the record, and the port
        self._records = 0
        self._state: dict[str, int] = {}
        self._board: Board

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._board = board
        self._state = dict(zip(STATE_REGISTERS, cpu.state().values, strict=True))
        board.memory.fetch_listeners.append(self._on_fetch)
        board.bus.listeners.append(self._on_access)
        return Watch(over=self._over)

    def on_record(self, record: Record) -> None:
        """The instruction is over, and memory is as it has left it."""
        self._records += 1
        state = self._state
        state.update(record.changes)
        if state["cr0"] & x86.CR0_PG:  # GDTR's base is no physical address then
            return
        if _TABLE_REGISTERS & record.changes.keys() or words_of(record.text)[1].startswith("lgdt"):
            self.gdts.append(_read_table(self._board.memory, self._records, state["gdtr_base"], state["gdtr_limit"]))
        if not state["cr0"] & x86.CR0_PE:
            return
        loaded = [name for name in STATE_SEGMENTS if name in record.changes]
        self.loads += [self._load(name, state[name]) for name in loaded]
        if loaded and self.gdts:  # to load a segment may set a bit of its descriptor
            table = _read_table(self._board.memory, self._records, state["gdtr_base"], state["gdtr_limit"])
            if table[1:] != self.gdts[-1][1:]:
                self.gdts.append(table)

    def gdt(self, step: int | None) -> LoadedGdt | None:
        """The one that was loaded at a step (None: in the end)."""
        return next((table for table in reversed(self.gdts) if step is None or table.step <= step), None)

    def _load(self, register: str, selector: int) -> Load:
        found = None
        if selector & ~x86.SELECTOR_RPL and not selector & x86.SELECTOR_LDT:
            found = read_descriptor(self._board.memory, self._state["gdtr_base"], selector)
        return Load(self._records, register, selector, None if found is None else found.value)

    def _on_fetch(self, paddr: int, data: bytes) -> None:
        self.fetches.append(Fetch(self._records, paddr, data))

    def _on_access(self, access: Access) -> None:
        if access.kind == OUT and access.device in _PRINTERS:
            at = self._records, access.address
            self.printed[at] = self.printed.get(at, b"") + access.value.to_bytes(access.size, "little")

    def _over(self) -> None:
        self._board.memory.fetch_listeners.remove(self._on_fetch)
        self._board.bus.listeners.remove(self._on_access)


def _read_table(memory: ReadableMemory, step: int, base: int, limit: int) -> LoadedGdt:
    """The GDT at a physical address, its first descriptors."""
    table = read_gdt(memory, base, min(limit, _DESCRIPTORS * x86.DESC_SIZE - 1))
    return LoadedGdt(step, base, limit, tuple(descriptor.value for descriptor in table.values()))
