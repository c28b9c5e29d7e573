"""All the changes to a boot, one after the other or many at once, and what each has led to."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Final, NamedTuple
from uuid import uuid4

from pvhboot.shim.errors import BootError

from .judging import SAME, SILENT, TEST, Verdict
from .mutants import Mutation
from .setup import Setup
from .trial import Change, Reference, reference

FIRMWARE_VARIABLE: Final = "PVHBOOT_FIRMWARE"  # of the environment: where a test command finds the ROM
_BATCH: Final = 16  # changes that a worker gets at once; with a test, which may take its time, it gets one
_SAID: Final = 1000  # bytes at the end of what a test command prints: its last line is in them


class Result(NamedTuple):
    """A change and what it has led to."""

    change: Change
    verdict: Verdict


class ShellTest(NamedTuple):
    """A command for the shell that tests the firmware which FIRMWARE_VARIABLE names, and has `seconds` for it. Exit status 0:
    it has found nothing."""

    command: str
    seconds: float

    def run(self, firmware: bytes, said: int | IO[bytes] = subprocess.DEVNULL) -> str:
        """How it has failed; empty if it has not. What it prints goes to `said`."""
        with tempfile.TemporaryDirectory(prefix="pvhboot-") as folder:
            rom = Path(folder, "firmware.bin")
            rom.write_bytes(firmware)
            process = subprocess.Popen(
                self.command,
                shell=True,
                start_new_session=True,  # so that what it starts ends with it
                env={**os.environ, FIRMWARE_VARIABLE: str(rom)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
            try:
                status = process.wait(self.seconds)
            except subprocess.TimeoutExpired:
                return f"not done after {self.seconds:g} seconds"
            finally:
                with suppress(ProcessLookupError):  # nothing is left of it
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return f"exit status {status}" if status else ""


def vary(
    setup: Setup,
    changes: Sequence[Change],
    *,
    executor: Executor | None = None,
    test: ShellTest | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """What each change to the boot leads to, in the order of the changes. The executor's workers, wherever they are, need this
    package and the files that the setup names; None: this process does it. `test` judges in place of the check, mutants only.
    `on_progress` is told (done, all).

    Raises BootError as `reference` does, if a fault is to be judged by a test, and if the test fails as it is.
    """
    if test is not None:
        if not all(isinstance(change, Mutation) for change in changes):
            raise BootError("a test command is given a firmware: it judges mutants, not faults of a host")
        with tempfile.TemporaryFile() as said:
            if failed := test.run(setup.firmware, said):
                words = _last_line(said)
                raise BootError(
                    f"the test command fails with the unchanged firmware, so it would fail with any: {failed}"
                    f"{': ' + words if words else ''}"
                )
    size = _BATCH if test is None else 1
    batches = [changes[at : at + size] for at in range(0, len(changes), size)]
    verdicts: list[Sequence[Verdict]] = [()] * len(batches)
    for number, found in _judged(setup, batches, test, executor):
        verdicts[number] = found
        if on_progress is not None:
            on_progress(sum(map(len, verdicts)), len(changes))
    flat = (verdict for found in verdicts for verdict in found)
    return [Result(change, verdict) for change, verdict in zip(changes, flat, strict=True)]


def _last_line(file: IO[bytes]) -> str:
    """The last one that is not empty."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _SAID))
    lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _judged(
    setup: Setup, batches: Sequence[Sequence[Change]], test: ShellTest | None, executor: Executor | None
) -> Iterator[tuple[int, list[Verdict]]]:
    """The number of a batch, and its verdicts, as they come."""
    if executor is None:
        with reference(setup) as unchanged:
            for number, batch in enumerate(batches):
                yield number, [_judge(unchanged, change, test) for change in batch]
        return
    call = uuid4().hex
    futures: dict[Future[list[Verdict]], int] = {
        executor.submit(_judge_batch, setup, call, batch, test): number for number, batch in enumerate(batches)
    }
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


def _judge_batch(setup: Setup, call: str, batch: Sequence[Change], test: ShellTest | None) -> list[Verdict]:
    """In a worker, which keeps the unchanged boot for the next batch of the same call."""
    return [_judge(_kept(setup, call).reference, change, test) for change in batch]


class _Kept(NamedTuple):
    """A reference, and the context that its files are open in."""

    context: AbstractContextManager[Reference]
    reference: Reference


@lru_cache(maxsize=1)
def _kept(setup: Setup, _call: str) -> _Kept:
    """For one call: by the next one the files that the setup names may be others."""
    context = reference(setup)
    return _Kept(context, context.__enter__())


def _judge(unchanged: Reference, change: Change, test: ShellTest | None) -> Verdict:
    if test is None or not isinstance(change, Mutation):
        return unchanged.try_change(change)
    if failed := test.run(change.apply(unchanged.setup.firmware)):
        return Verdict(TEST, failed)
    own = unchanged.try_change(change)
    if own.word == SAME:
        return own
    return own._replace(word=SILENT, detail=f"the test passes; by itself: {own.word}, {own.detail}")
