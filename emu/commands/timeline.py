"""`pvhboot timeline`: a boot, on one engine or several, and when it came where."""

import argparse
import json
import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError

from ..complaint import complain
from ..engines.base import Engine, Limits
from ..engines.names import QEMU, TCG, UNICORN
from ..inputs import open_kernel
from ..outputs import require_outputs, write_files
from ..places import Places
from ..reasons import INTERRUPTED
from ..report.subject import subject_text
from ..report.timeline import timeline_table, timelines_json, written_text
from ..session import get_engine
from ..timeline.dry_run import LIMITS
from ..timeline.goal import KernelPlaces, furthest, goal_from, kernel_places, placed_from, require_possible, warning
from ..timeline.lookout import look_out, place_text
from ..timeline.marks import EXIT, Timeline
from ..timeline.own import take_timeline
from .common import cache_from, firmware_from, has_interrupts, inputs_of, limits_from, plan_on, recording_from

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording


def run(arguments: argparse.Namespace) -> int:
    """0 if the boot came to the mark of --until, on each engine, else 1."""
    outputs = [] if arguments.output is None else [arguments.output]
    require_outputs(outputs, inputs_of(arguments))
    goal = None if arguments.until is None else goal_from(arguments.until)
    placed = placed_from(arguments.place)
    limits = limits_from(arguments)
    boots = list(_by_engine(arguments))
    recordings = [recording_from(one) for one in boots]
    if any(one.engine == QEMU for one in boots) and (limits.instructions is not None or limits.exits is not None):
        raise BootError("the qemu engine counts neither instructions nor accesses: use --timeout")
    engines = [get_engine(one.engine, accelerator=one.accel, qemu_arguments=one.qemu_arg) for one in boots]
    blob = firmware_from(arguments)
    timelines: list[Timeline] = []
    with open_kernel(arguments.kernel, cache_from(arguments)) as kernel:
        for one, engine, recording in zip(boots, engines, recordings, strict=True):
            plan = plan_on(one, kernel, blob.data, engine, recording)
            places = kernel_places(plan, placed)
            until = goal or (EXIT if arguments.kernel is None else furthest(plan, places))
            require_possible(until, places)
            if not timelines and (words := warning(until, places)):
                complain(words)
            timelines.append(_take(one, plan, blob, engine, until, limits, places, recording))
            if timelines[-1].end == INTERRUPTED:
                break
        subject = subject_text(plan, blob)
    if arguments.output is not None:
        from ..report.timeline_svg import timelines_svg

        picture = timelines_svg(timelines, f"{os.path.basename(plan.kernel.path)} to {until}")
        write_files([(arguments.output, picture.encode())], inputs_of(arguments))
    reached = all(timeline.ns(until) is not None for timeline in timelines)
    if arguments.json:
        data = {"ok": reached, "subject": subject, "until": until, "timelines": timelines_json(timelines)}
        print(json.dumps(data, indent=2))
    else:
        print(subject)
        print(timeline_table(timelines))
        if arguments.output is not None:
            print(written_text(arguments.output))
    return 0 if reached and len(timelines) == len(boots) else 1


def _by_engine(arguments: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The arguments of each boot: what is for QEMU alone is kept from the others, if QEMU is among them."""
    names = tuple(dict.fromkeys(arguments.engine or (UNICORN,)))
    for name in names:
        own: dict[str, Any] = {"engine": name}
        if name != QEMU and QEMU in names:
            own |= {"accel": None, "qemu_arg": []}
        yield argparse.Namespace(**{**vars(arguments), **own})


def _take(
    arguments: argparse.Namespace,
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    goal: str,
    limits: Limits,
    kernel: KernelPlaces,
    recording: "Recording | None",
) -> Timeline:
    firmware = "pvhboot" if arguments.firmware is None else os.path.basename(arguments.firmware)
    label = f"{firmware} on {engine.name}"
    if engine.name == QEMU:
        return _under_qemu(arguments, plan, blob, goal, limits, kernel, f"{label} {arguments.accel or TCG}")
    interrupts = has_interrupts(arguments, goal)
    return take_timeline(plan, blob, engine, goal, limits, kernel, label=label, recording=recording, interrupts=interrupts)


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
