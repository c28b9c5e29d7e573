"""A machine under QEMU, which has a CPU of its own: it runs in a thread, and is held at the kernel's entry."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NoReturn

from pvhboot.shim.errors import BootError

from ..board import Board
from ..engines.base import Engine, Limits, Run, Stop, Until, Watcher
from ..handoff import Handoff
from ..machine import Machine
from ..reasons import CONSOLE, EXIT, HANDOFF
from .setup import Setup
from .standing import Standing
from .values import IoLog, MemoryView, Registers, Segments
from .view import HandoffView


class _Boot:
    """One run of QEMU. At the handoff it stands still until `close`."""

    def __init__(self, engine: Engine, board: Board, until: Until, limits: Limits) -> None:
        self.run: Run | None = None
        self.handoff: Handoff | None = None
        self._error: BaseException | None = None
        self._board = board
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._execute, args=(engine, board, until, limits), daemon=True)
        self._until = until
        self._thread.start()

    def _execute(self, engine: Engine, board: Board, until: Until, limits: Limits) -> None:
        try:
            self.run = engine.run(board, until, limits, self._on_handoff)
        except BaseException as error:  # told to who waits
            self._error = error
        self._news.set()

    def _on_handoff(self, handoff: Handoff) -> None:
        if self._until.kind == HANDOFF:
            self.handoff = handoff
            self._news.set()
            self._closing.wait()

    def wait(self) -> None:
        """Until it stands at the handoff, or has ended. Raises what the engine has raised."""
        self._news.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends it, also before its end: a test that was interrupted does not wait for that."""
        self._board.give_up()
        self._closing.set()
        self._thread.join()


class QemuMachine(Machine):
    """A machine on the engine qemu: it is run from its reset vector to the handoff, to a text on COM1, or to an exit, each time
    anew. At the handoff QEMU is held, and its memory can be read."""

    def __init__(self, setup: Setup, opened: ExitStack, watchers: Sequence[Watcher] = ()) -> None:
        self._boot: _Boot | None = None
        super().__init__(setup, opened, watchers)

    def _start(self, watchers: Sequence[Watcher]) -> None:
        if watchers:
            raise BootError("the qemu engine does not see single instructions: nothing can watch")
        self._opened.callback(self._end)

    def _end(self) -> None:
        if self._boot is not None:
            self._boot.close()
            self._boot = None

    def _run(self, until: Until) -> _Boot:
        self._end()
        self.board = Board(self.plan)
        self._boot = _Boot(self.setup.engine, self.board, until, self.setup.limits)
        self._boot.wait()
        return self._boot

    @property
    def stop(self) -> Stop | None:
        """See Machine."""
        return None if self._boot is None or self._boot.run is None else self._boot.run.stop

    def _held(self) -> Handoff:
        if self._boot is None or self._boot.handoff is None:
            raise BootError("QEMU can be looked at while it stands at the handoff only: call run_until_handoff")
        return self._boot.handoff

    @property
    def registers(self) -> Registers:
        """See Machine: at the handoff, or when the run has ended."""
        run = None if self._boot is None else self._boot.run
        return Registers(self._held().registers if run is None else run.registers)

    @property
    def segments(self) -> Segments:
        """See Machine: at the handoff."""
        return Segments(self._held().segments)

    @property
    def ip(self) -> int:
        """See Machine."""
        stop = self.stop
        if stop is not None and stop.rip is not None:
            return stop.rip
        return self._held().registers["eip"]

    @property
    def memory(self) -> MemoryView:
        """See Machine: it can be read only."""
        return MemoryView(self._held().memory, lambda _paddr, _data: self._refuse("written to"))

    @property
    def io_log(self) -> IoLog:
        """BootError: QEMU's devices are its own."""
        self._refuse("asked for its accesses to devices")

    @property
    def instructions(self) -> int:
        """BootError: QEMU does not count them."""
        self._refuse("asked for a count of instructions")

    def run_until_handoff(self, *, max_instructions: int | None = None) -> HandoffView:  # noqa: ARG002
        """See Machine."""
        if self._boot is None or self._boot.handoff is None:
            boot = self._run(Until(HANDOFF))
            if boot.handoff is None:
                raise self._not_reached("the handoff")
            self.handoff = HandoffView(boot.handoff, self.plan)
            self._settle()
        assert self.handoff is not None
        return self.handoff

    def _run_until_text(self, where: str, text: str, max_instructions: int | None) -> None:  # noqa: ARG002
        if where != "console":
            self._refuse("stopped by a text on its debug console")
        run = self._run(Until(CONSOLE, text)).run
        if run is None or run.stop.reason != CONSOLE:
            raise self._not_reached(f"{text!r} on the console")

    def run_until_exit(self, *, max_instructions: int | None = None) -> int:  # noqa: ARG002
        """See Machine."""
        self._run(Until(EXIT))
        if self.stop is None or self.stop.reason != EXIT or self.stop.value is None:
            raise self._not_reached("an exit by the guest")
        return self.stop.value

    def _run_until_place(self, target: object, max_instructions: int | None) -> None:  # noqa: ARG002
        self._refuse("stopped at a place but the handoff")

    def _run_until_access(self, port: int, value: int | None, max_instructions: int | None) -> None:  # noqa: ARG002
        self._refuse("stopped by an access to a port")

    def step(self, count: int = 1) -> None:  # noqa: ARG002
        """BootError: QEMU is not driven."""
        self._refuse("driven step by step")

    @contextmanager
    def checkpoint(self) -> Iterator[None]:
        """BootError: there is none of QEMU."""
        self._refuse("kept by a checkpoint")
        yield

    def standing(self) -> Standing:
        """See Machine; what QEMU does not show is empty."""
        run = None if self._boot is None else self._boot.run
        held = None if self._boot is None else self._boot.handoff
        registers = {} if run is None and held is None else dict(self.registers)
        return Standing(
            self.stop,
            None,
            Registers(registers),
            {} if held is None or run is not None else self.segments,
            (),
            self.handoff,
            (),
            self.console,
            self.debug_console,
            (),
            {},
        )

    def _refuse(self, what: str) -> NoReturn:
        raise BootError(f"a machine on qemu cannot be {what}: use the engine unicorn")
