"""`pvhboot bench`: how long boots take, of several firmwares and kernels in turn."""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from pvhboot.loader.bzimage import is_bzimage
from pvhboot.loader.image import FileImage, read_head
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_memory
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import machine

from ..engines.kvm.uapi import KVM_DEVICE
from ..engines.names import ACCELERATORS, BOTH, KVM
from ..engines.qemu.command import PROGRAM, find_program, kernel_file
from ..engines.qemu.process import cleaning_up_at_signals
from ..inputs import open_kernel
from ..outputs import require_outputs, write_files
from ..progress import shown_progress
from ..report.bench import Bench, bench_json, bench_svg, bench_text
from ..report.timeline import written_text
from ..timeline.bench import measure
from ..timeline.firmwares import Firmware, ours, qboot, seabios
from ..timeline.goal import furthest, goal_from, kernel_places, require_possible
from ..timeline.marks import CONSOLE, CONSOLE_TEXT, INIT
from ..timeline.rows import Row, Subject, own_row, qemu_rows
from .common import cache_from

_COMMAND_LINE: Final = "console=ttyS0 earlyprintk=ttyS0"
# Linux's decompressor in a bzImage would else put the kernel anywhere.
_NOT_MOVED: Final = "nokaslr"
_BANNER: Final = f"{CONSOLE_TEXT}Linux version"


def run(arguments: argparse.Namespace) -> int:
    """0 if any row was booted, else 1."""
    named = (arguments.kernel, arguments.vmlinux, arguments.initrd, arguments.qboot, arguments.seabios)
    inputs = [path for path in named if path is not None]
    require_outputs([] if arguments.output is None else [arguments.output], inputs)
    if arguments.runs < 1:
        raise BootError(f"--runs {arguments.runs}: give 1 or more")
    if not arguments.timeout > 0:
        raise BootError(f"--timeout {arguments.timeout}: give a number above 0")
    if arguments.until is not None:
        goal_from(arguments.until)
    with ExitStack() as stack:
        stack.enter_context(cleaning_up_at_signals())
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pvhboot-"))
        except OSError as error:
            raise BootError(f"cannot write to {tempfile.gettempdir()} (TMPDIR): {error.strerror}") from None
        kernel = stack.enter_context(_kernel(arguments))
        firmware = ours(directory)
        bench = _measure(arguments, _subject(arguments, kernel, firmware.rom, directory), firmware)
    if arguments.output is not None:
        write_files([(arguments.output, bench_svg(bench).encode())], inputs)
    print(json.dumps(bench_json(bench), indent=2) if arguments.json else bench_text(bench))
    if arguments.output is not None and not arguments.json:
        print(written_text(arguments.output))
    return 0 if any(result.timelines for results in bench.results.values() for result in results) else 1


@contextmanager
def _kernel(arguments: argparse.Namespace) -> Iterator[Kernel]:
    """The vmlinux: KERNEL, or what is in it, or --vmlinux."""
    if arguments.vmlinux is not None and not _is_bzimage(arguments.kernel):
        raise BootError(f"--vmlinux is what is in a bzImage, and {arguments.kernel} is none: name it as KERNEL alone")
    with open_kernel(arguments.vmlinux or arguments.kernel, cache_from(arguments)) as kernel:
        yield kernel


def _is_bzimage(path: str) -> bool:
    try:
        image = FileImage(path)
        try:
            return is_bzimage(read_head(image))
        finally:
            image.close()
    except BootError as error:
        raise BootError(f"{path}: {error}") from None


def _subject(arguments: argparse.Namespace, kernel: Kernel, rom: bytes, directory: str) -> Subject:
    spec, memory = machine(arguments.machine), parse_memory(arguments.memory or DEFAULT_MEMORY)
    cmdline = _COMMAND_LINE if arguments.append is None else arguments.append
    if _NOT_MOVED not in cmdline.split():
        cmdline = f"{cmdline} {_NOT_MOVED}".lstrip()
    modules = [Module(arguments.initrd)] if arguments.initrd is not None else []
    plan = make_plan(spec, rom, kernel, memory=memory, modules=modules, cmdline=cmdline)
    places = kernel_places(plan)
    goal = arguments.until or furthest(plan, places)
    require_possible(goal, places)
    return Subject(
        spec,
        memory,
        cmdline,
        kernel,
        kernel_file(kernel, directory),
        arguments.kernel if _is_bzimage(arguments.kernel) else None,
        arguments.initrd,
        arguments.qemu_arg,
        _BANNER if arguments.until is None and goal in (CONSOLE, INIT) else goal,
        arguments.timeout,
        not arguments.no_cache,
    )


def _measure(arguments: argparse.Namespace, subject: Subject, firmware: Firmware) -> Bench:
    try:
        program: str | None = find_program()
    except BootError:
        program = None
    missing = "" if program is not None else f"no {PROGRAM} on the PATH: install it (qemu-system-x86)"
    firmwares = (firmware, qboot(arguments.qboot, program), seabios(arguments.seabios, program, subject.spec))
    rows_by = qemu_rows(subject, *firmwares)
    rows: dict[str, Sequence[Row]] = {}
    for accelerator in ACCELERATORS if arguments.accel == BOTH else (arguments.accel,):
        no_kvm = _kvm_problem() if accelerator == KVM else ""
        group = [_barred(row, missing or no_kvm) for row in rows_by(accelerator)]
        own = [_barred(own_row(subject), no_kvm)] if accelerator == KVM else []
        rows[accelerator] = own + group
    rows = _chosen(rows, arguments.only)
    done, total = 0, arguments.runs * sum(len(group) for group in rows.values())
    results = {}
    with shown_progress(f"booting {os.path.basename(arguments.kernel)} again and again") as progress:

        def on_boot() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        for accelerator, chosen in rows.items():
            results[accelerator] = measure(chosen, subject.goal, arguments.runs, on_boot)
    return Bench(arguments.kernel, subject, arguments.runs, results)


def _chosen(rows: Mapping[str, Sequence[Row]], wanted: Sequence[str]) -> dict[str, Sequence[Row]]:
    """The rows whose labels have one of these texts in them, without regard to case; all if there are none. An accelerator
    without a row is left out. BootError for a text that no row has."""
    labels = list(dict.fromkeys(row.label for group in rows.values() for row in group))
    for text in wanted:
        if not any(_has(label, text) for label in labels):
            raise BootError(f"--only {text}: no row has that in its name; there is: {'; '.join(labels)}")
    chosen = {
        accelerator: [row for row in group if not wanted or any(_has(row.label, text) for text in wanted)]
        for accelerator, group in rows.items()
    }
    return {accelerator: group for accelerator, group in chosen.items() if group}


def _has(label: str, text: str) -> bool:
    return text.casefold() in label.casefold()


def _barred(row: Row, reason: str) -> Row:
    """The row, which cannot be booted if there is a reason."""
    return row._replace(take=None, reason=reason) if reason and not row.reason else row


def _kvm_problem() -> str:
    """Why KVM cannot be used; "" if it can."""
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{KVM_DEVICE}: {error.strerror}"
    return ""
