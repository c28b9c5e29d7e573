"""Timelines of boots under QEMU: which marks, in which order, and how a run ends; never how long."""

import json
import os
import signal

import pytest
from command_line import command, fails
from host import qemu_problem
from initramfs import initramfs
from marked_guest import BANNER, INIT_LINE, marked_guest, out
from marked_guest import START_KERNEL as START
from plain import CMDLINE, QBOOT
from processes import processes_that_name
from pvhboot.emu.engines.names import QEMU
from pvhboot.emu.reasons import INTERRUPTED
from pvhboot.emu.timeline import lookout, qemu
from pvhboot.emu.timeline.goal import SILENT, kernel_places
from pvhboot.emu.timeline.lookout import look_out
from pvhboot.emu.timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    NOT_REACHED,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
)
from pvhboot.emu.timeline.qemu import QemuBoot, cleared_place, plan_boot, stops, take_qemu_timeline
from pvhboot.emu.timeline.recorder import Recorder
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.devices import COM1_PORT
from pvhboot.shim.abi.firmware import MARK_LINUX_BOOT, MARK_LINUX_PORT, MARKER_NAMES
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, MACHINES, MIB, Q35
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob

UNSEEN = f"{NOT_REACHED}: {SILENT}"
SPIN = "    jmp ."
PATIENCE = 60.0  # seconds for what does come
KERNEL = [KERNEL_64, START_KERNEL, CONSOLE, INIT]


@pytest.fixture(params=["tcg", "kvm"])
def accelerator(request):
    if problem := qemu_problem(request.param):
        pytest.skip(problem)
    return request.param


def taken(goal, spec=Q35, accelerator="tcg", *, extra=(), seconds=PATIENCE, rom=None, **guest):
    """Of a marked guest."""
    kernel = Kernel.from_bytes(marked_guest(**guest), "marked guest")
    plan = make_plan(spec, rom or default_blob(spec).data, kernel, memory=64 * MIB, cmdline="a line")
    ahead = look_out(plan, kernel_places(plan))
    boot = plan_boot(plan, ahead.addresses)
    return take_qemu_timeline(boot, accelerator, extra, goal, seconds, label="it", counts=ahead.counts, absent=ahead.absent)


def names(timeline):
    return [mark.name for mark in timeline.marks]


def in_order(timeline):
    times = [mark.ns for mark in timeline.marks]
    return times[0] == 0 and times == sorted(times)


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_every_mark_is_seen_on_every_machine(spec, accelerator):
    timeline = taken(EXIT, spec, accelerator)
    assert names(timeline) == [*MARKS, EXIT]
    assert in_order(timeline)
    assert timeline.engine == f"{QEMU} {accelerator}"
    assert timeline.end == "exit was reached"
    assert not timeline.absent
    places = {mark.name: mark.place for mark in timeline.marks}
    assert places[CONSOLE] == repr(BANNER)
    assert places[INIT] == repr(INIT_LINE)
    assert places[PROTECTED_MODE] == "0xffff8010"
    assert places[EXIT] == "the guest left with 0"


@pytest.mark.parametrize("goal", [HANDOFF, KERNEL_64, START_KERNEL, CONSOLE, f"{CONSOLE}:version", INIT])
@pytest.mark.usefixtures("plain_qemu")
def test_a_run_goes_no_further_than_its_goal(goal):
    timeline = taken(goal, BARE)
    assert names(timeline)[-1] == goal
    assert timeline.end == f"{goal} was reached"


@pytest.mark.parametrize("spec", [spec for spec in MACHINES.values() if spec is not BARE], ids=lambda spec: spec.name)
@pytest.mark.usefixtures("plain_qemu", "qboot")
def test_another_firmware_has_its_marks_too(spec):
    timeline = taken(START_KERNEL, spec, rom=QBOOT.read_bytes())
    assert names(timeline) == [VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF, KERNEL_64, START_KERNEL]


@pytest.mark.usefixtures("plain_qemu")
def test_what_a_firmware_prints_is_not_the_kernels():
    """Its own debug text would be the first byte on COM1."""
    timeline = taken(CONSOLE, BARE, rom=printing_rom())
    assert next(mark.place for mark in timeline.marks if mark.name == CONSOLE).removeprefix("first byte ").startswith("'L")


def printing_rom():
    text = f"# Clobbers: eax, edx\n\n    mov edx, {COM1_PORT}\n    mov al, 65\n    out dx, al\n    ret\n"
    return build(BARE, stages=[make_stage("before-handoff", "print.s", text)]).data


@pytest.mark.usefixtures("plain_qemu")
def test_marker_ports_are_understood():
    """In their order; where the console's marks come among them nobody knows."""
    timeline = taken(EXIT, before=out(MARK_LINUX_PORT, MARK_LINUX_BOOT) + out(MARK_LINUX_PORT, 200))
    seen = [name for name in names(timeline) if name not in (CONSOLE, INIT)]
    assert seen[seen.index(START_KERNEL) :] == [START_KERNEL, MARKER_NAMES[MARK_LINUX_BOOT], "exit_point_200", EXIT]


@pytest.mark.usefixtures("plain_qemu")
def test_a_guest_that_comes_nowhere_is_given_up():
    timeline = taken(CONSOLE, before=f"{SPIN}\n", seconds=1.5)
    assert names(timeline)[-1] == START_KERNEL
    assert timeline.end == f"limit: 1.5 seconds of wall time are over, at {START:#x}"
    assert timeline.absent == {CONSOLE: UNSEEN}


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
@pytest.mark.usefixtures("plain_qemu")
def test_a_limit_may_be_infinite(seconds):
    """No socket takes that for the answers."""
    assert taken(HANDOFF, seconds=seconds).end == "handoff was reached"


@pytest.mark.usefixtures("plain_qemu")
def test_a_guest_that_prints_for_ever_is_given_up():
    timeline = taken(INIT, before=f"    mov edx, {COM1_PORT}\n    mov al, 65\n1:  out dx, al\n    jmp 1b\n", seconds=2.0)
    assert timeline.end.startswith("limit: 2 seconds of wall time are over")  # where depends on the moment
    assert names(timeline)[-1] == CONSOLE


@pytest.mark.usefixtures("plain_qemu")
def test_a_guest_that_resets_ends_the_run():
    """QEMU is told not to boot again. What was seen before stays."""
    timeline = taken(INIT, before="    mov al, 0xfe\n    out 0x64, al\n    jmp .\n")
    assert timeline.end == "reset: the guest was reset, by a port or by a triple fault, or has turned the machine off"
    assert names(timeline)[-1] == START_KERNEL
    assert timeline.absent == {CONSOLE: UNSEEN, INIT: UNSEEN}


@pytest.mark.usefixtures("plain_qemu")
def test_a_qemu_that_somebody_ends(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    class Ending(Recorder):
        def reach(self, name, ns=None, place=""):
            super().reach(name, ns, place)
            if name == START_KERNEL:
                for process in processes_that_name(tmp_path):
                    os.kill(process, signal.SIGKILL)

    monkeypatch.setattr(qemu, "Recorder", Ending)
    timeline = taken(CONSOLE, before=f"{SPIN}\n")
    assert timeline.end == "QEMU has gone: it has ended with signal 9 and does not say why"
    assert names(timeline)[-1] == START_KERNEL
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("plain_qemu")
def test_ctrl_c_ends_the_run_and_leaves_what_was_seen(monkeypatch):
    """The guest spins."""

    class Interrupted(Recorder):
        def reach(self, name, ns=None, place=""):
            super().reach(name, ns, place)
            if name == START_KERNEL:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(qemu, "Recorder", Interrupted)
    timeline = taken(CONSOLE, before=f"{SPIN}\n")
    assert timeline.end == INTERRUPTED
    assert names(timeline)[-1] == START_KERNEL
    assert timeline.absent == {CONSOLE: UNSEEN}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["-bogus"], "QEMU does not start: -bogus: invalid option"),
        (["-daemonize"], "-daemonize: nobody could time a QEMU in the background"),
    ],
    ids=["unknown", "background"],
)
@pytest.mark.usefixtures("plain_qemu")
def test_what_qemu_does_not_take(extra, message):
    with pytest.raises(BootError) as caught:
        taken(HANDOFF, extra=extra)
    assert str(caught.value) == message


@pytest.mark.usefixtures("plain_qemu")
def test_linux_comes_to_its_init(guest_file, tmp_path, capsys):
    """Debian's kernel has its start_kernel in kallsyms."""
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(initramfs(guest_file("busybox")))
    line = ["timeline", guest_file("vmlinux-6.1"), "--engine", "qemu", "--machine", "pc", "--initrd", initrd]
    data = json.loads(command(capsys, *line, "--append", f"{CMDLINE} earlyprintk=ttyS0", "--json"))
    (timeline,) = data["timelines"]
    assert data["until"] == INIT
    assert [mark["name"] for mark in timeline["marks"]] == list(MARKS)
    assert timeline["marks"][-1]["place"].endswith("Run /init as init process'")


def test_there_is_no_breakpoint_beside_the_loop_that_clears_the_bss(guest_file):
    """TCG would be slow on all of its page: where Debian's kernel has start_kernel, too."""
    with Kernel.open(guest_file("vmlinux-6.1")) as kernel:
        start, cleared = kernel.symbol("start_kernel").vaddr, cleared_place(kernel)
        clear_bss = kernel.symbol("clear_bss").vaddr
        boot = plan_boot(make_plan(Q35, default_blob(Q35).data, kernel, memory=512 * MIB), {START_KERNEL: start, HANDOFF: 1})
    assert start // PAGE_SIZE == clear_bss // PAGE_SIZE
    assert cleared // PAGE_SIZE != clear_bss // PAGE_SIZE
    assert list(stops(boot)) == [(HANDOFF, 1), ("", cleared), (START_KERNEL, start)]


@pytest.mark.parametrize("cleared", [None, START + 1], ids=["unknown", "on the same page"])
def test_without_a_place_behind_that_loop_start_kernel_is_waited_for_at_once(cleared):
    boot = QemuBoot("q35", 64 * MIB, lambda _directory: [], {START_KERNEL: START}, cleared)
    assert list(stops(boot)) == [(START_KERNEL, START)]


# --place


def test_a_place_that_is_told_is_not_searched_for(tmp_path, monkeypatch, capsys):
    """A guest without symbols; without a dry run nobody counts instructions."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(marked_guest(symbols=False))
    line = ["timeline", kernel, "--until", "start_kernel", "--json"]
    with_dry_run = json.loads(command(capsys, *line, "--place", f"start_kernel={START:#x}"))["timelines"][0]
    (place,) = [mark["place"] for mark in with_dry_run["marks"] if mark["name"] == PROTECTED_MODE]
    monkeypatch.setattr(lookout, "dry_run", None)
    told = ["--place", f"start_kernel={START:#x}", "--place", f"protected-mode={place.split()[0]}"]
    without = json.loads(command(capsys, *line, *told))["timelines"][0]
    assert [mark["name"] for mark in without["marks"]] == [mark["name"] for mark in with_dry_run["marks"]]
    assert "instructions" in with_dry_run["counts"]
    assert "instructions" not in without["counts"]


@pytest.mark.parametrize("text", ["handoff=0x1000", "start_kernel", "start_kernel=", "start_kernel=12", "=0x10", "init=0x1"])
def test_a_place_that_cannot_be_read(text, capsys):
    assert f"cannot read --place '{text}'" in fails(capsys, "timeline", "--place", text)
