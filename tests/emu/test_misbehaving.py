"""Guests that do what no guest should: each run ends by itself, with a reason, a place and the CPU's state, and takes no more
time and memory than it was given."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from host import kvm_problem, qemu_problem
from pvhboot.emu import kept
from pvhboot.emu.board import Board
from pvhboot.emu.bus import LOG_LIMIT
from pvhboot.emu.cli import main
from pvhboot.emu.diagnosis import diagnose
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT, FAULT, HALT, LIMIT, RESET
from pvhboot.emu.report.as_json import outcome_to_json
from pvhboot.emu.report.text import outcome_text
from pvhboot.emu.session import boot, boot_board, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import BARE, GIB, MIB, MICROVM
from pvhboot.shim.stock import default_blob
from tiny import PADDR, assembled, kernel_image

SECONDS = 0.3  # that a run is given which ends in no other way
PATIENCE = 20.0  # that it is given else
GRACE = 20.0  # seconds more, on a machine that does ten other things: far less than an end that never comes
REPORT_BYTES = 40_000

PAGING = "mov cr3, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\na: jmp a"
IDT = """
    mov esp, 0x1000000
    mov eax, offset h
    mov word ptr [{gate}], ax
    shr eax, 16
    mov word ptr [{gate} + 6], ax
    mov word ptr [{gate} + 2], cs
    mov word ptr [{gate} + 4], 0x8e00
    lidt [p]
h:  mov esp, 0x1000000
    ud2
p:  .word {limit}
    .long 0x200000
"""

# By name: what it executes at the kernel's entry, and how the run ends.
GUESTS = {
    "triple-fault": ("lidt [p]\nud2\np: .long 0, 0", FAULT),
    "page-tables-of-zeros": (f"mov eax, 0x200000\n{PAGING}", FAULT),
    "page-tables-nowhere": (f"mov eax, 0xd0000000\n{PAGING}", FAULT),
    "page-tables-in-a-circle": (
        f"mov edi, 0x200000\nmov eax, 0x200003\nmov ecx, 1024\nrep stosd\nmov eax, 0x200000\n{PAGING}",
        FAULT,
    ),
    "jump-to-no-memory": ("mov eax, 0xd0000000\njmp eax", FAULT),
    "jump-to-a-device": ("mov eax, 0xfee00000\njmp eax", FAULT),
    "bad-segment": ("mov ax, 0xffff\nmov ds, ax", FAULT),
    "null-stack-segment": ("xor eax, eax\nmov ss, ax", FAULT),
    "far-jump-to-null": (".byte 0xea\n.long 0\n.word 0", FAULT),
    "task-register-twice": ("mov ax, 8\nltr ax", FAULT),
    "division-by-zero": ("xor ecx, ecx\ndiv ecx", FAULT),
    "halt-for-ever": ("cli\nhlt", HALT),
    "halt-that-nothing-ends": ("sti\na: hlt\njmp a", HALT),
    "reset": ("mov al, 0xfe\nout 0x64, al\na: jmp a", RESET),
    "loop": ("cli\na: jmp a", LIMIT),
    "loop-with-interrupts-on": ("sti\na: jmp a", LIMIT),
    "copies-for-ever": ("a: mov esi, 0x200000\nmov edi, 0x900000\nmov ecx, 0x700000\nrep movsb\njmp a", LIMIT),
    "copies-4-gib": ("mov esi, 0x200000\nmov edi, 0x1200000\nmov ecx, 0xffffffff\nrep movsb\na: jmp a", LIMIT),
    "handler-that-faults": (IDT.format(gate=0x200030, limit=0x7FF), LIMIT),
    "double-fault-that-faults": (IDT.format(gate=0x200040, limit=0x47), LIMIT),
    "prints-for-ever": ("mov dx, 0x3f8\nmov al, 0x78\na: out dx, al\njmp a", LIMIT),
    "debug-console-for-ever": ("mov dx, 0x402\nmov al, 0x78\na: out dx, al\njmp a", LIMIT),
    "post-codes-for-ever": ("a: out 0x80, al\ninc eax\njmp a", LIMIT),
    "writes-over-the-rom": ("a: mov edi, 0xfffff000\nmov ecx, 0x400\nrep stosd\njmp a", LIMIT),
    "stores-to-nowhere": ("a: mov edi, 0xd0000000\nmov ecx, 0xffffff\nrep stosd\njmp a", LIMIT),
    "loads-from-nowhere": ("a: mov eax, [0xd0000000]\njmp a", LIMIT),
    "reads-a-port": ("a: mov edi, 0x200000\nmov ecx, 0x100000\nmov dx, 0x1234\nrep insb\njmp a", LIMIT),
    "writes-a-port": ("a: mov esi, 0x200000\nmov ecx, 0x100000\nmov dx, 0x1234\nrep outsb\njmp a", LIMIT),
    "changes-its-own-code": ("a: inc byte ptr [b + 1]\nb: mov al, 0\njmp a", LIMIT),
    "stack-at-0": ("xor esp, esp\na: call a", LIMIT),
    "apic-elsewhere": ("mov ecx, 0x1b\nmov eax, 0x200900\nxor edx, edx\nwrmsr\na: mov eax, [0x200000]\njmp a", LIMIT),
}
# Of those, where QEMU has it otherwise: an interrupt may come at any time to a machine that has some; where no memory is it
# finds zeros, and those are instructions.
ON_QEMU = {
    "halt-that-nothing-ends": LIMIT,
    "jump-to-no-memory": LIMIT,
    "jump-to-a-device": LIMIT,
}
FEW_ON_QEMU = ("triple-fault", "halt-for-ever", "loop", "handler-that-faults", "prints-for-ever", "stores-to-nowhere", *ON_QEMU)
SOME = (
    "triple-fault",
    "halt-for-ever",
    "halt-that-nothing-ends",
    "loop",
    "loop-with-interrupts-on",
    "copies-4-gib",
    "double-fault-that-faults",
    "prints-for-ever",
    "stores-to-nowhere",
    "changes-its-own-code",
)

# A ROM by what it executes at its reset vector, and how the run ends: none of them gets to the kernel.
ROMS = {
    "loop": (b"\xeb\xfe", LIMIT),
    "call-itself": (b"\xe8\xfd\xff", LIMIT),
    "copy-4-gib": (b"\x66\xb9\xff\xff\xff\xff\xf3\xa4\xeb\xfe", LIMIT),
    "halt": (b"\xf4", HALT),
}


def resident(which):
    """Bytes of this process: VmRSS what it has, VmHWM the most that it has had."""
    found = re.search(rf"^{which}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def outcome_of(source, engine, spec=BARE, memory=32 * MIB, limits=None):
    """The end of a guest; what it comes to as text and as JSON, with the likely cause; how long all of that has taken."""
    blob, until, limits = default_blob(spec), Until(EXIT), limits or Limits(seconds=SECONDS)
    engine = get_engine(engine)
    Path("/proc/self/clear_refs").write_text("5")  # the most is what it has now (Linux Documentation/filesystems/proc.rst)
    before = resident("VmRSS")
    with Kernel.from_bytes(kernel_image(assembled(source)), "guest") as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=memory, host_reserved=engine.host_reserved(spec, memory))
        started = time.monotonic()
        outcome = boot(plan, blob, engine, until, limits)
        diagnosis = diagnose(outcome, engine, until, limits, Board(plan))
        text = outcome_text(outcome, False, diagnosis)
        data = outcome_to_json(outcome, diagnosis)
        spent = time.monotonic() - started
    assert resident("VmHWM") - before < GIB
    return outcome, text, data, spent


def require_reported(outcome, text, data, spent, reason):
    stop = outcome.run.stop
    assert (stop.reason, outcome.ok) == (reason, False), stop
    assert stop.rip is not None
    assert outcome.clean == (outcome.engine != "qemu" or outcome.handoff is not None)
    assert f"end: {reason}: " in text
    assert f"  at {stop.rip:#x}" in text
    assert "the CPU then:" in text or outcome.engine == "qemu"
    assert len(text) < REPORT_BYTES
    assert data["stop"]["reason"] == reason
    assert spent < 2 * SECONDS + GRACE


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_ends_with_a_report(name, engine_name):
    source, reason = GUESTS[name]
    seconds = SECONDS if reason == LIMIT else PATIENCE
    require_reported(*outcome_of(source, engine_name, limits=Limits(seconds=seconds)), reason)


@pytest.mark.parametrize("name", FEW_ON_QEMU)
def test_a_guest_ends_with_a_report_on_qemu(name):
    if problem := qemu_problem():
        pytest.skip(problem)
    source, reason = GUESTS[name]
    reason = ON_QEMU.get(name, reason)
    seconds = 1.0 if reason == LIMIT else PATIENCE
    require_reported(*outcome_of(source, "qemu", MICROVM, limits=Limits(seconds=seconds)), reason)


@pytest.mark.parametrize("name", SOME)
def test_a_guest_ends_on_a_board_with_interrupts(name, engine_name):
    """Also where the kernel's own interrupt controller has it that a halted CPU does not come back."""
    source, reason = GUESTS[name]
    if (name, engine_name) == ("halt-that-nothing-ends", "kvm"):
        reason = LIMIT  # nobody but the guest knows whether its timers will ever do something
    blob, limits = default_blob(BARE), Limits(seconds=SECONDS if reason == LIMIT else PATIENCE)
    with Kernel.from_bytes(kernel_image(assembled(source)), "guest") as kernel:
        board = Board(make_plan(BARE, blob.data, kernel, memory=32 * MIB), interrupts=True)
        started = time.monotonic()
        outcome = boot_board(board, blob, get_engine(engine_name), Until(EXIT), limits)
    assert (outcome.run.stop.reason, outcome.clean) == (reason, True), outcome.run.stop
    assert time.monotonic() - started < limits.seconds + GRACE


@pytest.mark.parametrize("name", ROMS)
def test_a_firmware_that_never_gets_to_the_kernel(name, engine_name):
    code, reason = ROMS[name]
    blob = Blob(b"\xf4" * 0xFFF0 + code.ljust(16, b"\xf4"), {}, (), {})
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        plan = make_plan(MICROVM, blob.data, kernel, memory=32 * MIB)
        outcome = boot(plan, blob, get_engine(engine_name), Until("handoff"), Limits(seconds=SECONDS))
    assert (outcome.run.stop.reason, outcome.handoff) == (reason, None)
    assert f"end: {reason}: " in outcome_text(outcome, False)


def test_accesses_are_limited_as_well(engine_name):
    outcome, text, _, _ = outcome_of(GUESTS["prints-for-ever"][0], engine_name, limits=Limits(exits=3000, seconds=60.0))
    assert outcome.run.stop.detail == "3000 accesses to devices have been made"
    assert sum(outcome.run.counts[kind] for kind in ("in", "out", "read", "write") if kind in outcome.run.counts) == 3000
    assert "end: limit: 3000 accesses" in text


def test_what_is_kept_of_endless_accesses_and_output_is_bounded(monkeypatch):
    """The limits are made small: what is told is that they hold."""
    monkeypatch.setattr("pvhboot.emu.bus.LOG_LIMIT", 1000)
    monkeypatch.setattr(kept, "PRINTED", 512)
    monkeypatch.setattr(kept, "CODES", 16)
    source = """
        mov ebx, 2000
    a:  mov dx, 0x3f8
        mov al, 0x78
        out dx, al
        mov dx, 0x402
        out dx, al
        out 0x80, al
        dec ebx
        jnz a
        cli
        hlt
    """
    outcome, text, data, _ = outcome_of(source, "unicorn", limits=Limits(seconds=60.0))
    assert outcome.run.stop.reason == HALT
    assert len(outcome.accesses) == 1000 < outcome.run.counts["out"]
    for printed in (outcome.console, outcome.debug_console):
        assert 512 <= len(printed) < 2 * 512
        assert printed.startswith(kept.FORGOTTEN)
        assert printed.endswith(b"xxx")
    assert 16 <= len(outcome.post_codes) < 32
    assert "POST codes: " in text
    assert len(json.dumps(data)) < 2 * REPORT_BYTES


def test_what_is_kept_of_a_debug_console_is_bounded_on_qemu_too(monkeypatch):
    if problem := qemu_problem():
        pytest.skip(problem)
    monkeypatch.setattr(kept, "PRINTED", 512)
    source = "mov ecx, 5000\nmov dx, 0x402\nmov al, 0x78\na: out dx, al\nloop a\ncli\nhlt"
    outcome, *_ = outcome_of(source, "qemu", MICROVM, limits=Limits(seconds=PATIENCE))
    assert 512 <= len(outcome.debug_console) < 2 * 512
    assert outcome.debug_console.startswith(kept.FORGOTTEN)


def test_the_limits_are_those_of_the_page_on_limits():
    """docs/limits.md says these numbers."""
    assert (LOG_LIMIT, kept.PRINTED, kept.CODES) == (250_000, 4 * MIB, 4096)


def test_a_long_line_is_cut_in_the_report():
    outcome, text, data, _ = outcome_of(
        "mov ecx, 5000\nmov dx, 0x402\nmov al, 0x78\na: out dx, al\nloop a\ncli\nhlt", "unicorn", limits=Limits(seconds=60.0)
    )
    assert max(len(line) for line in text.splitlines()) < 600
    assert data["debug_console"] == "x" * 5000 == outcome.debug_console.decode()


def test_a_transfer_of_4_gib_ends_with_the_run(engine_name):
    """fw_cfg's DMA fills memory with zeros behind the end of an item; the descriptor is big-endian: read, 3 GiB, to 2 MiB."""
    transfer = """
        mov dword ptr [0x180000], 0x02000000
        mov dword ptr [0x180004], 0x000000a0
        mov dword ptr [0x180008], 0
        mov dword ptr [0x18000c], 0x00002000
        mov eax, 0x00001800
    a:  mov dx, 0x518
        out dx, eax
        jmp a
    """
    blob = default_blob(MICROVM)
    with Kernel.from_bytes(kernel_image(assembled(transfer)), "guest") as kernel:
        board = Board(make_plan(MICROVM, blob.data, kernel, memory=4 * GIB))
        outcome = boot_board(board, blob, get_engine(engine_name), Until(EXIT), Limits(seconds=SECONDS))
    assert outcome.run.stop.reason == LIMIT
    assert int.from_bytes(board.memory.read(0x180000, 4), "big") == 1  # the transfer that was cut short has failed
    assert board.memory.read(0x200000, 1 * MIB) == bytes(1 * MIB)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_command_says_it_in_order_and_leaves_with_1(tmp_path, capsys, more, engine_name):
    path = tmp_path / "guest"
    path.write_bytes(kernel_image(assembled(GUESTS["triple-fault"][0])))
    arguments = ["boot", str(path), "--engine", engine_name, "--memory", "32M", "--until", "exit", "--timeout", "5", *more]
    assert main(arguments) == 1
    said, complained = capsys.readouterr()
    assert complained == ""
    if more:
        stop = json.loads(said)["stop"]
        assert (stop["reason"], stop["rip"]) == (FAULT, PADDR + 7)
    else:
        assert "end: fault: " in said
        assert "triple fault" in said


@pytest.mark.parametrize("size", ["2T", "100T", "99999999999999G"])
@pytest.mark.parametrize("engine", ["unicorn", "kvm", "qemu"])
def test_gigantic_memory_is_one_line(tmp_path, capsys, size, engine):
    if engine == "kvm" and (problem := kvm_problem()):
        pytest.skip(problem)
    path = tmp_path / "guest"
    path.write_bytes(kernel_image())
    assert main(["boot", os.fspath(path), "--engine", engine, "--memory", size]) == 2
    said, complained = capsys.readouterr()
    assert (said, complained.count("\n")) == ("", 1)
    assert complained.startswith("pvhboot: ")
