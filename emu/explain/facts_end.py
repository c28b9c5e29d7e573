"""What the prose says of the end, from the trace and from the check."""

from collections.abc import Mapping
from typing import Any

from pvhboot.shim.abi.firmware import PANIC_PREFIX

from ..check import OK
from ..engines.base import Stop, describe_stop
from ..inputs import BUILTIN_GUEST
from ..reasons import LIMIT
from .telling import Telling
from .words import counted


def end_facts(telling: Telling) -> Mapping[str, Any]:
    """The handoff, or what came instead."""
    outcome, end = telling.outcome, telling.recorded.end
    met = [finding.clause for finding in outcome.findings if finding.status == OK]
    leads = {"start_info.location", "start_info.magic"} <= set(met)
    said = outcome.debug_console.decode("ascii", "backslashreplace").strip().splitlines()
    panics = [line for line in said if line.startswith(PANIC_PREFIX)]
    return {
        "at_handoff": outcome.handoff is not None,
        "ebx_leads": outcome.handoff is not None and leads,
        "ebx_astray": outcome.handoff is not None and not leads,
        "ebx": 0 if outcome.handoff is None else outcome.handoff.registers["ebx"],
        "entry": outcome.plan.entry,
        "clean": outcome.clean,
        "clauses_met": f"{len(met)} of {counted(len(outcome.findings), 'clause')} are met",
        "guest": outcome.plan.kernel.path == BUILTIN_GUEST,
        "kernel_shown": counted(len(telling.recorded.kernel), "instruction"),
        "kernel_ended": outcome.handoff is not None and end.reason != LIMIT,
        "end": describe_stop(Stop(end.reason, end.detail, end.address)),
        "panic": panics[-1] if panics else "",
        "cut": end.reason == LIMIT,
    }
