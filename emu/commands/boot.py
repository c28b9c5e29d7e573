"""`pvhboot boot`: one boot, reported."""

import argparse
import json
import sys

from pvhboot.loader.recording import Recording, read_recording
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import machine
from pvhboot.shim.stock import default_blob

from ..engines.base import Limits, Until
from ..reasons import CONSOLE, EXIT, HANDOFF
from ..report.as_json import outcome_to_json
from ..report.text import outcome_text, subject_text
from ..session import boot, get_engine
from .common import open_kernel, plan_from, read_firmware


def run(arguments: argparse.Namespace) -> int:
    """0 if the run ended as asked with a clean handoff, else 1."""
    until = _until(arguments)
    limits = _limits(arguments)
    blob = read_firmware(arguments.firmware) if arguments.firmware is not None else default_blob(machine(arguments.machine))
    engine = get_engine(arguments.engine, accelerator=arguments.accel, qemu_arguments=arguments.qemu_arg)
    recording = _recording(arguments)
    with open_kernel(arguments.kernel) as kernel:
        plan = plan_from(
            arguments,
            kernel,
            blob.data,
            host_reserved=engine.host_reserved,
            dma=not arguments.no_dma,
            memory=recording.memory if recording else None,
        )
        if arguments.json:
            outcome = boot(plan, blob, engine, until, limits, recording=recording)
            print(json.dumps(outcome_to_json(outcome), indent=2))
            return 0 if outcome.ok else 1
        print(f"{subject_text(plan, blob)}, engine {engine.name}", flush=True)
        outcome = boot(plan, blob, engine, until, limits, _print_console, recording)
        if outcome.console and not outcome.console.endswith(b"\n"):
            print()
        print(outcome_text(outcome, arguments.verbose))
    return 0 if outcome.ok else 1


def _recording(arguments: argparse.Namespace) -> Recording | None:
    if arguments.recording is None:
        return None
    if arguments.engine == "qemu":
        raise BootError("--recording is for the engines unicorn and kvm: QEMU tells its firmware what it has itself")
    recording = read_recording(arguments.recording)
    if recording.machine != arguments.machine:
        raise BootError(f"{arguments.recording}: a recording of {recording.machine}: give --machine {recording.machine}")
    return recording


def _print_console(data: bytes) -> None:
    sys.stdout.write(data.decode("latin-1"))
    if data == b"\n":
        sys.stdout.flush()


def _until(arguments: argparse.Namespace) -> Until:
    text: str | None = arguments.until
    if text is None:
        return Until(HANDOFF if arguments.kernel is not None else EXIT)
    if text in (HANDOFF, EXIT):
        return Until(text)
    kind, _, wanted = text.partition(":")
    if kind == CONSOLE and wanted:
        return Until(CONSOLE, wanted)
    raise BootError(f"cannot read --until {text!r}: write handoff, exit or console:TEXT")


def _limits(arguments: argparse.Namespace) -> Limits:
    for name, value in (
        ("--timeout", arguments.timeout),
        ("--max-instructions", arguments.max_instructions),
        ("--max-exits", arguments.max_exits),
    ):
        if value is not None and not value > 0:
            raise BootError(f"{name} {value}: give a number above 0")
    return Limits(arguments.max_instructions, arguments.max_exits, arguments.timeout)
