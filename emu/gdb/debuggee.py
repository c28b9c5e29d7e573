"""What gdb does to a CPU: memory by linear address, breakpoints, watchpoints, and going on until something is to be told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import NoMemoryError

from ..board import Board
from ..engines.base import Cpu, Stop, Until, Watch, describe_stop
from ..places import Places
from ..reasons import FAULT, HANDOFF, LIMIT, UNCLAIMED
from .packets import SIGBUS, SIGINT, SIGSEGV, SIGSTOP, SIGTRAP, SIGXCPU

_SIGNALS: Final = {FAULT: SIGSEGV, LIMIT: SIGXCPU, UNCLAIMED: SIGBUS}

SOFTWARE: Final = "swbreak"
HARDWARE: Final = "hwbreak"
STORES: Final = "watch"
LOADS: Final = "rwatch"
BOTH: Final = "awatch"


def signal_of(stop: Stop) -> int:
    """By which signal gdb is told the end of a run. Not by SIGTRAP: it takes no notice of that if it has made the step for
    itself, to get past a breakpoint."""
    return _SIGNALS.get(stop.reason, SIGSTOP)


class Watchpoint(NamedTuple):
    """`kind` is STORES, LOADS or BOTH; `size` in bytes from a linear address on."""

    kind: str
    address: int
    size: int


class Halted(NamedTuple):
    """The CPU stands: the signal that gdb is told, lines for the person, and the point that was hit: its kind (SOFTWARE,
    HARDWARE, or a Watchpoint's; "" for none) and linear address."""

    signal: int
    said: tuple[str, ...] = ()
    point: str = ""
    address: int = 0


class _Span(NamedTuple):
    """A part of a watchpoint within a page: physical address and bytes."""

    paddr: int
    size: int
    watchpoint: Watchpoint


class Debuggee:
    """A CPU and its board. `on_handoff` is called once, with the CPU at the kernel's entry, and says what is to be told."""

    def __init__(self, cpu: Cpu, board: Board, places: Places, on_handoff: Callable[[], list[str]], *, counting: bool) -> None:
        """`counting`: instructions are counted behind the handoff, too."""
        self.cpu, self.board, self.places = cpu, board, places
        self.handed_over = False
        self.breakpoints: dict[int, str] = {}  # linear address: SOFTWARE or HARDWARE
        self.watchpoints: list[Watchpoint] = []
        self._on_handoff, self._counting = on_handoff, counting
        self._hit: tuple[Watchpoint, str] | None = None

    def read(self, address: int, size: int) -> bytes:
        """Memory behind a linear address; NoMemoryError where there is none. Devices are not asked."""
        return b"".join(self.board.memory.read(paddr, part) for paddr, part in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        """Stores to RAM behind a linear address, all or nothing; NoMemoryError where there is none, BootError for a ROM."""
        pieces = self._pieces(address, len(data))
        memory: GuestMemory = self.board.memory
        for paddr, size in pieces:
            memory.view(paddr, size)
        at = 0
        for paddr, size in pieces:
            with memory.writing(paddr, size) as view:
                view[:] = data[at : at + size]
            at += size

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        """(physical address, bytes), a page each at most."""
        pieces = []
        end = address + size
        while address < end:
            part = min(end, (address // PAGE_SIZE + 1) * PAGE_SIZE) - address
            paddr = self.cpu.translate(address)
            if paddr is None:
                raise NoMemoryError(f"nothing is mapped at {address:#x}")
            pieces.append((paddr, part))
            address += part
        return pieces

    def step(self) -> Halted:
        """One instruction."""
        with self._watched() as changed:
            self.cpu.step()
            if changed is not None:
                changed()
        return self._halted(SIGTRAP)

    def step_out_of(self, span: range) -> Halted:
        """One instruction, and then on as long as the next one lies in `span`, linear addresses, as all of a rep do."""
        places = self._places()
        with self._watched() as changed:
            reached = self.cpu.run_to(lambda at: at not in span or at in places or (changed is not None and changed()))
        return self._halted(SIGTRAP if reached else SIGINT)

    def go_on(self) -> Halted:
        """To a breakpoint, a watchpoint, the handoff or the end, or until it is paused (SIGINT)."""
        places = self._places()
        with self._watched() as changed:
            if changed is not None:
                reached = self.cpu.run_to(lambda at: changed() or at in places)
            else:
                # What is watched is told with the instruction that does it only where each is looked at.
                counting = self._counting or not self.handed_over or bool(self.watchpoints)
                reached = self.cpu.run_to(places, counting=counting)
        if not reached:
            return self._halted(SIGINT)
        at = self.cpu.linear_ip()
        return self._halted(SIGTRAP, self.breakpoints.get(at, ""), at)

    def _places(self) -> set[int]:
        """Where it is to stop."""
        return set(self.breakpoints) | (set() if self.handed_over else {self.board.entry})

    def release(self, until: Until) -> None:
        """Lets it go on, without break- and watchpoints, to where the run is meant to end."""
        self.breakpoints.clear()
        self.watchpoints.clear()
        if not self.handed_over:
            self.go_on()
        if self.cpu.stop is None and until.kind == HANDOFF:
            self.cpu.end(Stop(HANDOFF, "", self.cpu.linear_ip()))
        self.cpu.run_to((), counting=self._counting)

    def _halted(self, signal: int, point: str = "", address: int = 0) -> Halted:
        said = []
        if self._hit is not None:
            watchpoint, what = self._hit
            self._hit = None
            signal, point, address = SIGTRAP, watchpoint.kind, watchpoint.address
            said.append(what)
        if (stop := self.cpu.stop) is not None:
            said.append(f"end: {describe_stop(stop)}")
            return Halted(signal_of(stop), tuple(said))
        if not self.handed_over and self.cpu.linear_ip() == self.board.entry:
            self.handed_over = True
            said += self._on_handoff()
            if self.board.entry not in self.breakpoints:
                signal, point = SIGSTOP, ""
        return Halted(signal, tuple(said), point, address)

    @contextmanager
    def _watched(self) -> Iterator[Callable[[], bool] | None]:
        """While it lasts the watchpoints are watched. Where the engine does not show loads and stores it gives a function that
        says, between two instructions, whether what one is at has changed."""
        spans = [_Span(*piece, watchpoint) for watchpoint in self.watchpoints for piece in self._mapped(watchpoint)]
        if not spans:
            yield None
        elif self.cpu.sees_memory:
            with self.cpu.watch(self._watch(spans)):
                yield None
        else:
            yield self._changes(spans)

    def _mapped(self, watchpoint: Watchpoint) -> list[tuple[int, int]]:
        """The memory that it is at, as the page tables are now: none if nothing is mapped, or a device."""
        try:
            pieces = self._pieces(watchpoint.address, watchpoint.size)
            for paddr, size in pieces:
                self.board.memory.read(paddr, size)
        except NoMemoryError:
            return []
        return pieces

    def _watch(self, spans: list[_Span]) -> Watch:
        def touched(kinds: tuple[str, ...], paddr: int, size: int, does: str) -> None:
            for start, length, watchpoint in spans:
                if watchpoint.kind in kinds and paddr < start + length and start < paddr + size and self._hit is None:
                    self._hit = watchpoint, f"{self._where()} {does} {paddr:#x}"
                    self.cpu.pause()

        def load(paddr: int, size: int) -> None:
            touched((LOADS, BOTH), paddr, size, f"loads {size} bytes from")

        def store(paddr: int, size: int, value: int) -> None:
            touched((STORES, BOTH), paddr, size, f"stores {value:#x} ({size} bytes) to")

        def device_store(paddr: int, size: int) -> None:
            touched((STORES, BOTH), paddr, size, f"has a device store {size} bytes to")

        return Watch(load=load, store=store, device_store=device_store)

    def _changes(self, spans: list[_Span]) -> Callable[[], bool]:
        memory = self.board.memory
        before = {span: memory.read(span.paddr, span.size) for span in spans}

        def changed() -> bool:
            for span, data in before.items():
                found = memory.read(span.paddr, span.size)
                if found != data:
                    self._hit = span.watchpoint, f"{span.paddr:#x} has changed from {data.hex(' ')} to {found.hex(' ')}"
                    return True
            return False

        return changed

    def _where(self) -> str:
        address = self.cpu.linear_ip()
        place = self.places.locate(address)
        return f"{address:#x}" if place is None else str(place)
