"""One boot from start to end: plan, place, run, check. What the command line and a test both call."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob, Place
from pvhboot.shim.errors import BootError

from .board import Board
from .bus import Access
from .check import Finding, check, is_clean
from .engines.base import Engine, InterruptedRunError, Limits, Run, Stop, Until, Watcher
from .engines.names import ENGINES, KVM, QEMU, TCG, UNICORN
from .handoff import Handoff
from .reasons import EXIT, LEFT, RESET
from .tables import Tables, read_tables

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

    from .stats import Stats


class Outcome(NamedTuple):
    """What a boot came to. `handoff`, `tables` and `findings` are as they were at the kernel's entry; without one, None
    and empty. The handoff's memory is live: by now the guest may have changed it. `accesses` are those to devices, `memory` is
    that of the board as the guest has left it; None where the engine has devices and memory of its own. `until` is where it
    was to end; None where a test has driven it."""

    plan: BootPlan
    blob: Blob
    engine: str
    run: Run
    handoff: Handoff | None
    tables: Tables | None
    findings: tuple[Finding, ...]
    ended_as_asked: bool
    console: bytes
    debug_console: bytes
    post_codes: tuple[int, ...]
    accesses: tuple[Access, ...] | None
    memory: ReadableMemory | None
    until: Until | None = None

    @property
    def clean(self) -> bool:
        """The handoff was reached, and no clause of the ABI is violated or unseen."""
        return self.handoff is not None and is_clean(self.engine, self.findings)

    @property
    def ok(self) -> bool:
        """Clean, and the run ended as asked."""
        return self.clean and self.ended_as_asked

    @property
    def stop_place(self) -> Place | None:
        """Where the run stopped: in the firmware, or behind the handoff in the kernel, if it was not to stop there and the
        kernel's file is still open."""
        rip = self.run.stop.rip
        if rip is None:
            return None
        place = self.blob.locate(rip)
        if place is not None or self.ended_as_asked or self.handoff is None:
            return place
        from .places import Places

        try:
            return Places(self.plan, self.blob).locate(rip)
        except BootError:
            return None


class InterruptedBootError(KeyboardInterrupt):
    """Ctrl-C has ended a boot; `outcome` is what it has come to."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def get_engine(
    name: str, *, accelerator: str | None = None, qemu_arguments: Sequence[str] = (), tracing: bool = False
) -> Engine:
    """An engine by its name; only then is what it needs imported. The rest is for the engine qemu; another one needs no
    `tracing`.

    Raises BootError for an unknown name, or for what is not for this engine.
    """
    if name != QEMU and (accelerator or qemu_arguments):
        raise BootError(f"{'an accelerator' if accelerator else 'an argument for QEMU'} is for the engine qemu, not for {name}")
    if name == UNICORN:
        from .engines.unicorn import UnicornEngine

        return UnicornEngine()
    if name == KVM:
        from .engines.kvm.engine import KvmEngine

        return KvmEngine()
    if name == QEMU:
        from .engines.qemu.engine import QemuEngine

        return QemuEngine(accelerator or TCG, qemu_arguments, tracing=tracing)
    raise BootError(f"no engine named {name!r}; there is: {', '.join(ENGINES)}")


def boot(
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    until: Until,
    limits: Limits,
    on_console: Callable[[bytes], None] | None = None,
    recording: "Recording | None" = None,
    watchers: Sequence[Watcher] = (),
    stats: "Stats | None" = None,
) -> Outcome:
    """Boots the plan. `on_console` gets what COM1 prints as it comes; `recording` takes the place of the machine's own (not for
    the engine qemu). `stats` are told where each phase ends. Raises BootError for what host or files lack, or if the engine
    cannot show what a watcher wants."""
    board = Board(plan, on_console=on_console, recording=recording)
    return boot_board(board, blob, engine, until, limits, watchers, stats)


def _is_as_asked(stop: Stop, until: Until) -> bool:
    """Whoever sits at a console may leave at any time, and there a reset ends a session as well."""
    if stop.reason == EXIT:
        return stop.value == 0 and until.kind in (EXIT, LEFT)
    return stop.reason in (until.kind, LEFT) or (stop.reason == RESET and until.kind == LEFT)


def boot_board(
    board: Board,
    blob: Blob,
    engine: Engine,
    until: Until,
    limits: Limits,
    watchers: Sequence[Watcher] = (),
    stats: "Stats | None" = None,
) -> Outcome:
    """The same on a board that somebody else has made, for its plan. One that is not as the plan says is not for the engine
    qemu. At Ctrl-C it raises InterruptedBootError, where the engine can say what the run has come to."""
    plan = board.plan
    seen: list[tuple[Handoff, Tables, tuple[Finding, ...]]] = []

    def on_handoff(handoff: Handoff) -> None:
        if stats is not None:
            stats.handed_over()
        seen.append((handoff, read_tables(handoff), tuple(check(handoff, plan))))
        if stats is not None:
            stats.checked()

    if stats is not None and engine.name != QEMU:
        stats.placed(board.memory)
        watchers = (*watchers, stats)
    interrupted = False
    try:
        run = engine.run(board, until, limits, on_handoff, watchers)
    except InterruptedRunError as error:
        run, interrupted = error.run, True
    if stats is not None:
        stats.ended()
    handoff, tables, findings = seen[0] if seen else (None, None, ())
    as_asked = _is_as_asked(run.stop, until)
    outcome = Outcome(
        plan,
        blob,
        engine.name,
        run,
        handoff,
        tables,
        findings,
        as_asked,
        bytes(board.console),
        bytes(board.debug_console),
        tuple(board.post_codes),
        None if board.is_stock else tuple(board.bus.log),
        None if board.is_stock else board.memory,
        until,
    )
    if interrupted:
        raise InterruptedBootError(outcome)
    return outcome
