"""An engine whose CPU a gdb drives."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import resources

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import MachineSpec

from ..board import Board
from ..check import check
from ..engines.base import Cpu, Engine, Limits, Run, Stop, Until, Watcher, ended, watching
from ..handoff import Handoff
from ..places import Places
from ..reasons import CONSOLE, DEBUGGER, HANDOFF
from ..report.text import finding_lines
from .connection import HOST, Listener
from .debuggee import Debuggee
from .server import DETACHED, KILLED, Session


class DebuggedEngine:
    """The engine `inner`, as the gdb says that connects to a port (0: any, which `on_listening` is told). The CPU stands at its
    reset vector until then, and at the kernel's entry, breakpoint or not. When gdb detaches, the run goes on to its `until`, if
    that is yet to come."""

    def __init__(
        self, inner: Engine, port: int, plan: BootPlan, blob: Blob, on_listening: Callable[[int], None] = lambda _port: None
    ) -> None:
        self.name = inner.name
        self._inner, self._port, self._plan, self._blob, self._on_listening = inner, port, plan, blob, on_listening

    def host_reserved(self, spec: MachineSpec, memory: int) -> tuple[E820Entry, ...]:
        """See Engine."""
        return self._inner.host_reserved(spec, memory)

    def cpu(self, board: Board, limits: Limits) -> AbstractContextManager[Cpu]:
        """See Engine."""
        return self._inner.cpu(board, limits)

    def run(
        self,
        board: Board,
        until: Until,
        limits: Limits,
        on_handoff: Callable[[Handoff], None],
        watchers: Sequence[Watcher] = (),
    ) -> Run:
        """See Engine; BootError, too, if the port cannot be had."""
        if until.kind == CONSOLE:
            board.stop_at_console_text(until.text)
        with self._inner.cpu(board, limits) as cpu, watching(cpu, board, watchers) as handed_over:

            def hand_over() -> list[str]:
                handoff = cpu.handoff()
                on_handoff(handoff)
                handed_over()
                findings = finding_lines(check(handoff, self._plan), verbose=False)
                return [f"handoff: the kernel's first instruction, at {board.entry:#x}, is next", *findings]

            places = Places(self._plan, self._blob)
            debuggee = Debuggee(cpu, board, places, hand_over, counting=limits.instructions is not None)
            self._finish(debuggee, until, *self._serve(debuggee))
            return ended(cpu, board)

    def _serve(self, debuggee: Debuggee) -> tuple[str, str]:
        program = self._blob.elf() if self._blob.listing else None
        with Listener(self._port) as listener:
            self._on_listening(listener.port)
            with listener.accept() as connection:
                return Session(connection, debuggee, self._plan, program).serve()

    @staticmethod
    def _finish(debuggee: Debuggee, until: Until, how: str, words: str) -> None:
        """What is left of the run when gdb has let the CPU go."""
        cpu = debuggee.cpu
        if how == DETACHED:
            debuggee.release(until)
        elif how == KILLED and debuggee.handed_over and until.kind == HANDOFF:
            cpu.end(Stop(HANDOFF, "", cpu.linear_ip()))
        else:
            cpu.end(Stop(DEBUGGER, words or "gdb has killed the guest", cpu.linear_ip()))


def waiting_text(port: int, blob: Blob) -> str:
    """What to type, while the CPU waits."""
    script = resources.files(__package__).joinpath("pvhboot.gdb")
    sources = resources.files("pvhboot.shim").joinpath("asm")
    line = ["gdb", "-x", str(script), "-d", str(sources), "-ex", f"target remote {HOST}:{port}"]
    lines = [f"the CPU stands at its reset vector; in another terminal: {shlex.join(line)}"]
    if not blob.listing:
        lines.append("this firmware comes without symbols: name its ELF file, if there is one, at the end of that line")
    return "\n".join(lines)
