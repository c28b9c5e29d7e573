"""What comes behind the last step that is told: accesses to devices, what COM1 prints, and marks; each with its time, where the
engine has one that is the same in each run."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pvhboot.loader.printable import one_line

from ..board import Board
from ..bus import Access
from ..effects import Effect
from ..engines.base import Cpu, Watch, describe_stop
from ..session import Outcome
from ..timeline.marks import HANDOFF
from ..timeline.recorder import Recorder
from .accesses import DEVICES, AccessWords
from .columns import Json

_EVENTS: Final = 1000  # that are told, and as many lines of the console
_LINE: Final = 2000  # bytes of one
_SHOWN: Final = 60  # characters, on a terminal
_SENTENCES: Final = 3  # of a group of accesses
# Devices whose accesses belong together.
_GROUPS: Final[Mapping[str, str]] = {
    "pci-address": "pci",
    "pci-config": "pci",
    "pic": "interrupts",
    "pic2": "interrupts",
    "elcr": "interrupts",
    "lapic": "interrupts",
    "ioapic": "interrupts",
    "fw_cfg": "fw_cfg",
    "fw_cfg-dma": "fw_cfg",
}
_GROUP_WORDS: Final[Mapping[str, str]] = {
    "pci": "PCI configuration space",
    "interrupts": "the interrupt controllers",
    "fw_cfg": "QEMU's fw_cfg",
}


class Mark(NamedTuple):
    """As of a timeline, but with ns since power on (None: unknown)."""

    name: str
    ns: int | None
    place: str


class Event(NamedTuple):
    """`ns` since power on (None: unknown); `kind` is mark, access or end; so many `accesses` are one."""

    ns: int | None
    kind: str
    words: str
    accesses: int = 1


class _Group:
    """Accesses to devices that belong together, one after the other."""

    def __init__(self, name: str, ns: int | None) -> None:
        self.name, self._ns, self._count, self._printed = name, ns, 0, 0
        self._sentences: dict[str, None] = {}

    def add(self, sentence: str, printed: int) -> None:
        """One more, with what it means, and how many bytes it has printed."""
        self._count += 1
        self._printed += printed
        if sentence and not printed and len(self._sentences) <= _SENTENCES:
            self._sentences[sentence] = None

    def event(self) -> Event:
        """All of them."""
        said = [*([f"prints {self._printed} bytes"] if self._printed else []), *self._sentences]
        shown = ", ".join(said[:_SENTENCES]) + (", …" if len(said) > _SENTENCES else "")
        name = _GROUP_WORDS.get(self.name) or DEVICES.get(self.name, self.name)
        words = ": ".join(part for part in (name if self.name else "", shown) if part)
        return Event(self._ns, "access", words, self._count)


class _Marks(Recorder):
    """Tells each mark when it is reached."""

    def __init__(self, told: Callable[[str], None], clock: Callable[[], int]) -> None:
        super().__init__("", clock)
        self._told = told

    def reach(self, name: str, ns: int | None = None, place: str = "") -> None:
        """See Recorder."""
        is_new = not self.has(name)
        super().reach(name, ns, place)
        if is_new:
            self._told(name)


class Beyond:
    """A Watcher of a whole run that tells of it what is behind so many accesses to devices. `marks` are linear addresses by
    name; `words` says what accesses mean; `on_line` is told of each line of COM1. `entered`: it does not watch, and it is known
    that the kernel was entered about then."""

    def __init__(
        self,
        accesses: int,
        marks: Mapping[str, int],
        words: AccessWords,
        on_line: Callable[[str], None] = lambda _line: None,
        *,
        entered: bool,
    ) -> None:
        self._left, self._entered = accesses, entered
        self._marks = dict(marks)
        self._words, self._on_line = words, on_line
        self._now: Callable[[], int | None] = lambda: None
        self._recorder = _Marks(lambda name: self._add(Event(self._now(), "mark", name)), lambda: self._now() or 0)
        self._open: _Group | None = None
        self._line = bytearray()
        self._line_ns: int | None = None
        self.events: list[Event] = []
        self.console: list[tuple[int | None, str]] = []
        self.left_out = 0

    def attach(self, board: Board, *, timed: bool) -> None:
        """Listens to the board, from power on. `timed`: its clock, if it has one, goes on by instructions."""
        if timed and board.interrupts is not None:
            self._now = lambda: board.clock.now
        board.bus.listeners.append(self._on_access)
        self._begin()

    def _begin(self) -> None:
        """If this is where it begins, and nobody else will say so, this is the handoff."""
        if self._entered and not self._left:
            self._recorder.reach(HANDOFF)

    def start(self, cpu: Cpu, board: Board) -> Watch:  # noqa: ARG002
        """See Watcher: for the marks."""
        places = {address: name for name, address in self._marks.items()}

        def on_instruction(address: int, _size: int) -> None:
            if (name := places.get(address)) is not None:
                self._recorder.reach(name)

        return Watch(on_instruction, spans=tuple((address, address + 1) for address in places))

    def on_console(self, data: bytes) -> None:
        """COM1 has sent a byte."""
        if self._left:
            return
        self._recorder.on_console(data)
        if not self._line:
            self._line_ns = self._now()
        self._line += data
        if data == b"\n" or len(self._line) >= _LINE:
            self._end_line()

    def _end_line(self) -> None:
        text = self._line.decode(errors="replace").rstrip("\r\n")
        self._on_line(f"COM1: {one_line(text)[:_SHOWN]}")
        if len(self.console) < _EVENTS:
            self.console.append((self._line_ns, text))
        else:
            self.left_out += 1
        self._line.clear()

    def _on_access(self, access: Access) -> None:
        sentence = self._words.tell(Effect(*access))
        if self._left:
            self._left -= 1
            self._begin()
            return
        self._recorder.on_access(access)
        group = _GROUPS.get(access.device, access.device)
        if self._open is None or self._open.name != group:
            self._close()
            self._open = _Group(group, self._now())
        self._open.add(sentence, len(self._words.printed))

    def _add(self, event: Event) -> None:
        self._close()
        if len(self.events) < _EVENTS:
            self.events.append(event)
        else:
            self.left_out += event.accesses

    def _close(self) -> None:
        if self._open is not None:
            group, self._open = self._open, None
            self._add(group.event())

    def end(self, outcome: Outcome) -> None:
        """The run has ended."""
        self._close()
        if self._line:
            self._end_line()
        self.events.append(Event(self._now(), "end", one_line(describe_stop(outcome.run.stop))))

    def marks(self) -> list[Mark]:
        """Each with its ns since power on, None if they are unknown."""
        is_timed, start = self._now() is not None, self._recorder.start_ns
        return [Mark(mark.name, mark.ns + start if is_timed else None, mark.place) for mark in self._recorder.marks()]

    def to_json(self) -> Json:
        """`beyond` of the page's data."""
        return {
            "clock": self._now() is not None,
            "events": [list(event) for event in self.events],
            "console": [list(line) for line in self.console],
            "left_out": self.left_out,
        }
