"""What has to be read where the kernel is entered, as it may soon be written over."""

from pvhboot.shim.abi.x86 import CR0_PG, SEGMENT_NAMES

from ..board import Board
from ..descriptors import Gdt, read_gdt
from ..engines.base import STATE_REGISTERS, Cpu, Watch


class GdtAtEntry:
    """A Watcher that keeps the GDT, where the kernel is entered or, if it is not, at the end of the run: `gdt`, None where
    paging hides it."""

    def __init__(self, entry: int) -> None:
        self.gdt: Gdt | None = None
        self._entry, self._is_read = entry, False
        self._cpu: Cpu
        self._board: Board

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._board = cpu, board
        return Watch(self._on_entry, over=self._read, spans=((self._entry, self._entry + 1),))

    def _on_entry(self, _address: int, _size: int) -> None:
        self._read()

    def _read(self) -> None:
        if self._is_read:
            return
        self._is_read = True
        state = dict(zip(STATE_REGISTERS, self._cpu.state().values, strict=True))
        if not state["cr0"] & CR0_PG:
            loaded = {name: state[name] for name in (*SEGMENT_NAMES, "ldtr", "tr")}
            self.gdt = read_gdt(self._board.memory, state["gdtr_base"], state["gdtr_limit"], loaded)
