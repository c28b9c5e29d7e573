"""`pvhboot boot`: one boot, reported."""

import argparse
import json
import sys

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
    with open_kernel(arguments.kernel) as kernel:
        plan = plan_from(arguments, kernel, blob.data, host_reserved=engine.host_reserved, dma=not arguments.no_dma)
        if arguments.json:
            outcome = boot(plan, blob, engine, until, limits)
            print(json.dumps(outcome_to_json(outcome), indent=2))
            return 0 if outcome.ok else 1
        print(f"{subject_text(plan, blob)}, engine {engine.name}", flush=True)
        outcome = boot(plan, blob, engine, until, limits, _print_console)
        if outcome.console and not outcome.console.endswith(b"\n"):
            print()
        print(outcome_text(outcome, arguments.verbose))
    return 0 if outcome.ok else 1


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
