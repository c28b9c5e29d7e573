"""`pvhboot vary`: one boot again and again, each time with one thing changed, and who notices."""

import argparse
import json
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from pvhboot.loader.modules import LINUX
from pvhboot.shim.errors import BootError
from pvhboot.shim.stock import GUEST_BITS, default_guest

from ..inputs import open_kernel
from ..places import Places
from ..progress import shown_progress
from ..report.subject import subject_text
from ..vary.candidates import host_faults
from ..vary.faults import FAMILIES, USUAL
from ..vary.judging import SILENT
from ..vary.matrix import ShellTest, vary
from ..vary.mutants import OPERATORS, mutations
from ..vary.report import matrix_text, matrix_to_json
from ..vary.setup import Setup
from ..vary.trial import Change, Reference, survey
from .common import cache_from, firmware_from, plan_from, recording_from


def run(arguments: argparse.Namespace) -> int:
    """0 if every change was noticed, or had no effect; 1 if not."""
    kinds = _kinds(arguments)
    jobs, test = _jobs(arguments), _test(arguments)
    blob, recording = firmware_from(arguments), recording_from(arguments)
    cache = cache_from(arguments)
    with open_kernel(arguments.kernel, cache) as kernel:
        memory = recording.memory if recording else None
        plan = plan_from(arguments, kernel, blob.data, dma=not arguments.no_dma, memory=memory)
        image = default_guest(GUEST_BITS[0]) if arguments.kernel is None else arguments.kernel
        setup = Setup.of(
            plan,
            blob.data,
            image,
            arguments.guest or LINUX,
            arguments.recording,
            dirty=arguments.dirty,
            cache=None if cache is None else cache.directory,
        )
        unchanged = survey(setup, plan)
        changes = _sample(arguments, _changes(arguments, unchanged, kinds))
        if not arguments.json:
            print(subject_text(plan, blob))
            print(_what_is_tried(arguments, unchanged, len(changes)), flush=True)
        with _executor(jobs) as executor, shown_progress("trying them") as progress:
            results = vary(setup, changes, executor=executor, test=test, on_progress=progress)
        places = Places(plan, blob)
        if arguments.json:
            print(json.dumps(matrix_to_json(results, places), indent=2))
        else:
            print(matrix_text(results, places, arguments.verbose))
    return 1 if any(result.verdict.word == SILENT for result in results) else 0


def _kinds(arguments: argparse.Namespace) -> Sequence[str]:
    """What --only says, or the usual."""
    known, usual = (OPERATORS, OPERATORS) if arguments.mutants else (FAMILIES, USUAL)
    wanted = [kind for text in arguments.only for kind in text.split(",")]
    for kind in wanted:
        if kind not in known:
            what = "mutants" if arguments.mutants else "faults"
            raise BootError(f"no kind of {what} named {kind!r}; there is: {', '.join(known)}")
    return wanted or usual


def _jobs(arguments: argparse.Namespace) -> int:
    jobs: int = len(os.sched_getaffinity(0)) if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        raise BootError(f"--jobs {jobs}: give a number above 0")
    if arguments.sample is not None and arguments.sample < 1:
        raise BootError(f"--sample {arguments.sample}: give a number above 0")
    return jobs


def _test(arguments: argparse.Namespace) -> ShellTest | None:
    seconds = arguments.test_timeout
    if arguments.test is None:
        if seconds is not None:
            raise BootError("--test-timeout is for --test: give the command")
        return None
    if not arguments.mutants:
        raise BootError("--test is for --mutants: a test command is given a firmware, not a host")
    if seconds is not None and not seconds > 0:
        raise BootError(f"--test-timeout {seconds}: give a number above 0")
    return ShellTest(arguments.test, arguments.usual_test_timeout if seconds is None else seconds)


def _changes(arguments: argparse.Namespace, unchanged: Reference, kinds: Sequence[str]) -> Sequence[Change]:
    if arguments.mutants:
        return mutations(unchanged.watched.instructions.values(), kinds)
    faults = host_faults(unchanged.watched, unchanged.items, kinds)
    if not faults:
        raise BootError(
            f"nothing of {', '.join(kinds)} can go wrong: on {unchanged.plan.spec.name} this firmware asks no device for it; "
            f"--only ram,register flips bits"
        )
    return faults


def _sample(arguments: argparse.Namespace, changes: Sequence[Change]) -> Sequence[Change]:
    """--sample of them, in their order, the same for the same --seed."""
    if arguments.sample is None or arguments.sample >= len(changes):
        return changes
    chosen = random.Random(arguments.seed).sample(range(len(changes)), arguments.sample)
    return [changes[number] for number in sorted(chosen)]


def _what_is_tried(arguments: argparse.Namespace, unchanged: Reference, number: int) -> str:
    survey, counts = unchanged.watched, unchanged.trial.outcome.run.counts
    inside = f"{len(survey.instructions)} different ones in the ROM"
    outside = f", {len(survey.elsewhere)} elsewhere, which are left alone" if survey.elsewhere and arguments.mutants else ""
    what = "mutants of them" if arguments.mutants else "faults of the host"
    return f"unchanged: {counts['instructions']} instructions, {inside}{outside}; trying {number} {what}\n"


@contextmanager
def _executor(jobs: int) -> Iterator[Executor | None]:
    """So many processes; None: this one."""
    if jobs == 1:
        yield None
        return
    # Not forked: this process may have threads.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor
