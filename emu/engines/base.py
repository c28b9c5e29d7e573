"""What all engines share: when a run ends, why it ended, what it counted, and how it is watched and driven."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, NamedTuple, Protocol

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.x86 import EFLAGS_IF, INSTRUCTION_MAX, PAGE_SIZE, Segment
from pvhboot.shim.errors import NoMemoryError
from pvhboot.shim.machines import MachineSpec

from ..board import Board
from ..handoff import Handoff
from ..reasons import CONSOLE, HANDOFF, INTERRUPTED


class Until(NamedTuple):
    """Where a run is meant to end: `kind` is handoff, console (when COM1 has printed `text`), exit (by the guest) or left (by
    whoever sits at the console, or by the guest's exit or reset)."""

    kind: str
    text: str = ""


class Limits(NamedTuple):
    """What a run may use at most: guest instructions (Unicorn only), accesses to devices, seconds of wall time."""

    instructions: int | None = None
    exits: int | None = None
    seconds: float = 60.0

    @property
    def instructions_over(self) -> str:
        """What a Stop says when the instructions are used up."""
        return f"{self.instructions} instructions have been executed"

    @property
    def exits_over(self) -> str:
        """What a Stop says when the accesses are used up."""
        return f"{self.exits} accesses to devices have been made"

    @property
    def seconds_over(self) -> str:
        """What a Stop says when the time is used up."""
        return f"{self.seconds:g} seconds of wall time are over"


class Stop(NamedTuple):
    """How a run ended: a word of `reasons`, the words for a person, the linear address of the next (or the faulting)
    instruction (None: unknown), and the value that the guest left with (EXIT)."""

    reason: str
    detail: str
    rip: int | None
    value: int | None = None


class Run(NamedTuple):
    """The end of a run: why, the CPU's registers then (empty: unknown), and counts (instructions only to the handoff; each
    only where the engine can count it). `segments` (empty: unknown), `bits` and `code` are those of the CPU then, too: how the
    instruction at the stop is decoded, and the bytes from there on, as far as memory is mapped."""

    stop: Stop
    registers: Mapping[str, int]
    counts: Mapping[str, int]
    segments: Mapping[str, Segment] = {}
    bits: int = 0
    code: bytes = b""


GENERAL: Final = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp")  # in the order in which they are shown
ENCODED: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")  # as instructions have their numbers
GENERAL_64: Final = tuple(f"r{number}" for number in range(8, 16))
STATE_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
STATE_REGISTERS: Final = (
    *(*ENCODED, *GENERAL_64),
    *(f"{name}{part}" for name in STATE_SEGMENTS for part in ("", "_base", "_limit")),
    *(f"{name}_{part}" for name in ("gdtr", "idtr") for part in ("base", "limit")),
    *("cr0", "cr3", "cr4", "efer", "eflags"),
)


class State(NamedTuple):
    """The registers between two instructions, cheaply: `bits` as Cpu.bits, values in the order of STATE_REGISTERS."""

    bits: int
    values: tuple[int, ...]


class Watch(NamedTuple):
    """Who is told what while a CPU executes. What is None costs nothing; each other is a call of Python's for each event.

    `instruction`: (linear address, bytes) of the instruction that is executed next. Of a rep Unicorn tells each iteration, and
    once more where its count has come to 0; KVM as often as it makes a step there. Of one that faults it is told, too. On KVM,
    which makes a step of each, the number of bytes is 0: it does not know.
    `load` and `store`: (physical address, bytes) and (physical address, bytes, value) of what an instruction reads from memory,
    and is about to write to it: what a store replaces still stands there. `device_store`: (physical address, bytes) of what a
    device has written. (An `ins` tells Unicorn's `store` twice: of a 0 first, by which it finds out whether it may store.)
    Accesses to devices: Bus.listeners. `over`: the watching ends, other than by an exception, and the CPU can still be asked.
    `to_handoff`: in a whole run it ends where the kernel is entered. `spans`: of instructions only those are told that lie in
    one of these half-open spans of linear addresses; empty: all.
    """

    instruction: Callable[[int, int], None] | None = None
    load: Callable[[int, int], None] | None = None
    store: Callable[[int, int, int], None] | None = None
    device_store: Callable[[int, int], None] | None = None
    over: Callable[[], None] | None = None
    to_handoff: bool = False
    spans: tuple[tuple[int, int], ...] = ()

    def tells(self, address: int) -> bool:
        """Whether an instruction at a linear address lies in the spans."""
        for start, end in self.spans:  # asked of every instruction: a generator would cost more than all else here
            if start <= address < end:
                return True
        return not self.spans


class Cpu(Protocol):
    """A processor with its board around it, that stands between two instructions: one run of the engine unicorn or kvm."""

    stop: Stop | None  # what has ended the run; None while it can go on
    sees_memory: bool  # loads and stores can be watched
    limits: Limits  # instructions and exits as counted since the reset; of the time only that counts in which it executes

    @property
    def instructions(self) -> int:
        """How many have been executed while they were counted: as often as Watch.instruction would have been told."""

    def run_to(self, places: Collection[int] | Callable[[int], bool], *, counting: bool = True) -> bool:
        """Executes at least one instruction, and then up to the first one at one of the linear addresses, or for whose address
        the function says so. False: `stop` says what ended the run, or if that is None, `pause` was called. Counting is
        slower; with a function it is always done."""

    def step(self) -> bool:
        """Executes one instruction, counting; False if that has ended the run."""

    def pause(self) -> None:
        """Within a Watch or from another thread: `run_to` returns as soon as the instruction that is executed is over."""

    def end(self, stop: Stop) -> None:
        """The run is over, unless it is already; within a Watch, as soon as the instruction is."""

    def watch(self, watch: Watch) -> AbstractContextManager[None]:
        """As long as the context lasts the watch is told. BootError for what this engine cannot see."""

    @property
    def bits(self) -> int:
        """16, 32 or 64: how the next instruction is decoded."""

    def linear_ip(self) -> int:
        """The linear address of the next instruction."""

    def translate(self, linear: int) -> int | None:
        """The physical address behind a linear one; None where nothing is mapped."""

    def registers(self) -> dict[str, int]:
        """As Handoff.registers has them; in long mode the whole ones by the same names, and r8 to r15."""

    def segments(self) -> dict[str, Segment]:
        """As Handoff.segments has them."""

    def state(self) -> State:
        """For who asks at every instruction."""

    def set_register(self, name: str, value: int) -> None:
        """Writes eax … edi, ebp, esp, eip, eflags, in long mode r8 to r15, by the names of `registers`."""

    def save(self) -> Callable[[], None]:
        """What brings the CPU, its `stop` and its counts back to what they are now; memory and devices are checkpoint's.
        BootError of an engine that cannot."""

    def handoff(self) -> Handoff:
        """What the check looks at."""

    def counts(self) -> dict[str, int]:
        """As Run.counts has them."""


class Watcher(Protocol):
    """What watches a whole run: a trace, a sanitizer, coverage."""

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """Called once, before the first instruction. It may keep the two, and ask the CPU for its state when it is told
        something."""


class Engine(Protocol):
    """Executes a Board from the reset vector."""

    name: str

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:
        """What the host adds to the memory map that fw_cfg tells, with `memory` bytes of RAM: a plan for this engine has it."""

    def cpu(self, board: Board, limits: Limits) -> AbstractContextManager[Cpu]:
        """A CPU in its reset state, to be driven step by step. Raises as `run` does; BootError of an engine that cannot be."""

    def run(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        watchers: Sequence[Watcher] = (),
    ) -> Run:
        """`on_handoff` is called once, with the guest stopped at the kernel's entry. Raises UnavailableError for what the host
        lacks, BootError for what it refuses; all that the guest does ends in a Run."""


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C has ended a run; `run` is what it has come to."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class DrivenEngine(ABC):
    """An engine whose run drives its CPU."""

    name: str

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:  # noqa: ARG002
        """Nothing: the board is all that there is."""
        return ()

    @abstractmethod
    def cpu(self, board: Board, limits: Limits) -> AbstractContextManager[Cpu]:
        """See Engine."""

    def run(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        watchers: Sequence[Watcher] = (),
    ) -> Run:
        """See Engine. Behind the handoff instructions are counted only if they are limited."""
        with self.cpu(board, limits) as cpu:
            return drive(cpu, board, until, on_handoff, watchers=watchers, counting=limits.instructions is not None)


def drive(
    cpu: Cpu, board: Board, until: Until, on_handoff: Callable[[Handoff], None], *, watchers: Sequence[Watcher], counting: bool
) -> Run:
    """From the reset vector to `until`, or to whatever ends it before; InterruptedRunError at Ctrl-C. `counting`: behind the
    handoff, too."""
    if until.kind == CONSOLE:
        board.stop_at_console_text(until.text)
    try:
        with watching(cpu, board, watchers) as handed_over:
            if cpu.run_to({board.entry}):
                on_handoff(cpu.handoff())
                handed_over()
                if until.kind == HANDOFF:
                    cpu.end(Stop(HANDOFF, "", board.entry))
                else:
                    cpu.run_to((), counting=counting)
    except KeyboardInterrupt:
        cpu.end(Stop(INTERRUPTED, "by Ctrl-C", cpu.linear_ip()))
        raise InterruptedRunError(ended(cpu, board)) from None
    return ended(cpu, board)


@contextmanager
def watching(cpu: Cpu, board: Board, watchers: Sequence[Watcher]) -> Iterator[Callable[[], None]]:
    """The watchers watch as long as the context lasts; those that want to no further than the handoff, until what it gives is
    called."""
    with ExitStack() as to_the_end, ExitStack() as to_the_handoff:
        for watcher in watchers:
            watch = watcher.start(cpu, board)
            (to_the_handoff if watch.to_handoff else to_the_end).enter_context(cpu.watch(watch))
        yield to_the_handoff.close


def ended(cpu: Cpu, board: Board) -> Run:
    """The end of a run that has ended."""
    assert cpu.stop is not None
    code = b"" if cpu.stop.rip is None else code_at(cpu, board.memory, cpu.stop.rip)
    return Run(cpu.stop, cpu.registers(), cpu.counts(), cpu.segments(), cpu.bits, code)


def code_at(cpu: Cpu, memory: ReadableMemory, linear: int) -> bytes:
    """The bytes of an instruction, as many as it may have at most; fewer, or none, where the CPU finds no memory."""
    code = b""
    while len(code) < INSTRUCTION_MAX:
        at = linear + len(code)
        paddr = cpu.translate(at)
        size = min(INSTRUCTION_MAX - len(code), PAGE_SIZE - at % PAGE_SIZE)
        try:
            code += b"" if paddr is None else memory.read(paddr, size)
        except NoMemoryError:
            return code
        if paddr is None:
            return code
    return code


def halt_detail(eflags: int) -> str:
    """What a Stop says of a hlt that no interrupt ends."""
    return f"hlt with interrupts {'on, but nothing here raises one' if eflags & EFLAGS_IF else 'off'}"


def describe_stop(stop: Stop) -> str:
    """The stop as a phrase."""
    return f"{stop.reason}: {stop.detail}" if stop.detail else stop.reason
