"""A trace: each instruction of a run with what it did to registers and memory, and with the devices that it spoke to."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import ADDRESS_4G, CR0_PG, INSTRUCTION_MAX
from pvhboot.shim.blob import Place
from pvhboot.shim.errors import NoMemoryError

from .board import Board
from .bus import PORT_KINDS, Access
from .disassembly import decode, is_input, words_of
from .effects import DATA_MAX, DMA, LOAD, STORE, Effect
from .engines.base import STATE_REGISTERS, Cpu, State, Stop, Watch, code_at
from .places import Places
from .reasons import LIMIT
from .shown import Printer, show_text

EFLAGS: Final = "eflags"

_CS: Final = STATE_REGISTERS.index("cs")
_CS_BASE: Final = STATE_REGISTERS.index("cs_base")
_CR0: Final = STATE_REGISTERS.index("cr0")
_ECX: Final = STATE_REGISTERS.index("ecx")
_CHUNK: Final = 1 << 20  # bytes
_JUMPS: Final = ("j", "ljmp", "loop", "call", "lcall", "ret", "iret")
_STRINGS: Final = ("ins", "outs", "movs", "lods", "stos", "cmps", "scas")


class Record(NamedTuple):
    """An instruction: its number since the trace began, how it was decoded (16, 32 or 64), CS:IP and linear address, bytes,
    text, place (None: unknown), the registers that it changed (names of STATE_REGISTERS) with their values after it, and what
    else it did. A repeated string instruction is one record, whether or not the engine executed it in steps, of `times`
    iterations. `before` are all registers in front of the first record of a trace."""

    number: int
    bits: int
    cs: int
    ip: int
    address: int
    code: bytes
    text: str
    place: Place | None
    changes: Mapping[str, int]
    effects: tuple[Effect, ...] = ()
    times: int = 1
    before: Mapping[str, int] | None = None

    def __str__(self) -> str:
        from .report.trace_text import record_text

        return record_text(self)

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from .html.trace import record_html

        return record_html(self)


class End(NamedTuple):
    """How a trace ended: a word of `reasons` (empty: the run was not over), what else is known of it, the linear address of
    the next (or the faulting) instruction, and how many instructions were told, recorded or not."""

    reason: str
    detail: str
    address: int | None
    instructions: int


class Window(NamedTuple):
    """Which part of a run is traced: from the first time that the instruction at one of the linear addresses `begin` is next
    (none: from the start) to the first time after that that one at `end` is, and `limit` records at most. Where it ends, so
    does the run, `beyond` instructions later. `wanted` chooses among the records in it."""

    begin: frozenset[int] = frozenset()
    end: frozenset[int] = frozenset()
    limit: int | None = None
    wanted: Callable[[Record], bool] = lambda _record: True
    beyond: int = 0


class Tracer:
    """A Watcher that gives the records and the end of a run to `sink` as they come. On KVM it sees no loads and stores.

    `instructions` were told in the window, `written` are those of them that were wanted; `end` is that of the trace, once there
    is one. `opened`: the window has begun; `closed`: it is over, and so the run was ended. `sees_memory`, once the run has
    begun: loads and stores are told.
    """

    def __init__(self, places: Places, sink: Callable[[Record | End], None], window: Window = Window()) -> None:  # noqa: B008
        self._places, self._sink, self._window = places, sink, window
        self.closed = False
        self.instructions = self.written = 0
        self.end = End("", "", None, 0)
        self.opened = not window.begin
        self.sees_memory = False
        self._left: int | None = None  # instructions, behind the window's end
        self._pending: _Pending | None = None
        self._codes: dict[tuple[int, int, bytes], _Code] = {}
        self._cpu: Cpu
        self._board: Board

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._board = cpu, board
        board.bus.listeners.append(self._on_access)
        self.sees_memory = cpu.sees_memory
        if self.sees_memory:
            return Watch(self._on_instruction, self._on_load, self._on_store, self._on_dma, self._on_end)
        return Watch(self._on_instruction, device_store=self._on_dma, over=self._on_end)

    def _on_instruction(self, address: int, size: int) -> None:
        if self.closed:
            return
        pending = self._pending
        if pending is not None and address == pending.address and not pending.code.jumps:
            if not pending.code.repeats:  # Unicorn begins it anew: it has changed code that was translated with it
                pending.forget()
            return
        if not self.opened:
            if address not in self._window.begin:
                return
            self.opened = True
        state = self._cpu.state()
        if pending is not None:
            self._finish(pending, state)
            if self._window.limit is not None and self.written >= self._window.limit:
                self._close(address, f"the trace's limit of {self._window.limit} has been reached")
                return
            if self._left is None and address in self._window.end:
                self._left = self._window.beyond
            if self._left is not None:
                if not self._left:
                    self._close(address, "the trace's end has been reached")
                    return
                self._left -= 1
        self.instructions += 1
        self._pending = _Pending(self.instructions, address, state, self._code(address, size, state))

    def _close(self, address: int, why: str) -> None:
        self.closed = True
        self._cpu.end(Stop(LIMIT, why, address))

    def _code(self, address: int, size: int, state: State) -> "_Code":
        memory = self._board.memory
        code = b""
        if not state.values[_CR0] & CR0_PG:
            with suppress(NoMemoryError):  # or it runs over the edge of what is there
                code = memory.read(address, size if 0 < size <= INSTRUCTION_MAX else INSTRUCTION_MAX)
        code = code or code_at(self._cpu, memory, address)
        key = address, state.bits, code
        if (found := self._codes.get(key)) is None:
            decoded = decode(code, address, state.bits)
            found = self._codes[key] = _Code(decoded.data, decoded.text, self._places.locate(address))
        return found

    def _finish(self, pending: "_Pending", after: State) -> None:
        """The instruction is over, and the state is the one after it."""
        self._pending = None
        before, now = pending.state.values, after.values
        changes: dict[str, int] = {}
        if before != now:
            changes = {name: new for name, old, new in zip(STATE_REGISTERS, before, now, strict=True) if old != new}
        first = not self.written
        record = Record(
            pending.number,
            pending.state.bits,
            before[_CS],
            pending.address if pending.state.bits == 64 else (pending.address - before[_CS_BASE]) % ADDRESS_4G,
            pending.address,
            pending.code.data,
            pending.code.text,
            pending.code.place,
            changes,
            pending.effects(),
            before[_ECX] - now[_ECX] if pending.code.repeats else 1,
            dict(zip(STATE_REGISTERS, before, strict=True)) if first else None,
        )
        if self._window.wanted(record):
            self.written += 1
            self._sink(record)

    def _on_load(self, paddr: int, size: int) -> None:
        if (pending := self._pending) is not None:
            try:
                data = self._board.memory.read(paddr, size)
            except NoMemoryError:
                return  # the bus tells it
            pending.add(Effect(LOAD, paddr, size, int.from_bytes(data, "little")))

    def _on_store(self, paddr: int, size: int, value: int) -> None:
        if (pending := self._pending) is not None:
            try:
                region = self._board.memory.region(paddr, 1)
            except NoMemoryError:
                return  # the bus tells it
            if not region.readonly:
                pending.add(Effect(STORE, paddr, size, value))

    def _on_dma(self, paddr: int, size: int) -> None:
        if self._pending is not None:
            moved = _Moved()
            for at in range(paddr, paddr + size, _CHUNK):
                moved.add(self._board.memory.read(at, min(_CHUNK, paddr + size - at)))
            self._pending.add(Effect(DMA, paddr, size, data=moved.told()))

    def _on_access(self, access: Access) -> None:
        if self._pending is not None:
            self._pending.add(Effect(*access))

    def _on_end(self) -> None:
        self._board.bus.listeners.remove(self._on_access)
        stop = self._cpu.stop
        if self._pending is not None:
            self._finish(self._pending, self._cpu.state())
        if stop is None:
            self.end = End("", "", self._cpu.linear_ip(), self.instructions)
        else:
            self.end = End(stop.reason, stop.detail, stop.rip, self.instructions)
        self._sink(self.end)


class _Code:
    """What is known of an instruction before it is executed. `repeats`: a string instruction with a rep; `jumps`: it may come
    back to itself; `inputs`: ins."""

    __slots__ = ("data", "inputs", "jumps", "place", "repeats", "text")

    def __init__(self, data: bytes, text: str, place: Place | None) -> None:
        self.data, self.text, self.place = data, text, place
        prefix, name, _ = words_of(text)
        self.repeats = prefix.startswith("rep") and name.startswith(_STRINGS)  # else it has no effect, as in `repz ret`
        self.jumps = name.startswith(_JUMPS)
        self.inputs = is_input(text)


class _Pending:
    """An instruction that is being executed."""

    __slots__ = ("_answered", "_effects", "address", "code", "number", "state")

    def __init__(self, number: int, address: int, state: State, code: _Code) -> None:
        self.number, self.address, self.state, self.code = number, address, state, code
        self._effects: list[Effect | _Stretch] = []
        self._answered = False  # of ins: the device has

    def forget(self) -> None:
        """It has done nothing yet."""
        self._effects.clear()

    def add(self, effect: Effect) -> None:
        """It does this, too."""
        code = self.code
        if code.inputs:
            if effect.kind == STORE and not self._answered:
                return  # Unicorn stores a 0 first, to fault before the device is asked
            self._answered = effect.kind != STORE
        if not code.repeats or effect.value is None:
            self._effects.append(effect)
            return
        for stretch in reversed(self._effects[-2:]):  # a string instruction has two streams at most
            if isinstance(stretch, _Stretch) and stretch.takes(effect):
                return
        self._effects.append(_Stretch(effect))

    def effects(self) -> tuple[Effect, ...]:
        """What it has done so far."""
        return tuple(effect if isinstance(effect, Effect) else effect.effect() for effect in self._effects)


class _Stretch:
    """Accesses of a repeated instruction that follow one another."""

    __slots__ = ("_end", "_first", "_moved", "_start", "_times")

    def __init__(self, first: Effect) -> None:
        self._first, self._times, self._moved = first, 1, _Moved()
        self._start, self._end = first.at, first.at + first.size
        self._moved.add(_bytes_of(first))

    def takes(self, effect: Effect) -> bool:
        """Takes it in if it is the next one: of the same port, or of memory upwards or downwards."""
        first, at = self._first, effect.at
        if (effect.kind, effect.size, effect.device) != (first.kind, first.size, first.device):
            return False
        if at != first.at if first.kind in PORT_KINDS else at != self._end and at + effect.size != self._start:
            return False
        self._times += 1
        self._start, self._end = min(self._start, at), max(self._end, at + effect.size)
        self._moved.add(_bytes_of(effect))
        return True

    def effect(self) -> Effect:
        """All of them as one."""
        if self._times == 1:
            return self._first
        return self._first._replace(at=self._start, value=None, times=self._times, data=self._moved.told())


class _Moved:
    """Bytes, as long as they are few, or their hash."""

    __slots__ = ("_data", "_hash")

    def __init__(self) -> None:
        self._data = b""
        self._hash: hashlib._Hash | None = None

    def add(self, data: bytes) -> None:
        """And these, behind the others."""
        if self._hash is None and len(self._data) + len(data) > DATA_MAX:
            self._hash = hashlib.sha256(self._data)
        if self._hash is None:
            self._data += data
        else:
            self._hash.update(data)

    def told(self) -> str:
        """As Effect.data has them."""
        return self._data.hex() if self._hash is None else f"sha256:{self._hash.hexdigest()}"


def _bytes_of(effect: Effect) -> bytes:
    assert effect.value is not None
    return effect.value.to_bytes(effect.size, "little")
