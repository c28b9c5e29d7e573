"""Boots that a real gdb drives, in batch mode."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from importlib import resources

import pytest
from debugging import ENTRY, EXIT_7, PATIENCE, gdb_boot, kernel_of
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Until, Watch
from pvhboot.emu.gdb.engine import waiting_text
from pvhboot.emu.reasons import EXIT, HANDOFF
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob, default_guest

pytestmark = pytest.mark.usefixtures("gdb")

SCRIPT = resources.files("pvhboot.emu.gdb").joinpath("pvhboot.gdb")
SOURCES = resources.files("pvhboot.shim").joinpath("asm")
BLOB = default_blob(BARE)
SPIN = b"\xeb\xfe"
MAIN = "import sys; from pvhboot.emu.cli import main; sys.exit(main(sys.argv[1:]))"
SERVER = [sys.executable, "-c", MAIN, "boot", "--gdb", "0", "--json"]


def line_of(label):
    """File and line of the instruction at a label."""
    return BLOB.locate(BLOB.symbols[label]).source


def next_instruction(printed):
    """What `x/i $pc` has said, one after the other."""
    return re.findall(r"^=> (.*)$", printed, re.MULTILINE)


def test_a_boot_by_symbols_and_lines(engine_name):
    """The symbols come with the connection: nobody has named a file. gdb makes a step to get past the breakpoint at the last
    instruction, and stops at the kernel's first one all the same."""
    printed, outcome = gdb_boot(
        [
            "x/i $pc",
            "break protected_mode",
            f"break {line_of('handoff')}",
            "continue",
            "info line *$pc",
            "continue",
            "bt 1",
            "continue",
            "print/x $ebx",
            "x/3wx $ebx",
            "detach",
        ],
        script=SCRIPT,
        arguments=["-d", SOURCES],
        engine=engine_name,
        cmdline="hello",
    )
    assert f"reset_vector () at {line_of('reset_vector')}" in printed
    assert "jmp real_mode" in printed  # the source line
    assert re.match(r"0xfffffff0 <reset_vector>:\s+jmp    0xffff8000 <real_mode>", next_instruction(printed)[0])
    assert f"Breakpoint 1, protected_mode () at {line_of('protected_mode')}" in printed
    file, line = line_of("protected_mode").split(":")
    assert f'Line {line} of "{file}" starts at address 0xffff8018 <protected_mode>' in printed
    assert f"Breakpoint 2, handoff () at {line_of('handoff')}" in printed
    assert f"#0  handoff () at {line_of('handoff')}" in printed
    assert f"handoff: the kernel's first instruction, at {ENTRY:#x}, is next" in printed
    assert "27 of 27 clauses" in printed
    ebx = outcome.handoff.registers["ebx"]
    assert f"$1 = {ebx:#x}" in printed
    assert f"{ebx:#x}:\t0x336ec578\t0x00000001\t0x00000000" in printed
    assert "hook" not in printed
    assert "warning: A" not in printed
    assert (outcome.run.stop.reason, outcome.ok) == (HANDOFF, True)


def test_stepping_across_the_mode_switch(engine_name):
    """The far jump is decoded as 16-bit code, and what it jumps to as 32-bit code."""
    printed, _ = gdb_boot(
        [
            "stepi 4",
            "x/i $pc",
            "print $cpu_bits",
            "stepi",
            "x/i $pc",
            "print $cpu_bits",
            "print $cr0",
            "info registers cs_limit",
            "kill",
        ],
        script=SCRIPT,
        engine=engine_name,
    )
    before, after = next_instruction(printed)
    assert re.match(r"0xffff8010 <real_mode\+16>:\s+ljmpl\s+\$0x10,\$0xffff8018", before)
    assert re.match(r"0xffff8018 <protected_mode>:\s+mov\s+\$0x18,%eax", after)
    assert "$1 = 16" in printed
    assert "$2 = 32" in printed
    assert "$3 = [ PE ET NW CD ]" in printed or "$3 = [ PE ET ]" in printed
    assert "pvhboot: 32-bit code from here on" in printed


def test_a_kernels_symbols_and_its_end(engine_name, tmp_path):
    kernel = tmp_path / "kernel"
    kernel.write_bytes(default_guest(32))
    printed, outcome = gdb_boot(
        [
            f"add-symbol-file {kernel}",
            "break survey_start_info",
            "continue",  # to the handoff
            "continue",
            "bt 1",
            "continue",
            "x/i $pc",
            "continue",
        ],
        script=SCRIPT,
        kernel=default_guest(32),
        engine=engine_name,
        until=Until(EXIT),
    )
    assert "in survey_start_info ()" in printed
    assert "pvhboot: end: exit: the guest left with 0" in printed
    assert next_instruction(printed)
    assert "exited normally" in printed
    assert "Error while running hook_stop" not in printed
    assert outcome.ok


def test_a_watchpoint_finds_the_line_that_writes_the_magic(engine_name):
    """x86 tells of a store when it is done: gdb shows the line behind it."""
    printed, outcome = gdb_boot(
        ["watch *(unsigned *)0x6000", "continue", "monitor where", "delete", "detach"], script=SCRIPT, engine=engine_name
    )
    assert "Hardware watchpoint 1: *(unsigned *)0x6000\n\nOld value = 0\nNew value = 862897528" in printed
    if engine_name == "unicorn":
        (place,) = re.findall(
            r"^pvhboot: \w+\+\w+ \((start_info.s:\d+)\) stores 0x336ec578 \(4 bytes\) to 0x6000$", printed, re.M
        )
        number = int(place.split(":")[1])
        assert "HVM_START_INFO_MAGIC" in (SOURCES / "start_info.s").read_text().splitlines()[number - 1]
    else:
        assert "0x6000 has changed from 00 00 00 00 to 78 c5 6e 33" in printed
    assert outcome.ok


def test_what_is_written_has_effect(engine_name):
    """A register and memory: the check finds both changed."""
    printed, outcome = gdb_boot(
        ["break handoff", "continue", "set $esi = 0x1234", "set var *(unsigned *)0x6004 = 0", "continue", "detach"],
        script=SCRIPT,
        engine=engine_name,
    )
    assert outcome.handoff.registers["esi"] == 0x1234
    assert outcome.tables.start_info.version == 0
    assert "violated      start_info.fields     version 0: Linux stops" in printed
    assert not outcome.ok


@pytest.mark.parametrize("command", ["set $cs = 8", "set var *(int *)0xfffffff0 = 0", "print *(int *)0xe0000000"])
def test_what_cannot_be_is_refused_and_the_boot_goes_on(command):
    printed, outcome = gdb_boot([command, "detach"], script=SCRIPT)
    assert re.search("Could not write register|Cannot access memory", printed)
    assert outcome.ok


def test_monitor_check_and_io():
    printed, _ = gdb_boot(
        ["monitor check", "continue", "continue", "monitor io 1", "monitor nonsense", "kill"],
        script=SCRIPT,
        kernel=kernel_of(EXIT_7),
    )
    assert "not at the entry 0x100000: as if this were the handoff" in printed
    assert "violated      entry.eip             eip is 0xfff0" in printed
    assert "     1  out   0x501 <- 0x07  debug-exit" in printed
    assert "no monitor command 'nonsense': there is check, io, where, info, help" in printed


def test_into_64_bit_code_and_on(engine_name):
    """mov eax, cr4; or eax, PAE; …: the shortest way into long mode, with page tables that lie in the kernel."""
    code = long_mode_kernel()
    printed, outcome = gdb_boot(
        [
            f"break *{ENTRY + code.index(MOV_RAX):#x}",
            "continue",
            "continue",
            "x/i $pc",
            "stepi",
            "print/x $rax",
            "print $efer",
            "set $r9 = 0x1122334455667788",
            "stepi",
            "print/x $r10",
            "kill",
        ],
        script=SCRIPT,
        kernel=kernel_of(code),
        engine=engine_name,
    )
    assert "pvhboot: 64-bit code from here on" in printed
    assert re.match(r"0x\w+:\s+movabs \$0x123456789abcdef0,%rax", next_instruction(printed)[0])
    assert "$1 = 0x123456789abcdef0" in printed
    assert "$2 = [ LME LMA ]" in printed
    assert "$3 = 0x1122334455667788" in printed
    assert outcome.run.stop.reason == HANDOFF


MOV_RAX = bytes.fromhex("48b8 f0debc9a78563412")  # mov rax, 0x123456789abcdef0


def long_mode_kernel():
    """Code that enters 64-bit mode with the first 2 MiB of memory mapped where they are, behind it the tables."""
    tables = ENTRY + 0x1000
    gdt = ENTRY + 0x800
    code = bytes.fromhex("0f20e0 83c820 0f22e0")  # CR4.PAE
    code += b"\xb8" + tables.to_bytes(4, "little") + bytes.fromhex("0f22d8")  # CR3
    code += bytes.fromhex("b9800000c0 0f32 0d00010000 0f30")  # EFER.LME
    code += bytes.fromhex("0f0115") + (gdt + 16).to_bytes(4, "little")  # lgdt
    code += bytes.fromhex("0f20c0 0d00000080 0f22c0")  # CR0.PG
    code += b"\xea" + (ENTRY + len(code) + 7).to_bytes(4, "little") + b"\x08\x00"  # a far jump to what follows
    code += MOV_RAX + bytes.fromhex("4d89ca") + SPIN  # mov r10, r9
    page = bytearray(0x4000)
    page[: len(code)] = code
    page[0x800:0x818] = bytes(8) + (0x00209B0000000000).to_bytes(8, "little") + b"\x0f\0" + gdt.to_bytes(4, "little") + b"\0\0"
    for at, entry in ((0x1000, tables + 0x1003), (0x2000, tables + 0x2003), (0x3000, 0x83)):
        page[at : at + 8] = entry.to_bytes(8, "little")
    return bytes(page)


class Interrupter:
    """A Watcher that sends SIGINT to a gdb as soon as the kernel's code is executed."""

    def __init__(self):
        self.gdb = None

    def start(self, _cpu, _board):
        return Watch(instruction=self._executed)

    def _executed(self, address, _size):
        if address == ENTRY and self.gdb is not None:
            self.gdb.send_signal(signal.SIGINT)
            self.gdb = None


def test_ctrl_c_in_gdb(engine_name):
    """As a terminal sends it, to a gdb that waits for an endless loop."""
    interrupter = Interrupter()
    printed, outcome = gdb_boot(
        ["continue", "continue", "x/i $pc", "kill"],
        script=SCRIPT,
        kernel=kernel_of(SPIN),
        engine=engine_name,
        watchers=[interrupter],
        on_start=lambda gdb: setattr(interrupter, "gdb", gdb),
    )
    assert "Program received signal SIGINT" in printed
    assert re.match(r"0x100000:\s+jmp    0x100000", next_instruction(printed)[0])
    assert outcome.ok


def test_without_the_script_gdb_is_told_what_to_type():
    code = long_mode_kernel()
    printed, _ = gdb_boot(
        [f"break *{ENTRY + code.index(MOV_RAX):#x}", "continue", "continue", "stepi", "stepi", "kill"], kernel=kernel_of(code)
    )
    assert printed.count("gdb still takes it for 16-bit code: source pvhboot.gdb, or type `unset tdesc filename`") == 1


def test_the_line_that_is_printed_works(tmp_path):
    """What `boot --gdb` says is typed as it stands."""
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = server.stderr.readline()
            typed = said.partition(" in another terminal: ")[2]
            done = subprocess.run(
                [*shlex.split(typed), "-nx", "-batch", "-ex", "list", "-ex", "detach"],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
            out, err = server.communicate(timeout=PATIENCE)
        finally:
            server.kill()
    assert "jmp real_mode" in done.stdout
    assert (server.returncode, err) == (0, "")
    assert json.loads(out)["ok"]


def test_ctrl_c_where_the_server_waits_ends_it():
    """As a terminal sends it to pvhboot, before any gdb has come."""
    with subprocess.Popen(SERVER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert "target remote 127.0.0.1:" in server.stderr.readline()
            server.send_signal(signal.SIGINT)
            assert server.communicate(timeout=PATIENCE) == ("", "pvhboot: interrupted\n")
        finally:
            server.kill()
    assert server.returncode == 128 + signal.SIGINT


def test_a_firmware_without_symbols_takes_an_elf_file(tmp_path, capsys):
    rom, elf = tmp_path / "a.bin", tmp_path / "a.elf"
    assert main(["build", "--machine", "bare", "-o", str(rom), "--elf", str(elf)]) == 0
    capsys.readouterr()
    blob = Blob(rom.read_bytes(), {}, (), {})
    assert "name its ELF file" in waiting_text(1234, blob)
    printed, _ = gdb_boot(["break handoff", "continue", "kill"], script=SCRIPT, arguments=[elf], blob=blob)
    assert f"Breakpoint 1, handoff () at {line_of('handoff')}" in printed


def test_a_stage_has_lines_too():
    """Of a firmware that was just built, with assembly of the user's in it."""
    stage = make_stage("before-handoff", "mine.s", "# Clobbers: eax\n.code32\n    mov eax, 5\n    ret\n")
    printed, _ = gdb_boot(["break mine.s:3", "continue", "stepi", "p $eax", "kill"], script=SCRIPT, blob=build(BARE, [stage]))
    assert "stage_before_handoff () at mine.s:3" in printed
    assert "$1 = 5" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gdb", "--engine", "qemu"], "--gdb is for the engines unicorn and kvm: QEMU has a gdb server of its own (-s -S)"),
        (["--gdb", "vmlinux"], "argument --gdb: vmlinux is no port: write 0 to 65535, and KERNEL before --gdb"),
        (["--gdb", "65536"], "argument --gdb: 65536 is no port"),
        (["--gdb", "-1"], "argument --gdb: -1 is no port"),
    ],
)
def test_bad_arguments_are_one_line(arguments, words, capsys):
    try:
        status = main(["boot", *arguments])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_busy_port_is_one_line(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["boot", "--gdb", str(port), "--json"]) == 2
    assert capsys.readouterr().err == (
        f"pvhboot: cannot wait for gdb on 127.0.0.1:{port}: somebody has it; name another port, or 0 for any\n"
    )
