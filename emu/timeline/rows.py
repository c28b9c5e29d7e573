"""The rows of a bench: a firmware and a kernel each, on one machine of QEMU's that else is the same; and our own VMM."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.sizes import as_memory
from pvhboot.shim.abi.boot_params import LOAD_PADDR_HIGH, QEMU_SETUP_PADDR, REAL_MODE_ENTRY
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MachineSpec
from pvhboot.shim.stock import default_blob

from ..engines.base import Limits
from ..engines.names import KVM
from ..engines.qemu.process import die_with_parent, patience
from ..report.timeline import timelines_from_json
from .dry_run import LIMITS
from .firmwares import OURS, SEABIOS, Firmware
from .goal import PLACED, kernel_places
from .lookout import Lookout, look_out
from .marks import HANDOFF, VMM_START, Mark, Timeline
from .qemu import QemuBoot, cleared_place, take_qemu_timeline

VMLINUX: Final = "vmlinux"
BZIMAGE: Final = "bzImage"
OWN: Final = f"{OURS}, own VMM"
_BRIEF: Final = Limits(instructions=20_000, seconds=5.0)  # of a firmware that executes millions: its first steps
_ROM_BYTES: Final = "rom_bytes_not_zero"
_COMMAND: Final = "import sys; from pvhboot.emu.cli import command; sys.exit(command())"


class Subject(NamedTuple):
    """What all rows boot, and on what: the kernel's `vmlinux` is a file; `bzimage` is the one that it came in, None without;
    `memory` in bytes; `extra` are further arguments for QEMU. Each boot goes to the mark `goal`, or `seconds` at most. Our own
    VMM has its cache of kernels if `cached`."""

    spec: MachineSpec
    memory: int
    cmdline: str
    kernel: Kernel
    vmlinux: str
    bzimage: str | None
    initrd: str | None
    extra: Sequence[str]
    goal: str
    seconds: float
    cached: bool


class Row(NamedTuple):
    """`take` boots once; None where `reason` says why it cannot. `counts` as of Timeline."""

    label: str
    take: Callable[[], Timeline] | None
    counts: Mapping[str, int] = {}
    reason: str = ""


def qemu_rows(subject: Subject, ours: Firmware, qboot: Firmware, seabios: Firmware) -> Callable[[str], list[Row]]:
    """What gives the rows by accelerator. Each firmware goes through a dry run first. BootError for what cannot be booted."""
    learned = {each.name: _learn(subject, subject.spec, each) for each in (ours, qboot, seabios) if each.path is not None}
    order = ((ours, VMLINUX), (qboot, VMLINUX), (ours, BZIMAGE), (qboot, BZIMAGE), (seabios, BZIMAGE), (seabios, VMLINUX))
    cleared = cleared_place(subject.kernel)

    def rows(accelerator: str) -> list[Row]:
        return [_row(subject, each, learned.get(each.name), image, accelerator, cleared) for each, image in order]

    return rows


def own_row(subject: Subject) -> Row:
    """Our own VMM, on KVM and the machine `bare`: a process of the command `timeline`, from its start on."""
    try:
        learned = _learn(subject, BARE, Firmware(OWN, None, default_blob(BARE).data))
    except BootError as error:  # there is less room than on QEMU's machine
        return Row(OWN, None, reason=str(error))
    line = [sys.executable, "-P", "-c", _COMMAND, "timeline", subject.vmlinux, "--engine", KVM, "--machine", BARE.name]
    line += ["--memory", as_memory(subject.memory), f"--append={subject.cmdline}", "--until", subject.goal, "--json"]
    line += ["--timeout", str(subject.seconds)] + ([f"--initrd={subject.initrd}"] if subject.initrd is not None else [])
    line += [] if subject.cached else ["--no-cache"]
    for name in PLACED:  # nobody is to search while the time runs
        if name in learned.addresses:
            line += ["--place", f"{name}={learned.addresses[name]:#x}"]

    def take() -> Timeline:
        began = time.monotonic_ns()
        try:
            done = subprocess.run(
                line,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=patience(subject.seconds) + LIMITS.seconds,
                preexec_fn=die_with_parent,
            )
        except subprocess.TimeoutExpired as error:
            raise BootError(f"it has not ended within {error.timeout:g} seconds") from None
        if not done.stdout:  # it complains in one line, or Python does, whose last one tells what of
            complaint = done.stderr.strip().rpartition("\n")[2].removeprefix("pvhboot: ")
            raise BootError(complaint or f"it has ended with status {done.returncode}")
        (timeline,) = timelines_from_json(json.loads(done.stdout)["timelines"])
        shift = timeline.start_ns - began
        marks = [mark._replace(ns=mark.ns + shift) for mark in timeline.marks if mark.name != VMM_START]
        return timeline._replace(label=OWN, marks=(Mark(VMM_START, 0), *marks), start_ns=began)

    return Row(OWN, take, learned.counts)


def _row(
    subject: Subject, firmware: Firmware, learned: Lookout | None, image: str, accelerator: str, cleared: int | None
) -> Row:
    label = f"{firmware.name} + {image}"
    path = subject.vmlinux if image == VMLINUX else subject.bzimage
    if firmware.path is None or learned is None:
        return Row(label, None, reason=firmware.reason)
    counts: Mapping[str, int] = learned.counts
    if image == BZIMAGE:  # another road, of which nobody counts the instructions
        counts = {_ROM_BYTES: counts[_ROM_BYTES]}
    if path is None:
        return Row(label, None, counts, "no bzImage: name a vmlinuz as KERNEL")
    arguments = ["-bios", firmware.path, "-kernel", path, "-append", subject.cmdline]
    if subject.initrd is not None:
        arguments += ["-initrd", subject.initrd]
    entry = learned.addresses[HANDOFF] if image == VMLINUX else _bzimage_entry(firmware)
    places = {**learned.addresses, HANDOFF: entry}
    boot = QemuBoot(subject.spec.qemu, subject.memory, lambda _directory: arguments, places, cleared)

    def take() -> Timeline:
        return take_qemu_timeline(
            boot, accelerator, subject.extra, subject.goal, subject.seconds, label=label, counts=counts, absent=learned.absent
        )

    return Row(label, take, counts)


def _bzimage_entry(firmware: Firmware) -> int:
    """Ours enters it in protected mode, the others in real mode, where QEMU would have it."""
    return LOAD_PADDR_HIGH if firmware.name == OURS else QEMU_SETUP_PADDR + REAL_MODE_ENTRY


def _plan(subject: Subject, spec: MachineSpec, rom: bytes) -> BootPlan:
    modules = [Module(subject.initrd)] if subject.initrd is not None else []
    return make_plan(spec, rom, subject.kernel, memory=subject.memory, modules=modules, cmdline=subject.cmdline)


def _learn(subject: Subject, spec: MachineSpec, firmware: Firmware) -> Lookout:
    plan = _plan(subject, spec, firmware.rom)
    ahead = look_out(plan, kernel_places(plan), limits=_BRIEF if firmware.name == SEABIOS else LIMITS)
    return ahead._replace(counts={**ahead.counts, _ROM_BYTES: sum(byte != 0 for byte in firmware.rom)})
