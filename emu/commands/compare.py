"""`pvhboot compare`: one boot on several engines, and whether they agree."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.errors import BootError, UnavailableError
from pvhboot.shim.machines import MachineSpec, machine
from pvhboot.shim.stock import default_blob

from ..check import OK
from ..comparison import Comparison, compare
from ..engines.base import Limits, Until, describe_stop
from ..engines.names import ENGINES, QEMU
from ..inputs import open_kernel, read_firmware
from ..reasons import HANDOFF
from ..report.subject import subject_text
from ..report.text import cost_text
from ..session import Outcome, boot, get_engine
from .common import cache_from, plan_from


def run(arguments: argparse.Namespace) -> int:
    """0 if the handoff is clean on each engine and the same on all that ran, else 1."""
    blob = default_blob(machine(arguments.machine)) if arguments.firmware is None else read_firmware(arguments.firmware)
    if not arguments.timeout > 0:
        raise BootError(f"--timeout {arguments.timeout}: give a number above 0")
    outcomes: list[Outcome] = []
    missing: dict[str, str] = {}
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_from(arguments, kernel, blob.data, host_reserved=_host_reserved(arguments), dma=not arguments.no_dma)
        for name in dict.fromkeys(arguments.engine or ENGINES):
            try:
                outcomes.append(boot(plan, blob, get_engine(name), Until(HANDOFF), Limits(seconds=arguments.timeout)))
            except UnavailableError as error:
                if arguments.engine:
                    raise
                missing[name] = str(error)  # nobody has asked for it by name: the host need not have it
    comparison = compare(outcomes)
    agree = bool(outcomes) and not comparison.differences and all(outcome.ok for outcome in outcomes)
    if arguments.json:
        print(json.dumps(_to_json(outcomes, missing, comparison, agree), indent=2))
    else:
        print(subject_text(plan, blob))
        print("\n".join([*_engine_lines(outcomes, missing), *_verdict_lines(comparison)]))
    return 0 if agree else 1


def _host_reserved(arguments: argparse.Namespace) -> Callable[[MachineSpec, int], Sequence[E820Entry]]:
    """What QEMU reserves, if it takes part and there is one: a board tells its firmware what the plan says."""

    def ask(spec: MachineSpec, memory: int) -> Sequence[E820Entry]:
        if QEMU not in (arguments.engine or ENGINES):
            return ()
        try:
            return get_engine(QEMU).host_reserved(spec, memory)
        except UnavailableError:
            return ()  # told when it is its turn

    return ask


def _engine_lines(outcomes: list[Outcome], missing: dict[str, str]) -> list[str]:
    lines = []
    for outcome in outcomes:
        good = sum(finding.status == OK for finding in outcome.findings)
        reached = "" if outcome.handoff is None else f", {good} of {len(outcome.findings)} clauses met"
        cost = "" if outcome.handoff is None else cost_text(outcome.handoff.counts)
        lines.append(f"  {outcome.engine:<8} {describe_stop(outcome.run.stop)}{cost}{reached}")
        lines += [
            f"    {finding.status:<12}  {finding.clause:<20}  {finding.detail}"
            for finding in outcome.findings
            if finding.status != OK
        ]
    return lines + [f"  {name:<8} not run: {why}" for name, why in missing.items()]


def _verdict_lines(comparison: Comparison) -> list[str]:
    lines = []
    for difference in comparison.differences:
        lines.append(f"not the same: {difference.what}")
        lines += [f"  {engine:<8} {value}" for engine, value in difference.values.items()]
    if lines:
        return lines
    if len(comparison.reached) < 2:
        who = f"{comparison.reached[0]} alone" if comparison.reached else "no engine"
        return [f"nothing to compare: {who} reached the entry"]
    lines.append(
        f"the same on {_listed(comparison.reached)}: registers, segments, start_info, memory map, modules, command lines"
    )
    if len(comparison.accesses) > 1:
        lines.append(f"the same on {_listed(comparison.accesses)}: every access to a device")
    return lines


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _to_json(outcomes: list[Outcome], missing: dict[str, str], comparison: Comparison, agree: bool) -> dict[str, Any]:
    return {
        "ok": agree,
        "engines": {
            outcome.engine: {
                "ok": outcome.ok,
                "stop": {"reason": outcome.run.stop.reason, "detail": outcome.run.stop.detail},
                "findings": [finding._asdict() for finding in outcome.findings],
                "counts": dict(outcome.handoff.counts) if outcome.handoff else None,
            }
            for outcome in outcomes
        },
        "not_run": missing,
        "compared": list(comparison.reached),
        "accesses_compared": list(comparison.accesses),
        "differences": [{"what": found.what, "values": dict(found.values)} for found in comparison.differences],
    }
