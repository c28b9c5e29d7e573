"""Machine: a boot that a test drives step by step, looks at, and writes to."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.paging import EFER_LMA
from pvhboot.shim.blob import Blob, Place
from pvhboot.shim.errors import BootError

from .bus import OUT, Access
from .engines.base import Cpu, Stop, Watcher, describe_stop
from .engines.names import UNICORN
from .kit.setup import Setup
from .kit.standing import Change, Point, Standing
from .kit.values import IoLog, MemoryView, Registers, Segments
from .kit.view import HandoffView
from .places import Places
from .reasons import EXIT

_FIRMWARE_MAX: Final = 20_000_000  # instructions of a firmware, of which SeaBIOS has 6 million: then it has gone astray
_SHOWN: Final = 8  # values of a port


class NotReached(AssertionError):
    """The run ended, or its limit was reached, before what was waited for."""


class _Progress(NamedTuple):
    """What a checkpoint keeps beside the CPU and its board."""

    handoff: HandoffView | None
    passed_entry: bool
    exact: bool
    changes: int
    heard: dict[str, int]


class Machine:
    """A machine on the engine unicorn or kvm. It stands between two instructions, at first at its reset vector.

    `plan` and `blob` are what it boots, `board` its memory and devices, `cpu` what executes: for what is not here.
    """

    def __init__(self, setup: Setup, opened: ExitStack, watchers: Sequence[Watcher] = ()) -> None:
        """`opened` is closed with the machine. Raises BootError for what the engine refuses."""
        self.setup = setup
        self.plan: BootPlan = setup.plan
        self.blob: Blob = setup.blob
        self.engine: str = setup.engine.name
        self.handoff: HandoffView | None = None  # as run_until_handoff has found it, or as the machine has gone through it
        self.failed: Standing | None = None  # where it stood when a test failed within a checkpoint
        self._opened = opened
        self._places: Places | None = None
        self._passed_entry = self._only_firmware = False
        self._exact = True
        self._changes: list[Change] = []
        self._heard = {"console": 0, "debug_console": 0}  # how much of each the text was in that was waited for last
        self.board = setup.board()
        self._start(watchers)

    def _start(self, watchers: Sequence[Watcher]) -> None:
        self.cpu: Cpu = self._opened.enter_context(self.setup.engine.cpu(self.board, self.setup.limits))
        for watcher in watchers:
            self._opened.enter_context(self.cpu.watch(watcher.start(self.cpu, self.board)))

    def close(self) -> None:
        """Lets go of the CPU and of files; twice is no error."""
        self._opened.close()

    # Looking at it

    @property
    def registers(self) -> Registers:
        """By name, as in a handoff; in long mode r8 to r15, too. `machine.registers["eax"] = 1` writes one."""
        return Registers(self.cpu.registers(), self._write_register)

    @property
    def segments(self) -> Segments:
        """By name: cs, ds, es, ss, fs, gs, tr, each with its hidden part."""
        return Segments(self.cpu.segments())

    @property
    def ip(self) -> int:
        """The linear address of the next instruction."""
        return self.cpu.linear_ip()

    @property
    def where(self) -> Place | None:
        """The label and the source line of the next instruction, as far as they are known."""
        return self.places.locate(self.ip)

    @property
    def places(self) -> Places:
        """The labels of the firmware, and the kernel's symbols."""
        if self._places is None:
            self._places = Places(self.plan, self.blob)
        return self._places

    @property
    def instructions(self) -> int:
        """How many were executed; behind the handoff they are counted only where they are limited."""
        return self.cpu.instructions

    @property
    def memory(self) -> MemoryView:
        """Physical memory, by index."""
        return MemoryView(self.board.memory, self._write_memory)

    @property
    def io_log(self) -> IoLog:
        """The accesses to devices so far."""
        return IoLog(self.board.bus.log, self.board.bus.devices)

    @property
    def console(self) -> str:
        """What COM1 has printed so far."""
        return self.board.console.decode(errors="replace")

    @property
    def debug_console(self) -> str:
        """What port 0x402 has printed so far."""
        return self.board.debug_console.decode(errors="replace")

    @property
    def post_codes(self) -> list[int]:
        """What was written to port 0x80 so far."""
        return list(self.board.post_codes)

    @property
    def stop(self) -> Stop | None:
        """What has ended the run; None while it can go on."""
        return self.cpu.stop

    # Driving it

    def run_until_handoff(self, *, max_instructions: int | None = None) -> HandoffView:
        """Executes up to the kernel's entry; NotReached if the run ends before."""
        if not self._passed_entry:
            self._limit(max_instructions)
            if not self._advance(frozenset((self.plan.entry,)), lambda: False):
                raise self._not_reached("the handoff")
        if self.handoff is None or self.ip != self.plan.entry:
            raise BootError("the machine has left the kernel's entry behind: it has its `handoff`")
        return self.handoff

    def run_until(
        self,
        target: "str | int | Callable[[Machine], object] | None" = None,
        *,
        port: int | None = None,
        value: int | None = None,
        console: str | None = None,
        debug_console: str | None = None,
        max_instructions: int | None = None,
    ) -> None:
        """Executes up to what is named: the label or symbol, or the linear address, of the next instruction; a function of the
        machine that is asked before each instruction; a write to a port (of that value, if one is given); a text on COM1 or on
        port 0x402, behind the one that was waited for last. NotReached if the run ends before, or after `max_instructions`
        more. BootError for a symbol that there is not.

        Where instructions are not counted (behind the handoff, without a limit) unicorn goes on from an access to the next
        jump."""
        wanted = [target, port, console, debug_console]
        if sum(each is not None for each in wanted) != 1 or (value is not None and port is None):
            raise BootError(
                "run_until takes one of: a symbol, an address or a function; port (and value); console; debug_console"
            )
        if port is not None:
            self._run_until_access(port, value, max_instructions)
        elif console is not None or debug_console is not None:
            self._run_until_text(
                "console" if console is not None else "debug_console", console or debug_console or "", max_instructions
            )
        else:
            assert target is not None
            self._run_until_place(target, max_instructions)

    def run_until_exit(self, *, max_instructions: int | None = None) -> int:
        """Executes until the guest writes to the debug-exit port; the value. NotReached for any other end."""
        self._limit(max_instructions)
        if self.stop is None:
            self._advance(frozenset(), lambda: False)
        if self.stop is None or self.stop.reason != EXIT or self.stop.value is None:
            raise self._not_reached("an exit by the guest")
        return self.stop.value

    def step(self, count: int = 1) -> None:
        """Executes so many instructions, of a rep each iteration and its end as one; NotReached if the run ends before."""
        if not isinstance(count, int) or count < 0:
            raise BootError(f"step({count!r}): give a number of instructions")
        self._limit(None)
        for done in range(count):
            if self.stop is not None:
                raise self._not_reached(f"the end of step {done + 1} of {count}")
            self._settle()
            self.cpu.step()
            self._arrive()

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """At its end the machine is again as it was at its begin: CPU, memory, devices, logs. BootError on an engine that does
        not see what a guest stores."""
        from .checkpoint import checkpoint

        kept = _Progress(self.handoff, self._passed_entry, self._exact, len(self._changes), dict(self._heard))
        with checkpoint(self.cpu, self.board, [self]):
            try:
                yield
            except BaseException:
                if self.failed is None:  # else it was a checkpoint within this one, which has gone back already
                    self.failed = self.standing()
                raise
            finally:
                self.handoff, self._passed_entry, self._exact, changes, heard = kept
                del self._changes[changes:]
                self._heard.update(heard)

    def standing(self) -> Standing:
        """Where it stands now."""
        return Standing(
            self.stop,
            self._point(),
            Registers(self.cpu.registers()),
            self.segments,
            tuple(self._changes),
            self.handoff,
            tuple(self.board.bus.log),
            self.console,
            self.debug_console,
            tuple(self.board.post_codes),
            self.cpu.counts(),
        )

    # How it goes on

    def _run_until_place(self, target: "str | int | Callable[[Machine], object]", max_instructions: int | None) -> None:
        if callable(target):
            function = target
            if function(self):
                return
            self._limit(max_instructions)
            if not self._advance(lambda _address: bool(function(self)), lambda: False):
                raise self._not_reached(f"what {getattr(function, '__name__', repr(function))} asks for")
            return
        addresses = frozenset((target,)) if isinstance(target, int) else self.places.find_all(target)
        self._limit(max_instructions)
        if not self._advance(addresses, lambda: False):
            raise self._not_reached(f"{target:#x}" if isinstance(target, int) else target)

    def _run_until_access(self, port: int, value: int | None, max_instructions: int | None) -> None:
        seen: list[Access] = []

        def on_access(access: Access) -> None:
            if access.kind == OUT and access.address == port and value in (None, access.value):
                seen.append(access)
                self.cpu.pause()

        what = f"a write {'' if value is None else f'of {value:#x} '}to port {port:#x}"

        def written() -> str:
            values = [access.value for access in self.board.bus.log if access.kind == OUT and access.address == port]
            if not values:
                return f"  nobody wrote to port {port:#x}"
            shown = " ".join(f"{each:#x}" for each in values[-_SHOWN:])
            times = "once" if len(values) == 1 else f"{len(values)} times"
            return f"  port {port:#x} was written to {times}{', at last' if values[_SHOWN:] else ''}: {shown}"

        self._run_until_heard(on_access, lambda: bool(seen), what, max_instructions, written)

    def _run_until_text(self, where: str, text: str, max_instructions: int | None) -> None:
        wanted = text.encode("utf-8", "surrogateescape")
        printed: bytearray = getattr(self.board, where)
        if not wanted:
            raise BootError(f"run_until: an empty text for {where}")

        def found() -> bool:
            return printed.find(wanted, self._heard[where]) >= 0

        def on_access(_access: Access) -> None:
            if printed.endswith(wanted) and found():
                self.cpu.pause()

        if not found():
            name = "the console" if where == "console" else "the debug console"
            before = " again (it was printed before the text that was waited for last)" if wanted in printed else ""
            self._run_until_heard(on_access, found, f"{text!r} on {name}{before}", max_instructions)
        self._heard[where] = printed.find(wanted, self._heard[where]) + len(wanted)

    def _run_until_heard(
        self,
        on_access: Callable[[Access], None],
        heard: Callable[[], bool],
        what: str,
        max_instructions: int | None,
        instead: Callable[[], str] = lambda: "",
    ) -> None:
        """Until `heard` says so, which is asked when `on_access`, told each access, has paused the CPU. `instead`: a line of
        what has happened in place of it."""
        self._limit(max_instructions)
        listeners = self.board.bus.listeners
        listeners.append(on_access)
        try:
            if not self._advance(frozenset(), heard):
                error = self._not_reached(what)
                raise NotReached("\n".join(line for line in (str(error), instead()) if line))
        finally:
            listeners.remove(on_access)

    def _limit(self, max_instructions: int | None) -> None:
        if max_instructions is not None and max_instructions <= 0:
            raise BootError(f"max_instructions={max_instructions}: give a number above 0")
        self._only_firmware = max_instructions is None
        if self._only_firmware and self.engine == UNICORN and not self._passed_entry:
            max_instructions = _FIRMWARE_MAX
        wanted = None if max_instructions is None else self.cpu.instructions + max_instructions
        self.cpu.limits = self.cpu.limits._replace(instructions=wanted)

    def _advance(self, places: frozenset[int] | Callable[[int], bool], heard: Callable[[], bool]) -> bool:
        """Executes to one of the places, or until `heard` says so when the CPU has paused; whether it came to that. On its way
        through the kernel's entry the handoff is kept."""
        entry = self.plan.entry
        while self.stop is None:
            self._settle()
            counting = not self._passed_entry or self.cpu.limits.instructions is not None
            self._exact = self._exact and (counting and self.engine == UNICORN)
            if callable(places):
                there = self.cpu.run_to(self._entry_or(places))
            else:
                stops = places if self._passed_entry else places | {entry}
                there = self.cpu.run_to(stops, counting=counting)
            at_entry = self._arrive()
            if heard() or (there and (not at_entry or (places(entry) if callable(places) else entry in places))):
                return True
            if not there and self.stop is None:
                raise BootError("the machine was paused by somebody else")
        return heard()

    def _entry_or(self, wanted: Callable[[int], bool]) -> Callable[[int], bool]:
        entry = None if self._passed_entry else self.plan.entry
        return lambda address: address == entry or wanted(address)

    def _arrive(self) -> bool:
        """Whether it has just come to the kernel's entry, where the handoff is kept."""
        if self._passed_entry or self.stop is not None or self.ip != self.plan.entry:
            return False
        self._passed_entry = True
        if self._only_firmware:
            self.cpu.limits = self.cpu.limits._replace(instructions=None)
        self.handoff = HandoffView(self.cpu.handoff(), self.plan)
        return True

    def _settle(self) -> None:
        """Before anything changes: what the check says of the handoff is what it says of memory as it is there."""
        self.failed = None
        if self.handoff is not None:
            _ = self.handoff.findings

    def _point(self) -> Point:
        return Point(self.ip, self.board.bus.accesses, self.instructions if self._exact else None)

    def _write_memory(self, paddr: int, data: bytes) -> None:
        self._settle()
        change = Change(self._point(), paddr, data)
        change.make(self.cpu, self.board)
        self._changes.append(change)

    def _write_register(self, name: str, value: int) -> None:
        width = 64 if self.cpu.registers()["efer"] & EFER_LMA else 32
        if not isinstance(value, int) or not 0 <= value < 1 << width:
            raise BootError(f"registers[{name!r}] takes a number of {width} bits, not {value!r}")
        self._settle()
        change = Change(self._point(), name, value)
        change.make(self.cpu, self.board)
        self._changes.append(change)

    def _not_reached(self, what: str) -> NotReached:
        return NotReached(not_reached_text(what, self.stop, self.places, self.console, self.debug_console))


def not_reached_text(what: str, stop: Stop | None, places: Places, console: str, debug_console: str) -> str:
    """What has not been reached, and how the run ended instead."""
    lines = [f"{what} was not reached" + ("" if stop is None else f": {describe_stop(stop)}")]
    if stop is not None and stop.rip is not None:
        place = places.locate(stop.rip)
        lines.append(f"  at {stop.rip:#x}" + (f", {place}" if place else ""))
    for name, text in (("debug console", debug_console), ("console", console)):
        lines += [f"  {name}: {line}" for line in text.splitlines()[-3:]]
    return "\n".join(lines)
