"""`pvhboot plan`: where a boot would put everything."""

import argparse
import json

from pvhboot.shim.machines import machine
from pvhboot.shim.stock import default_blob

from ..inputs import open_kernel
from ..report.text import plan_text
from .common import cache_from, plan_from


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan."""
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_from(arguments, kernel, default_blob(machine(arguments.machine)).data)
        print(json.dumps(plan.to_json(), indent=2) if arguments.json else plan_text(plan))
    return 0
