"""The engine qemu: what it shows is what the other engines show, and whatever QEMU does ends in a report or one clear line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from host import kvm_problem, qemu_problem
from initramfs import MARK, initramfs
from processes import comes_true, processes_that_name
from pvhboot.emu.board import Board
from pvhboot.emu.check import UNOBSERVABLE, VIOLATED, check
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.qemu import engine as qemu_engine
from pvhboot.emu.engines.qemu.engine import QemuEngine
from pvhboot.emu.engines.qemu.gdb import Gdb, GdbGone
from pvhboot.emu.engines.qemu.qmp import Qmp, QmpGone
from pvhboot.emu.engines.qemu.state import parse_bytes, parse_registers
from pvhboot.emu.lab.mutants import ENTRY
from pvhboot.emu.reasons import CONSOLE, EXIT, FAULT, HALT, HANDOFF, LIMIT, RESET
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh, x86
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_layout import GUEST_PADDR
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MACHINES, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest
from tiny import kernel_image

QBOOT = Path("/usr/share/qemu/qboot.rom")


@pytest.fixture(params=["tcg", "kvm"])
def accelerator(request):
    if problem := qemu_problem(request.param):
        pytest.skip(problem)
    return request.param


@pytest.fixture
def needs_qemu():
    if problem := qemu_problem():
        pytest.skip(problem)


@pytest.fixture(params=["unicorn", "kvm", "qemu"])
def any_engine(request):
    if problem := {"kvm": kvm_problem, "qemu": qemu_problem}.get(request.param, lambda: None)():
        pytest.skip(problem)
    return request.param


@pytest.fixture(params=MACHINES.values(), ids=MACHINES)
def spec(request):
    return request.param


def plan_for(spec, kernel=None, blob=None, engine=None, **more):
    kernel = kernel or Kernel.from_bytes(default_guest(64), "guest")
    more = {"memory": 64 * MIB, **more}
    reserved = engine.host_reserved(spec, more["memory"]) if engine else ()
    return make_plan(spec, (blob or default_blob(spec)).data, kernel, host_reserved=reserved, **more)


def run(plan, engine, until=HANDOFF, text="", blob=None, seconds=60.0):
    return boot(plan, blob or default_blob(plan.spec), engine, Until(until, text), Limits(seconds=seconds))


# What it shows.


@pytest.mark.parametrize("bits", [64, 32])
def test_the_conformance_guest_agrees(spec, accelerator, bits, tmp_path):
    (tmp_path / "init,rd").write_bytes(bytes(range(256)) * 40)
    engine = QemuEngine(accelerator)
    kernel = Kernel.from_bytes(default_guest(bits), "guest")
    plan = plan_for(spec, kernel, engine=engine, modules=[Module(str(tmp_path / "init,rd"))], cmdline="hello world")
    outcome = run(plan, engine, EXIT)
    said = outcome.console.decode()
    assert outcome.ok, said
    assert outcome.run.stop.value == 0
    assert {f.clause for f in outcome.findings if f.status == UNOBSERVABLE} == {"cpu.mtrr"}
    assert re.search(r"^result ok\r?$", said, re.MULTILINE)
    assert '"hello world"' in said
    entries = [(int(a, 16), int(s, 16), int(t)) for a, s, t in re.findall(r"memmap \d+ addr=(\S+) size=(\S+) type=(\d+)", said)]
    if spec.acpi:
        assert [kind for _, _, kind in entries].count(pvh.MEMMAP_TYPE_ACPI) == 1
    else:
        assert entries == [tuple(entry) for entry in plan.memmap]


@pytest.mark.parametrize("memory", ["96M", "512M", "5G"])
@pytest.mark.parametrize("kernel", ["vmlinuz-6.1", "vmlinuz-6.12"])
@pytest.mark.parametrize(
    "spec", [BARE, MICROVM], ids=lambda spec: spec.name
)  # the others: QEMU has tables that our board lacks
@pytest.mark.usefixtures("needs_qemu")
def test_three_engines_one_truth(guest_file, tmp_path, kernel, memory, spec):
    """The same blob, kernel, initrd and command line: the same start_info, memory map, modules and command line."""
    if problem := kvm_problem():
        pytest.skip(problem)
    size = {"96M": 96, "512M": 512, "5G": 5 << 10}[memory] * MIB
    (tmp_path / "initrd").write_bytes(initramfs(guest_file("busybox")))
    seen = {}
    with Kernel.open(guest_file(kernel)) as opened:
        for name in ("unicorn", "kvm", "qemu"):
            modules = [Module(str(tmp_path / "initrd"))]
            plan = plan_for(spec, opened, memory=size, modules=modules, cmdline="console=ttyS0")
            outcome = run(plan, get_engine(name))
            assert outcome.ok, outcome.findings
            registers = outcome.handoff.registers
            seen[name] = (outcome.tables, {key: registers[key] for key in ("ebx", "eip", "esp", "cr0", "cr4", "gdtr_base")})
    assert seen["unicorn"] == seen["kvm"] == seen["qemu"]
    assert seen["qemu"][0].start_info.nr_modules == 1
    assert seen["qemu"][0].cmdline == b"console=ttyS0"


@pytest.mark.usefixtures("needs_qemu")
def test_debian_goes_on_to_user_space(guest_file, tmp_path):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(initramfs(guest_file("busybox")))
    with Kernel.open(guest_file("vmlinuz-6.1")) as kernel:
        cmdline = "console=ttyS0 reboot=t panic=-1"
        plan = plan_for(MICROVM, kernel, memory=256 * MIB, modules=[Module(str(initrd))], cmdline=cmdline)
        outcome = run(plan, QemuEngine(), CONSOLE, f"{MARK} memory")
    assert outcome.ok, outcome.console.decode(errors="replace")
    assert f"{MARK} cmdline {cmdline}".encode() in outcome.console


@pytest.mark.usefixtures("needs_qemu")
@pytest.mark.parametrize("cmdline", ["quiet", None, "quiet virtio_mmio.device=1@2:3"])
def test_a_device_that_qemu_tells_linux_of_is_no_finding(cmdline):
    engine = QemuEngine(extra=["-device", "virtio-rng-device", "-device", "virtio-rng-device"])
    outcome = run(plan_for(MICROVM, cmdline=cmdline), engine, EXIT)
    assert outcome.ok, outcome.findings
    assert outcome.tables.cmdline.startswith((cmdline or "").encode() + b" virtio_mmio.device=")


@pytest.mark.usefixtures("needs_qemu")
@pytest.mark.parametrize("line", ["quiet loud", " virtio_mmio.device=1", "quiet virtio_mmio.device=1 loud", "quie"])
def test_any_other_command_line_is_a_finding(line, spec):
    planned = plan_for(spec, cmdline="quiet")
    seen = []
    QemuEngine().run(
        Board(plan_for(spec, cmdline=line)), Until(HANDOFF), Limits(), lambda handoff: seen.extend(check(handoff, planned))
    )
    assert "cmdline" in [finding.clause for finding in seen if finding.status == VIOLATED]


@pytest.mark.skipif(not QBOOT.is_file(), reason="no qboot.rom")
def test_qboot_is_judged_here_as_on_the_board(guest_file, accelerator, tmp_path):
    (tmp_path / "initrd").write_bytes(bytes(5000))
    engine = QemuEngine(accelerator)
    with Kernel.open(guest_file("vmlinux-6.1")) as kernel:
        modules = [Module(str(tmp_path / "initrd"))]
        rom = QBOOT.read_bytes()
        reserved = engine.host_reserved(MICROVM, 512 * MIB)
        plan = make_plan(MICROVM, rom, kernel, memory=512 * MIB, modules=modules, host_reserved=reserved)
        outcome = run(plan, engine)
    assert outcome.handoff is not None
    violated = [finding.clause for finding in outcome.findings if finding.status == VIOLATED]
    assert violated == ["cpu.tr", "memmap.count", "memmap.entries", "memmap.sorted", "modules.entries"]


@pytest.mark.usefixtures("needs_qemu")
def test_the_guest_is_looked_at_where_it_leaves(capsys):
    assert main(["boot", "--engine", "qemu", "--json"]) == 0
    stop = json.loads(capsys.readouterr().out)["stop"]
    assert (stop["reason"], stop["value"]) == (EXIT, 0)
    assert GUEST_PADDR < stop["rip"] < GUEST_PADDR + 0x2000
    assert stop["registers"]["ebx"]


# How it ends.

_PULSE_RESET = "    mov al, 0xfe\n    out 0x64, al\n    jmp handoff_here\n"

_HERE = "    mov ebx, START_INFO_PADDR\n"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("    ud2\n", FAULT, "triple fault"),
        ("    jmp handoff_here\n", LIMIT, "seconds of wall time"),
        ("    cli\n    hlt\n", HALT, "hlt with interrupts off"),
        ("    int3\n", FAULT, "triple fault"),
    ],
)
@pytest.mark.usefixtures("needs_qemu")
def test_a_run_that_goes_wrong_ends_with_a_report(code, reason, words, spec):
    blob = build(spec, sources={"handoff.s": asm_source("handoff.s").replace(_HERE, f"handoff_here:\n{code}")})
    outcome = run(plan_for(spec, blob=blob), QemuEngine(), blob=blob, seconds=3.0 if reason == LIMIT else 60.0)
    assert not outcome.ok
    assert outcome.handoff is None
    assert (outcome.run.stop.reason, words in outcome.run.stop.detail) == (reason, True)
    place = blob.locate(outcome.run.stop.rip)
    assert place is not None
    assert place.source.startswith("handoff.s:")
    assert outcome.run.registers["cr0"] & x86.CR0_PE


@pytest.mark.usefixtures("needs_qemu")
def test_the_keyboard_controller_resets_where_there_is_one(spec):
    blob = build(spec, sources={"handoff.s": asm_source("handoff.s").replace(_HERE, f"handoff_here:\n{_PULSE_RESET}")})
    outcome = run(plan_for(spec, blob=blob), QemuEngine(), blob=blob, seconds=3.0)
    assert outcome.run.stop.reason == (RESET if spec.chipset else LIMIT)


def test_under_kvm_a_triple_fault_is_a_reset_or_a_fault():
    if problem := qemu_problem("kvm"):
        pytest.skip(problem)
    blob = build(MICROVM, sources={"handoff.s": asm_source("handoff.s").replace(_HERE, "    ud2\n")})
    outcome = run(plan_for(MICROVM, blob=blob), QemuEngine("kvm"), blob=blob, seconds=20.0)
    assert outcome.run.stop.reason in (RESET, FAULT)
    assert not outcome.ok


@pytest.mark.usefixtures("needs_qemu")
def test_a_panic_halts_and_says_why():
    blob = default_blob(BARE)
    plan = plan_for(BARE)._replace(rom=blob.data)
    outcome = run(plan, QemuEngine(), blob=blob)
    assert outcome.run.stop.reason == HALT
    assert outcome.debug_console == b"pvhboot panic 0xe0 NO_PARAMS: the ROM's parameter block is empty\n"
    assert blob.locate(outcome.run.stop.rip).symbol == "panic_halt"


@pytest.mark.usefixtures("needs_qemu")
@pytest.mark.parametrize("value", [0, 5, 127, 128, 255])
def test_the_value_of_a_guest_that_leaves(value):
    """All eight bits of it."""
    code = bytes.fromhex("66ba0105 b0") + bytes((value,)) + bytes.fromhex("ee fa f4")  # mov dx, 0x501; mov al; out; cli; hlt
    outcome = run(plan_for(BARE, tiny_kernel(code)), QemuEngine(), EXIT)
    assert (outcome.run.stop.reason, outcome.run.stop.value, outcome.ok) == (EXIT, value, value == 0)


@pytest.mark.usefixtures("needs_qemu")
def test_a_guest_seen_halted_before_its_last_word_is_read_has_left(monkeypatch):
    monkeypatch.setattr(qemu_engine._Session, "_exit", lambda _session: None)
    code = bytes.fromhex("66ba0105 b000 ee fa f4")  # mov dx, 0x501; mov al, 0; out; cli; hlt
    assert run(plan_for(BARE, tiny_kernel(code)), QemuEngine(), EXIT).run.stop.reason == EXIT


# Each of these ends the guest right behind what it prints.
_LEAVING = {
    "exit": "66ba0105 b000 ee",
    "exit-with-5": "66ba0105 b005 ee",
    "triple-fault": "0f0b",
    "halt": "",
}


@pytest.mark.parametrize("code", _LEAVING.values(), ids=_LEAVING)
def test_text_that_comes_right_before_the_end_is_waited_for_with_success(any_engine, code):
    """On every engine; and nothing that was printed is lost."""
    printing = b"".join(b"\xb0" + bytes((byte,)) + b"\xee" for byte in b"the END\n")  # mov al; out dx, al
    kernel = tiny_kernel(bytes.fromhex("66baf803") + printing + bytes.fromhex(code + "fa f4"))
    outcome = run(plan_for(BARE, kernel), get_engine(any_engine), CONSOLE, "END")
    assert (outcome.run.stop.reason, outcome.ok) == (CONSOLE, True)
    assert outcome.console.startswith(b"the END")


@pytest.mark.usefixtures("needs_qemu")
def test_what_a_guest_printed_before_its_end_is_all_there():
    printing = b"".join(b"\xb0" + bytes((byte,)) + b"\xee" for byte in b"x" * 2000 + b"\n")
    kernel = tiny_kernel(bytes.fromhex("66baf803") + printing + bytes.fromhex("66ba0105 b000 ee fa f4"))
    assert run(plan_for(BARE, kernel), QemuEngine(), EXIT).console == b"x" * 2000 + b"\n"


def tiny_kernel(code, entry=ENTRY):
    return Kernel.from_bytes(kernel_image(code, entry), "tiny")


_BOOT = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from pvhboot.emu.cli import main;"


@pytest.mark.usefixtures("needs_qemu")
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "pvhboot: interrupted\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
def test_a_signal_leaves_nothing_behind(tmp_path, number, status, words):
    (tmp_path / "loop.bin").write_bytes(bytes(65520) + b"\xeb\xfe" + bytes(14))
    code = f"{_BOOT} sys.exit(main(['boot', '--firmware', {str(tmp_path / 'loop.bin')!r}, '--engine', 'qemu']))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert comes_true(lambda: len(processes_that_name(tmp_path)) == 2)  # ours, and QEMU
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (status, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.bin"]
    assert not processes_that_name(tmp_path)


@pytest.mark.usefixtures("needs_qemu")
def test_an_error_of_ours_ends_qemu(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(_handoff):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        QemuEngine().run(Board(plan_for(MICROVM)), Until(HANDOFF), Limits(), fail)
    assert not list(tmp_path.iterdir())
    assert not processes_that_name(tmp_path)


# What it refuses.


def test_a_board_that_was_changed_is_refused():
    for touch in (lambda board: board.bus, lambda board: board.memory):
        board = Board(plan_for(MICROVM))
        touch(board)
        with pytest.raises(BootError, match="cannot run a board that was changed"):
            QemuEngine().run(board, Until(HANDOFF), Limits(), lambda _: None)
    for board in (Board(plan_for(MICROVM), plan_for(MICROVM).memory()), Board(plan_for(MICROVM), fw_cfg_items={})):
        with pytest.raises(BootError, match="cannot run a board that was changed"):
            QemuEngine().run(board, Until(HANDOFF), Limits(), lambda _: None)


@pytest.mark.parametrize("limits", [Limits(instructions=5), Limits(exits=5)])
def test_limits_that_it_cannot_keep_are_refused(limits):
    with pytest.raises(BootError, match="counts neither instructions nor accesses: use --timeout"):
        QemuEngine().run(Board(plan_for(MICROVM)), Until(HANDOFF), limits, lambda _: None)


def test_unknown_accelerator():
    with pytest.raises(BootError, match="no accelerator named 'hax'; there is: tcg, kvm"):
        QemuEngine("hax")


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.startswith("pvhboot: ")
    assert err.count("\n") == 1
    return err


def test_without_qemu_there_is_one_clear_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["boot", "--engine", "qemu"]) == 2
    assert "needs qemu-system-x86_64 on the PATH: install it" in one_line(capsys)


@pytest.mark.usefixtures("needs_qemu")
def test_what_qemu_complains_of_reaches_the_user(capsys):
    assert main(["boot", "--engine", "qemu", "--qemu-arg=-nonsense"]) == 2
    assert "QEMU does not start: -nonsense: invalid option" in one_line(capsys)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexec sleep 1000\n", "it has not answered for"),
        ("#!/nonexistent\n", "No such file or directory"),
        ("\x7fELFnonsense", "Exec format error"),
        ("#!/bin/sh\necho boom >&2\necho second >&2\nexit 3\n", "QEMU does not start: boom; second"),
        ("#!/bin/sh\nexit 3\n", "QEMU does not start: it has ended with status 3 and does not say why"),
        ("#!/bin/sh\nkill -SEGV $$\n", "it has ended with signal 11"),
    ],
)
def test_a_qemu_that_is_none_is_one_clear_line(monkeypatch, capsys, tmp_path, script, words):
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("pvhboot.emu.engines.qemu.process._PATIENCE", 0.5)
    for command in ("boot", "compare"):  # it is there: so compare does not pass over it
        assert main([command, "--engine", "qemu", "--timeout", "0.5"]) == 2
        assert words in one_line(capsys)


@pytest.mark.usefixtures("needs_qemu")
def test_a_qemu_that_stops_answering_ends_with_the_time(monkeypatch, tmp_path):
    monkeypatch.setattr("pvhboot.emu.engines.qemu.process._PATIENCE", 0.5)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop_qemu(_handoff):
        for process in processes_that_name(tmp_path):
            os.kill(process, signal.SIGSTOP)

    run = QemuEngine().run(Board(plan_for(MICROVM)), Until(EXIT), Limits(seconds=2.0), stop_qemu)
    assert (run.stop.reason, run.stop.detail) == (LIMIT, "2 seconds of wall time are over, and QEMU does not answer")
    assert not processes_that_name(tmp_path)


def test_a_full_directory_for_temporary_files_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert main(["boot", "--engine", "qemu"]) == 2
    assert f"cannot write QEMU's files to {tmp_path / 'gone'} (TMPDIR): No such file or directory" in one_line(capsys)


def test_a_qemu_in_the_background_is_refused(capsys):
    assert main(["boot", "--engine", "qemu", "--qemu-arg=-daemonize"]) == 2
    assert "-daemonize: the qemu engine would lose sight of" in one_line(capsys)


@pytest.mark.parametrize("option", [["--accel", "kvm"], ["--qemu-arg=-s"]])
def test_options_of_qemu_are_for_qemu(capsys, option):
    assert main(["boot", *option]) == 2
    assert "is for the engine qemu, not for unicorn" in one_line(capsys)


def test_no_dma_is_for_a_machine_with_fw_cfg(capsys):
    assert main(["boot", "--no-dma"]) == 2
    assert "the machine bare does not have" in one_line(capsys)


@pytest.mark.usefixtures("needs_qemu")
def test_a_kernel_where_qemu_has_the_rom_is_refused():
    with pytest.raises(BootError, match=r"tiny: a segment at 0xf8000-0xf8001 lies where QEMU has a copy of the ROM"):
        run(plan_for(BARE, tiny_kernel(b"\xf4", 0xF8000)), QemuEngine())


@pytest.mark.usefixtures("needs_qemu")
def test_a_firmware_that_qemu_does_not_take_is_refused():
    plan = plan_for(BARE)
    with pytest.raises(BootError, match="QEMU takes no firmware of 4096 bytes"):
        run(plan._replace(rom=plan.rom[-4096:]), QemuEngine())


@pytest.mark.usefixtures("needs_qemu")
def test_a_multiboot_kernel_is_refused_where_qemu_would_take_it_for_one(guest_file, capsys):
    """QEMU tries Multiboot before PVH."""
    shim = str(guest_file("xen-shim"))
    assert main(["boot", shim, "--engine", "qemu", "--machine", "microvm"]) == 2
    assert re.search(r"xen-shim: a Multiboot header at 0x\w+, by which QEMU would load it instead of by PVH", one_line(capsys))
    assert main(["boot", shim, "--engine", "qemu"]) == 0


@pytest.mark.usefixtures("needs_qemu")
def test_a_process_that_is_killed_leaves_no_qemu(tmp_path):
    (tmp_path / "loop.bin").write_bytes(bytes(65520) + b"\xeb\xfe" + bytes(14))
    code = "import sys; from pvhboot.emu.cli import main; main(sys.argv[1:])"
    line = [sys.executable, "-c", code, "boot", "--firmware", str(tmp_path / "loop.bin"), "--engine", "qemu"]
    process = subprocess.Popen(line, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    assert comes_true(lambda: len(processes_that_name(tmp_path)) == 2)  # ours, and QEMU
    process.kill()
    process.wait()
    assert comes_true(lambda: not processes_that_name(tmp_path))


# The protocols, without a QEMU.

REAL_MODE = """
CPU#0
EAX=00000000 EBX=00000000 ECX=00000000 EDX=00060fb1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000000
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0000 00000000 0000ffff 00009300
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 0000ffff 00009300
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200
TR =0000 00000000 0000ffff 00008b00
GDT=     00000000 0000ffff
IDT=     00000000 0000ffff
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
"""
LONG_MODE = """
RAX=0000000000000074 RBX=0000000000000000 RCX=0000000000000000 RDX=ffff888000000000
RSI=0000000000005400 RDI=ffffffff82002068 RBP=0000000028121969 RSP=ffffc9000059bb28
R8 =0000000000000000 R9 =0000000000000000 R10=0000000000000000 R11=0000000000000000
RIP=ffffffff810606f9 RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 ffffffff 00c00000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 ffffffff 00c00000
FS =0000 0000000000000000 ffffffff 00c00000
GS =0000 ffff88801f800000 ffffffff 00c00000
LDT=0000 0000000000000000 ffffffff 00c00000
TR =0040 fffffe0000003000 00004087 00008b00 DPL=0 TSS64-busy
GDT=     fffffe0000001000 0000007f
IDT=     fffffe0000000000 00000fff
CR0=80050033 CR2=ffff888004c01000 CR3=0000000005248000 CR4=000006b0
EFER=0000000000000d01
"""


def test_registers_of_the_reset_state():
    state = parse_registers(REAL_MODE.replace("\n", "\r\n"))
    assert state.segments == {**dict.fromkeys(x86.SEGMENT_NAMES, x86.RESET_DATA), "cs": x86.RESET_CS, "tr": x86.RESET_TR}
    assert state.linear_ip == x86.RESET_VECTOR
    assert state.registers["cr0"] == x86.RESET_CR0
    assert state.registers["edx"] == 0x60FB1
    assert state.registers["gdtr_limit"] == 0xFFFF
    assert not state.dead


def test_registers_in_long_mode():
    state = parse_registers(LONG_MODE)
    assert state.linear_ip == 0xFFFFFFFF810606F9
    assert state.registers["esp"] == 0xFFFFC9000059BB28
    assert state.registers["efer"] == 0xD01
    assert state.registers["gdtr_base"] == 0xFFFFFE0000001000
    assert state.segments["cs"].long
    assert state.segments["tr"].limit == 0x4087
    assert state.dead
    assert not parse_registers(LONG_MODE.replace("RFL=00000046", "RFL=00000246")).dead


def test_how_code_is_decoded():
    assert parse_registers(REAL_MODE).bits == 16
    assert parse_registers(LONG_MODE).bits == 64


def test_bytes_of_memory():
    assert parse_bytes("00000000fffffff0: 0xea 0x5b 0xe0 0x00 0xf0\r\n00000000fffffff5: 0x00\r\n") == b"\xea\x5b\xe0\0\xf0\0"
    assert parse_bytes("Cannot access memory\r\n") == b""


@pytest.mark.parametrize("gone", ["CR4=00000000", "GDT=", "TR =0000", "EIP=", "EAX="])
def test_an_unknown_dump_is_an_error(gone):
    with pytest.raises(BootError, match="prints its registers in an unknown form"):
        parse_registers(REAL_MODE.replace(gone, ""))


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, theirs


def test_gdb_packets_come_in_any_pieces(pair):
    ours, theirs = pair
    gdb = Gdb(ours)
    theirs.sendall(b"+$OK#9a")
    gdb.break_at(0x1000850, True)
    assert theirs.recv(100) == b"$Z1,1000850,1#72+"
    gdb.resume()
    assert theirs.recv(100) == b"$c#63"
    theirs.sendall(b"+")
    assert gdb.stop_signal() is None
    theirs.sendall(b"$T05thread:01;")
    assert gdb.stop_signal() is None
    theirs.sendall(b"#07")
    assert gdb.stop_signal() == 5
    theirs.sendall(b"+$#00")
    with pytest.raises(BootError, match="cannot break at 0x5: it answers 'nothing'"):
        gdb.break_at(5, False)
    theirs.close()
    with pytest.raises(GdbGone):
        gdb.stop_signal()


def test_gdb_stops_a_guest_and_asks_the_monitor(pair):
    ours, theirs = pair
    gdb = Gdb(ours)
    theirs.sendall(b"$T02thread:01;#04")
    gdb.interrupt()
    assert theirs.recv(100) == b"\x03+"
    theirs.sendall(b"+$O4350#1b$O550a#4a$OK#9a")
    assert gdb.monitor("info cpus") == "CPU\n"
    assert theirs.recv(100).startswith(b"$qRcmd,696e666f2063707573#")
    theirs.sendall(b"+$#00")
    assert gdb.monitor("quit") == ""


def test_qmp_answers_events_and_errors(pair):
    ours, theirs = pair
    qmp = Qmp(ours)
    theirs.sendall(b'{"QMP": {}}\r\n{"return": {}}\r\n')
    qmp.negotiate()
    theirs.sendall(b'{"event": "RESUME"}\r\n{"return": "CPU"}\r\n')
    assert qmp.monitor("info registers") == "CPU"
    assert [event["event"] for event in qmp.events] == ["RESUME"]
    theirs.sendall(b'{"event": "STOP"}\r\n{"event": "SHUT')
    qmp.receive()
    theirs.sendall(b'DOWN"}\r\n{"event": "POWERDOWN"}\r\n')
    qmp.receive()
    assert [event["event"] for event in qmp.events] == ["RESUME", "STOP", "SHUTDOWN", "POWERDOWN"]
    theirs.sendall(b'{"error": {"class": "GenericError", "desc": "no such thing"}}\r\n')
    with pytest.raises(BootError, match="QEMU refuses pmemsave: no such thing"):
        qmp.command("pmemsave", val=0)
    theirs.close()
    with pytest.raises(QmpGone):
        qmp.command("stop")
