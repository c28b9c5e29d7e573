"""`pvhboot timeline`: one boot, and when it came where."""

import argparse
import json
import os
from functools import partial

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError

from ..engines.base import Limits
from ..engines.names import QEMU, TCG
from ..inputs import open_kernel
from ..outputs import require_outputs, write_files
from ..places import Places
from ..report.subject import subject_text
from ..report.timeline import timeline_table, timelines_json
from ..session import get_engine
from ..timeline.dry_run import LIMITS
from ..timeline.goal import KernelPlaces, furthest, goal_from, kernel_places, placed_from, require_possible
from ..timeline.lookout import look_out, place_text
from ..timeline.marks import EXIT, HANDOFF, Timeline
from ..timeline.own import take_timeline
from .common import cache_from, firmware_from, inputs_of, limits_from, plan_from, recording_from


def run(arguments: argparse.Namespace) -> int:
    """0 if the boot came to the mark of --until, else 1."""
    outputs = [] if arguments.output is None else [arguments.output]
    require_outputs(outputs, inputs_of(arguments))
    goal = None if arguments.until is None else goal_from(arguments.until)
    placed = placed_from(arguments.place)
    limits, recording = limits_from(arguments), recording_from(arguments)
    blob = firmware_from(arguments)
    engine = get_engine(arguments.engine, accelerator=arguments.accel, qemu_arguments=arguments.qemu_arg)
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        plan = plan_from(
            arguments,
            kernel,
            blob.data,
            host_reserved=engine.host_reserved,
            dma=not arguments.no_dma,
            memory=recording.memory if recording else None,
        )
        places = kernel_places(plan, placed)
        if goal is None:
            goal = EXIT if arguments.kernel is None else furthest(plan, places)
        require_possible(goal, places)
        firmware = "pvhboot" if arguments.firmware is None else os.path.basename(arguments.firmware)
        label = f"{firmware} on {engine.name}"
        if engine.name == QEMU:
            timeline = _under_qemu(arguments, plan, blob, goal, limits, places, f"{label} {arguments.accel or TCG}")
        else:
            timeline = take_timeline(
                plan,
                blob,
                engine,
                goal,
                limits,
                places,
                label=label,
                recording=recording,
                interrupts=arguments.kernel is not None and goal != HANDOFF,
            )
        subject = subject_text(plan, blob)
    if arguments.output is not None:
        from ..report.timeline_svg import timelines_svg

        picture = timelines_svg([timeline], f"{os.path.basename(plan.kernel.path)} to {goal}")
        write_files([(arguments.output, picture.encode())], inputs_of(arguments))
    reached = timeline.ns(goal) is not None
    if arguments.json:
        data = {"ok": reached, "subject": subject, "until": goal, "timelines": timelines_json([timeline])}
        print(json.dumps(data, indent=2))
    else:
        print(subject)
        print(timeline_table([timeline]))
    return 0 if reached else 1


def _under_qemu(
    arguments: argparse.Namespace,
    plan: BootPlan,
    blob: Blob,
    goal: str,
    limits: Limits,
    kernel: KernelPlaces,
    label: str,
) -> Timeline:
    from ..timeline.qemu import plan_boot, take_qemu_timeline

    if limits.instructions is not None or limits.exits is not None:
        raise BootError("the qemu engine counts neither instructions nor accesses: use --timeout")
    ahead = look_out(plan, kernel, limits=LIMITS._replace(seconds=min(LIMITS.seconds, limits.seconds)))
    return take_qemu_timeline(
        plan_boot(plan, ahead.addresses),
        arguments.accel or TCG,
        arguments.qemu_arg,
        goal,
        limits.seconds,
        label=label,
        counts=ahead.counts,
        absent=ahead.absent,
        describe=partial(place_text, Places(plan, blob)),
    )
