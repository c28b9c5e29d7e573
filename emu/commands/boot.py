"""`pvhboot boot`: one boot, reported."""

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.printable import text_decoder
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError

from ..board import Board
from ..engines.base import Engine, Watcher
from ..engines.names import QEMU, UNICORN
from ..inputs import open_kernel
from ..outputs import Data, require_outputs, write_files
from ..report.subject import subject_text
from ..session import InterruptedBootError, Outcome, boot_board, get_engine
from .common import cache_from, firmware_from, has_interrupts, inputs_of, limits_from, recording_from
from .transcripts import plan_of, replay_from, transcriber_from, transcript_of, until_of

if TYPE_CHECKING:
    from ..coverage import Coverage
    from ..diagnosis import Diagnosis
    from ..sanitizer import Sanitizer
    from ..stats import Stats


def run(arguments: argparse.Namespace) -> int:
    """0 if the run ended as asked with a clean handoff, the sanitizer, if it watched, has found nothing, and a replay has gone
    as its transcript says, else 1."""
    stats = _stats() if arguments.stats else None
    require_outputs([path for path in (arguments.record_io, arguments.coverage) if path is not None], inputs_of(arguments))
    _require_seeing(arguments)
    _require_console(arguments)
    replay = replay_from(arguments)
    until = until_of(arguments, replay)
    limits = limits_from(arguments)
    blob = firmware_from(arguments)
    if stats is not None:
        stats.blob_read()
    tracing = arguments.record_io is not None
    engine = get_engine(arguments.engine, accelerator=arguments.accel, qemu_arguments=arguments.qemu_arg, tracing=tracing)
    if stats is not None:
        stats.imported()
    recording = recording_from(arguments)
    transcriber = transcriber_from(arguments)
    coverage = _coverage(arguments.coverage)
    watchers: list[Watcher] = []
    if coverage is not None:
        watchers.append(coverage.of(blob))
    if transcriber is not None:
        watchers.append(transcriber)
    cache = cache_from(arguments)
    with open_kernel(arguments.kernel, cache) as kernel:
        if stats is not None:
            stats.kernel_opened(cache)
        plan = plan_of(arguments, kernel, blob.data, engine, recording, replay)
        if stats is not None:
            stats.planned()
        sanitizer = _sanitizer(plan, blob) if arguments.sanitize else None
        if sanitizer is not None:
            watchers.append(sanitizer)
        if arguments.gdb is not None:
            engine = _debugged(engine, arguments.gdb, plan, blob)
        echo = None if arguments.json or arguments.console else _Echo()
        interrupts = has_interrupts(arguments, until.kind)
        board = Board(plan, recording=recording, replay=replay, on_console=echo, interrupts=interrupts)

        def diagnosed(outcome: Outcome) -> "Diagnosis | None":
            """Why it failed, if it did; with a debugger or somebody at it, without making the boot again."""
            if outcome.ok:
                return None
            from ..diagnosis import diagnose

            afresh = None
            if arguments.gdb is None and not arguments.console:
                afresh = Board(plan, recording=recording, replay=replay_from(arguments), interrupts=interrupts)
            return diagnose(outcome, engine, until, limits, afresh, recording)

        if arguments.json:
            outcome = boot_board(board, blob, engine, until, limits, watchers, stats)
        else:
            print(f"{subject_text(plan, blob)}, engine {engine.name}", flush=True)
            try:
                with _console(board) if arguments.console else nullcontext():
                    outcome = boot_board(board, blob, engine, until, limits, watchers, stats)
            except InterruptedBootError as error:  # how far it has come is what whoever waited wants to know
                from ..report.text import outcome_text

                if echo is not None:
                    echo.end()
                print(f"\n{outcome_text(error.outcome, arguments.verbose)}")
                raise
            if echo is not None:
                echo.end()
            if outcome.console and not outcome.console.endswith(b"\n"):
                print()
        from ..report.boot import Watched

        watched = Watched(outcome, diagnosed(outcome), sanitizer, replay, stats)
        if arguments.json:
            import json

            print(json.dumps(watched.to_json(), indent=2))
        else:
            print(watched.text(arguments.verbose, at_console=arguments.console))
        outputs: list[tuple[str, Data]] = []
        said = ""
        if arguments.record_io is not None:
            transcript = transcript_of(engine, transcriber, outcome)
            text = transcript.to_jsonl().encode()
            outputs.append((arguments.record_io, text))
            said = _transcript_text(arguments.record_io, len(transcript.exchanges), len(text))
        if coverage is not None:
            outputs.append((arguments.coverage, coverage.to_json().encode()))
        write_files(outputs, inputs_of(arguments))
        if said and not arguments.json:
            print(said)
    return 0 if watched.ok else 1


def _require_seeing(arguments: argparse.Namespace) -> None:
    """BootError if the engine does not see what is to be told."""
    if arguments.sanitize and arguments.engine != UNICORN:
        raise BootError(
            f"--sanitize: the {arguments.engine} engine does not see what a guest reads and writes: use --engine unicorn"
        )
    if arguments.coverage is not None and arguments.engine == QEMU:
        raise BootError("--coverage: the qemu engine does not see single instructions: use --engine unicorn")


def _require_console(arguments: argparse.Namespace) -> None:
    """BootError if --console does not go with the rest."""
    if not arguments.console:
        return
    if arguments.engine == QEMU:
        raise BootError("--console is for the engines unicorn and kvm: QEMU has its own (-serial mon:stdio)")
    others = {"--json": arguments.json, "--gdb": arguments.gdb is not None, "--replay-io": arguments.replay_io is not None}
    for option, given in others.items():
        if given:
            raise BootError(f"--console and {option} do not go together: leave one of them out")


def _console(board: Board) -> AbstractContextManager[None]:
    from ..console import at_console

    return at_console(board)


def _transcript_text(path: str, accesses: int, size: int) -> str:
    return f"transcript: {path}, {accesses} access{'' if accesses == 1 else 'es'} to devices, {size} bytes"


def _stats() -> "Stats":
    from ..stats import Stats

    return Stats.of_process()


def _sanitizer(plan: BootPlan, blob: Blob) -> "Sanitizer":
    from ..sanitizer import Sanitizer

    return Sanitizer(plan, blob)


def _coverage(path: str | None) -> "Coverage | None":
    """What --coverage has of former runs."""
    if path is None:
        return None
    from ..coverage import Coverage, read_coverage

    return read_coverage([path]) if os.path.exists(path) else Coverage()


def _debugged(engine: Engine, port: int, plan: BootPlan, blob: Blob) -> Engine:
    """The engine, driven by the gdb that connects."""
    if engine.name == QEMU:
        raise BootError("--gdb is for the engines unicorn and kvm: QEMU has a gdb server of its own (-s -S)")
    from ..gdb.engine import DebuggedEngine, waiting_text

    def on_listening(port: int) -> None:
        print(f"gdb: {waiting_text(port, blob)}", file=sys.stderr, flush=True)

    return DebuggedEngine(engine, port, plan, blob, on_listening)


class _Echo:
    """Prints what COM1 prints."""

    def __init__(self) -> None:
        self._decoder = text_decoder()

    def __call__(self, data: bytes) -> None:
        """It has sent a byte."""
        sys.stdout.write(self._decoder.decode(data))
        if data == b"\n":
            sys.stdout.flush()

    def end(self) -> None:
        """Nothing more comes."""
        sys.stdout.write(self._decoder.decode(b"", True))
