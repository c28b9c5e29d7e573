"""One boot from start to end: plan, place, run, check. What the command line and a test both call."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError

from .board import Board
from .bus import Access
from .check import Finding, check, is_clean
from .engines.base import Engine, Limits, Run, Until, Watcher
from .engines.names import ENGINES, KVM, QEMU, UNICORN
from .handoff import Handoff
from .reasons import EXIT
from .tables import Tables, read_tables


class Outcome(NamedTuple):
    """What a boot came to. `handoff`, `tables` and `findings` are as they were at the kernel's entry; without one, None
    and empty. The handoff's memory is live: by now the guest may have changed it. `accesses` are those to devices, `memory` is
    that of the board as the guest has left it; None where the engine has devices and memory of its own."""

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

    @property
    def clean(self) -> bool:
        """The handoff was reached, and no clause of the ABI is violated or unseen."""
        return self.handoff is not None and is_clean(self.engine, self.findings)

    @property
    def ok(self) -> bool:
        """Clean, and the run ended as asked."""
        return self.clean and self.ended_as_asked


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

        return QemuEngine(accelerator or "tcg", qemu_arguments, tracing=tracing)
    raise BootError(f"no engine named {name!r}; there is: {', '.join(ENGINES)}")


def boot(
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    until: Until,
    limits: Limits,
    on_console: Callable[[bytes], None] | None = None,
    recording: Recording | None = None,
    watchers: Sequence[Watcher] = (),
) -> Outcome:
    """Boots the plan. `on_console` gets what COM1 prints as it comes; `recording` takes the place of the machine's own (not for
    the engine qemu). Raises BootError for what host or files lack, or if the engine cannot show what a watcher wants."""
    return boot_board(Board(plan, on_console=on_console, recording=recording), blob, engine, until, limits, watchers)


def boot_board(
    board: Board, blob: Blob, engine: Engine, until: Until, limits: Limits, watchers: Sequence[Watcher] = ()
) -> Outcome:
    """The same on a board that somebody else has made, for its plan. One that is not as the plan says is not for the engine
    qemu."""
    plan = board.plan
    seen: list[tuple[Handoff, Tables, tuple[Finding, ...]]] = []

    def on_handoff(handoff: Handoff) -> None:
        seen.append((handoff, read_tables(handoff), tuple(check(handoff, plan))))

    run = engine.run(board, until, limits, on_handoff, watchers)
    handoff, tables, findings = seen[0] if seen else (None, None, ())
    as_asked = run.stop.reason == until.kind and (until.kind != EXIT or run.stop.value == 0)
    return Outcome(
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
    )
