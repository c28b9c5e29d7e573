"""Timelines of boots on our own engines: which marks, in which order, where, and how a run ends; never how long."""

import json
import os
import signal
from pathlib import Path

import pytest
from command_line import command, fails
from host import kvm_problem
from initramfs import initramfs
from marked_guest import BANNER, ENTRY, INIT_LINE, STARTUP_64, marked_guest, out
from marked_guest import START_KERNEL as START
from plain import NIGHTLY
from pvhboot.emu.board import Board
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.session import get_engine
from pvhboot.emu.timeline import own
from pvhboot.emu.timeline.dry_run import dry_run
from pvhboot.emu.timeline.goal import SILENT, furthest, kernel_places, looked_for
from pvhboot.emu.timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    MARKS,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
)
from pvhboot.emu.timeline.recorder import Recorder
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.elf_layouts import LAYOUTS
from pvhboot.shim.abi.x86 import CR0_PE
from pvhboot.shim.machines import BARE, MACHINES, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest

FIRMWARE = [VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF]
STAGE = Path(__file__).parent.parent.parent / "docs/examples/mark-handoff.s"
HALT = "    cli\n    hlt\n"
UNSEEN = f"not reached: {SILENT}"


@pytest.fixture
def marked(tmp_path):
    """Writes a marked guest; its path."""

    def write(**how):
        path = tmp_path / "marked"
        path.write_bytes(marked_guest(**how))
        return path

    return write


def timeline(capsys, *arguments, status=0):
    """What `pvhboot timeline --json` says of one boot."""
    assert main(["timeline", "--json", *map(str, arguments)]) == status
    said, error = capsys.readouterr()
    assert error == "" or SILENT in error
    data = json.loads(said)
    assert data["ok"] is (status == 0)
    (one,) = data["timelines"]
    times = [mark["ns"] for mark in one["marks"]]
    assert times == sorted(times)
    assert times[0] == 0
    return one


def names(one):
    return [mark["name"] for mark in one["marks"]]


def places(one):
    return {mark["name"]: mark["place"] for mark in one["marks"]}


def plan_of(data, **how):
    with Kernel.from_bytes(data, "guest") as kernel:
        return make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB, **how)


def test_the_builtin_guest_to_its_exit(engine_name, capsys):
    one = timeline(capsys, "--engine", engine_name)
    assert names(one) == [*FIRMWARE, CONSOLE, EXIT]
    assert one["end"] == "exit: the guest left with 0"
    assert (one["engine"], one["absent"]) == (engine_name, {})
    assert one["start_ns"] > 0
    assert places(one)[FIRST_INSTRUCTION] == "0xfffffff0 reset_vector (reset.s:9)"
    assert places(one)[CONSOLE] == "'pvhguest 2 elf64 elf64'"


def test_every_mark(engine_name, marked, capsys):
    kernel = marked(before=out(0xF4, 6), after=out(0xF4, 7) + out(0xF4, 0x99))
    one = timeline(capsys, kernel, "--engine", engine_name, "--until", "exit")
    told = ["linux_start_kernel", CONSOLE, INIT, "linux_start_user", "exit_point_153"]
    assert names(one) == [*FIRMWARE, KERNEL_64, START_KERNEL, *told, EXIT]
    assert places(one) | {VMM_START: "", PROTECTED_MODE: ""} == {
        VMM_START: "",
        FIRST_INSTRUCTION: "0xfffffff0 reset_vector (reset.s:9)",
        PROTECTED_MODE: "",
        HANDOFF: f"{ENTRY:#x} kernel",
        KERNEL_64: f"{STARTUP_64:#x} startup_64",
        START_KERNEL: f"{START:#x} start_kernel",
        "linux_start_kernel": "0x6 to port 0xf4",
        CONSOLE: repr(BANNER),
        INIT: repr(INIT_LINE),
        "linux_start_user": "0x7 to port 0xf4",
        "exit_point_153": "0x99 to port 0xf4",
        EXIT: "the guest left with 0",
    }
    assert one["absent"] == {}


@pytest.mark.parametrize(
    ("until", "last"),
    [
        (HANDOFF, HANDOFF),
        (KERNEL_64, KERNEL_64),
        (START_KERNEL, START_KERNEL),
        (CONSOLE, CONSOLE),
        (INIT, INIT),
        ("console:version 0", "console:version 0"),
        ("linux_start_user", "linux_start_user"),
        ("exit_point_153", "exit_point_153"),
        (None, START_KERNEL),  # as nothing says that the guest prints
    ],
)
def test_it_ends_at_the_goal(engine_name, until, last, marked, capsys):
    kernel = marked(after=out(0xF4, 7) + out(0xF4, 0x99))
    one = timeline(capsys, kernel, "--engine", engine_name, *(["--until", until] if until else []))
    assert names(one)[-1] == last
    assert one["end"] == f"{last} was reached"
    assert one["absent"] == {}


@pytest.mark.parametrize(
    ("guest", "until", "missing", "end"),
    [
        ({"before": HALT}, INIT, {CONSOLE: UNSEEN, INIT: UNSEEN}, "halt: hlt with interrupts off, at 0x"),
        ({"before": "1: jmp 1b\n"}, CONSOLE, {CONSOLE: UNSEEN}, f"limit: 0.5 seconds of wall time are over, at {START:#x}"),
        ({}, "console:nobody prints this", {"console:nobody prints this": "not reached"}, "exit: the guest left with 0"),
        ({"before": out(0x501, 3)}, CONSOLE, {CONSOLE: UNSEEN}, "exit: the guest left with 3"),
        (
            {"symbols": False},
            START_KERNEL,
            {START_KERNEL: "not looked for: the kernel has no symbol of that name"},
            "exit: the guest left with 0",
        ),
        (
            {"bits": 32, "before": HALT},
            CONSOLE,
            {KERNEL_64: "none: the kernel is ELF32", CONSOLE: UNSEEN},
            "halt: hlt with interrupts off",
        ),
    ],
    ids=["halt", "loop", "text", "exit", "stripped", "elf32"],
)
def test_what_is_not_reached_is_told(engine_name, guest, until, missing, end, marked, capsys):
    limit = ["--timeout", "0.5"] if "jmp" in guest.get("before", "") else []
    one = timeline(capsys, marked(**guest), "--engine", engine_name, "--until", until, *limit, status=1)
    assert one["absent"] == missing
    assert one["end"].startswith(end)


def test_what_no_boot_comes_to_is_refused_as_a_goal(marked, capsys):
    """It would run for as long as it may."""
    words = "--until kernel-64bit: there is none: the kernel is ELF32"
    kernel = marked(bits=32)
    assert words in fails(capsys, "timeline", kernel, "--until", KERNEL_64)
    assert words in fails(capsys, "bench", "timeline", kernel, "--until", KERNEL_64)
    assert "none: the ELF header's entry is that of the handoff" in fails(capsys, "timeline", "--until", KERNEL_64)


def test_who_interrupts_it_sees_how_far_it_came(engine_name, marked, capsys, monkeypatch):
    kernel = marked(before=out(0xF4, 6) + "1: jmp 1b\n")

    class Interrupted(Recorder):
        def on_access(self, access):
            super().on_access(access)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(own, "Recorder", Interrupted)
    one = timeline(capsys, kernel, "--engine", engine_name, "--until", CONSOLE, status=1)
    assert names(one)[-1] == "linux_start_kernel"
    assert (one["end"], one["absent"]) == ("interrupted", {CONSOLE: UNSEEN})


@pytest.mark.parametrize("name", ["vmlinux-6.1", "vmlinuz-6.12"])
def test_linux_to_its_first_byte(name, guest_file, capsys):
    one = timeline(capsys, guest_file(name), "--append", "earlyprintk=ttyS0")
    assert names(one) == list(MARKS[:-1])
    assert places(one)[KERNEL_64].endswith(" startup_64")
    assert places(one)[START_KERNEL].startswith("0xffffffff8")
    assert one["counts"]["bytes_copied"] < 1 << 16 < one["counts"]["bytes_mapped"]


def test_linux_on_kvm_to_its_64_bit_entry(guest_file, capsys):
    if problem := kvm_problem():
        pytest.skip(problem)
    one = timeline(capsys, guest_file("vmlinux-6.1"), "--engine", "kvm", "--until", KERNEL_64)
    assert names(one) == [*FIRMWARE, KERNEL_64]


if NIGHTLY:  # tests/build-small-kernel takes minutes

    def test_linux_to_init(guest_file, tmp_path, capsys):
        initrd = tmp_path / "initrd"
        initrd.write_bytes(initramfs(guest_file("busybox")))
        one = timeline(capsys, guest_file("vmlinux-small"), "--initrd", initrd, "--append", "console=ttyS0")
        assert names(one) == list(MARKS)
        assert places(one)[INIT] == "'Run /init as init process'"


def test_a_broken_symbol_table(marked, capsys):
    kernel = marked()
    whole = kernel.read_bytes()
    header = LAYOUTS[64].header.unpack(whole)
    at = header.e_shoff + 2 * header.e_shentsize + 0x20  # sh_size of .symtab, as write_elf orders them
    kernel.write_bytes(whole[:at] + (1 << 30).to_bytes(8, "little") + whole[at + 8 :])
    one = timeline(capsys, kernel, "--until", KERNEL_64)
    assert names(one) == [*FIRMWARE, KERNEL_64]
    assert places(one)[KERNEL_64] == f"{STARTUP_64:#x}"
    absent = timeline(capsys, kernel, "--until", START_KERNEL, status=1)["absent"]
    assert absent[START_KERNEL].startswith(f"not looked for: {kernel}: truncated symbol table")


def test_a_stripped_kernel_that_marks_itself(engine_name, marked, capsys):
    kernel = marked(before=out(0xF4, 6), symbols=False)
    one = timeline(capsys, kernel, "--engine", engine_name, "--until", START_KERNEL)
    assert names(one) == [*FIRMWARE, KERNEL_64, "linux_start_kernel", START_KERNEL]


@pytest.mark.parametrize("machine", MACHINES)
def test_protected_mode_of_each_machine(machine, capsys):
    one = timeline(capsys, "--machine", machine, "--until", HANDOFF)
    assert names(one) == FIRMWARE
    assert places(one)[PROTECTED_MODE].endswith("(realmode.s:20)")


def test_protected_mode_is_where_it_is_said_to_be(engine_name):
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(MICROVM, default_blob(MICROVM).data, kernel, memory=64 * MIB)
        found = dry_run(plan).protected_mode
        with get_engine(engine_name).cpu(Board(plan), Limits()) as cpu:
            before = cpu.registers()["cr0"]
            assert cpu.run_to((found,))
            assert (before & CR0_PE, cpu.registers()["cr0"] & CR0_PE) == (0, CR0_PE)


def test_counts_are_those_of_a_boot(capsys):
    one = timeline(capsys, "--machine", "microvm", "--until", HANDOFF)
    boot = json.loads(command(capsys, "boot", "--machine", "microvm", "--json"))["counts"]["handoff"]
    assert one["counts"]["instructions"] == boot.pop("instructions")
    assert one["counts"]["device_accesses"] == sum(boot.values())
    assert one["counts"]["rom_bytes"] == 64 << 10


def test_a_timeline_is_the_same_again(capsys):
    runs = [timeline(capsys, "--machine", "pc") for _ in range(2)]
    for run in runs:
        for mark in run["marks"]:
            del mark["ns"]
        del run["start_ns"]
    assert runs[0] == runs[1]


def test_a_foreign_firmware(engine_name, qboot, marked, capsys):
    arguments = [marked(), "--machine", "microvm", "--firmware", qboot, "--engine", engine_name]
    one = timeline(capsys, *arguments)
    assert names(one) == [*FIRMWARE, KERNEL_64, START_KERNEL]
    assert one["label"] == f"{qboot.name} on {engine_name}"
    assert places(one)[PROTECTED_MODE].startswith("0xffff")


def test_a_firmware_that_never_leaves_real_mode(engine_name, tmp_path, capsys):
    rom = tmp_path / "stuck.bin"
    rom.write_bytes(bytes(0xFFF0) + b"\xfa\xf4" + bytes(14))  # cli; hlt
    one = timeline(capsys, "--engine", engine_name, "--firmware", rom, "--until", HANDOFF, status=1)
    assert names(one) == [VMM_START, FIRST_INSTRUCTION]
    assert one["absent"] == {
        PROTECTED_MODE: "not looked for: a dry run of this firmware never came there",
        HANDOFF: "not reached",
    }
    assert one["end"] == "halt: hlt with interrupts off, at 0xfffffff2 ROM+0xfff2"
    assert "instructions" not in one["counts"]


def test_a_build_with_marks(engine_name, tmp_path, capsys):
    rom = tmp_path / "marks.bin"
    command(capsys, "build", "--marks", "-o", rom)
    one = timeline(capsys, "--engine", engine_name, "--firmware", rom, "--until", HANDOFF)
    assert names(one) == [*FIRMWARE[:2], "fw_start", PROTECTED_MODE, "linux_start_pvhboot", HANDOFF]


def test_a_stage_that_marks(engine_name, tmp_path, capsys):
    rom = tmp_path / "marked.bin"
    command(capsys, "build", "--stage", f"before-handoff={STAGE}", "-o", rom)
    one = timeline(capsys, "--engine", engine_name, "--firmware", rom, "--until", HANDOFF)
    assert names(one) == [*FIRMWARE[:3], "linux_start_pvhboot", HANDOFF]
    code = [line for line in STAGE.read_text().splitlines() if line and not line.startswith("#")]
    assert len(code) == 3


def test_a_console_that_has_printed_was_asked_for(marked, capsys):
    """The command line need not have said so."""
    one = timeline(capsys, marked(after=HALT), "--until", "console:nobody prints this", status=1)
    assert one["absent"] == {"console:nobody prints this": "not reached"}


@pytest.mark.parametrize(
    ("cmdline", "initrd", "symbols", "expected"),
    [
        ("console=ttyS0", True, True, INIT),
        ("quiet earlyprintk=serial,ttyS0,115200", False, True, CONSOLE),
        ("earlycon=uart8250,io,0x3f8", False, False, CONSOLE),
        ("console=tty0", True, True, START_KERNEL),
        ("noconsole=ttyS0", False, True, START_KERNEL),
        ("", False, False, KERNEL_64),
    ],
)
def test_the_furthest_mark(cmdline, initrd, symbols, expected, tmp_path):
    (tmp_path / "initrd").write_bytes(b"initrd")
    modules = [Module(str(tmp_path / "initrd"))] if initrd else []
    plan = plan_of(marked_guest(symbols=symbols), cmdline=cmdline, modules=modules)
    assert furthest(plan, kernel_places(plan)) == expected


def test_a_kernel_that_is_all_there_is():
    plan = plan_of(default_guest(64))
    assert furthest(plan, kernel_places(plan)) == HANDOFF
    assert kernel_places(plan).absent[KERNEL_64] == "none: the ELF header's entry is that of the handoff"


def test_what_is_looked_for():
    assert looked_for(INIT) == MARKS
    assert looked_for(HANDOFF) == tuple(FIRMWARE)
    assert looked_for("console:x") == (*FIRMWARE, "console:x")
