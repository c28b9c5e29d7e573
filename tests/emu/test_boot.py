"""Whole boots: the conformance guest and real kernels to their entry, on every engine."""

import hashlib
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from host import kvm_problem
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.reasons import CONSOLE, EXIT, HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh, x86
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MACHINES, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest, guest_file_name

# All that the firmware sets: cpuid leaves another processor's signature in eax, ecx and edx.
SAME_REGISTERS = ("ebx", "esp", "ebp", "esi", "edi", "eip", "eflags", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit")
LINUX_CMDLINE = "console=ttyS0 earlyprintk=ttyS0"


@pytest.fixture
def guest_plan(tmp_path):
    first, second = tmp_path / "initrd", tmp_path / "second"
    first.write_bytes(bytes(range(256)) * 40)
    second.write_bytes(b"second module")

    def plan(bits=64, memory=96 * MIB, blob=None, spec=BARE, dma=True):
        kernel = Kernel.from_bytes(default_guest(bits), "guest")
        modules = [Module(str(first)), Module(str(second), "its own line")] if spec is BARE else [Module(str(first))]
        rom = (blob or default_blob(spec)).data
        return make_plan(spec, rom, kernel, memory=memory, modules=modules, cmdline="hello world", dma=dma)

    return plan


HOSTS = pytest.mark.parametrize(
    ("spec", "dma"), [(BARE, True), (MICROVM, True), (MICROVM, False)], ids=["bare", "microvm", "microvm-pio"]
)


def run(plan, engine, until=HANDOFF, text="", blob=None, seconds=60.0):
    return boot(plan, blob or default_blob(plan.spec), get_engine(engine), Until(until, text), Limits(seconds=seconds))


def boot_json(capsys, *arguments):
    status = main(["boot", "--json", *map(str, arguments)])
    return status, json.loads(capsys.readouterr().out)


@HOSTS
@pytest.mark.parametrize("bits", [64, 32])
def test_the_conformance_guest_agrees(guest_plan, engine_name, bits, spec, dma):
    outcome = run(guest_plan(bits, spec=spec, dma=dma), engine_name, EXIT)
    said = outcome.console.decode()
    assert outcome.ok, said
    assert said.startswith(f"pvhguest 2 elf{bits}")
    assert re.search(r"^result ok\r?$", said, re.MULTILINE)
    assert "FAIL" not in said
    # What the guest saw with its own eyes is what the plan said.
    entries = [(int(a, 16), int(s, 16), int(t)) for a, s, t in re.findall(r"memmap \d+ addr=(\S+) size=(\S+) type=(\d+)", said)]
    assert entries == [tuple(entry) for entry in outcome.plan.memmap]
    modules = [(int(p, 16), int(s, 16)) for p, s in re.findall(r"module \d+ paddr=(\S+) size=(\S+)", said)]
    assert modules == [(module.paddr, module.payload.size) for module in outcome.plan.modules]
    assert '"hello world"' in said
    assert ('"its own line"' in said) == (spec is BARE)


@HOSTS
def test_all_engines_leave_the_same_bytes(guest_plan, spec, dma):
    if problem := kvm_problem():
        pytest.skip(problem)
    seen = {}
    for engine in ("unicorn", "kvm"):
        plan = guest_plan(spec=spec, dma=dma)
        captured = {}
        board = Board(plan, plan.memory())

        def on_handoff(handoff, captured=captured):
            memory = handoff.memory
            parts = [(0, spec.low.stack.start), (spec.low.stack.end, 0xF0000), (0xF0000, MIB)]
            captured["low"] = b"".join(memory.read(start, end - start) for start, end in parts)
            captured["tables"] = read_tables(handoff)
            captured["registers"] = {name: handoff.registers[name] for name in SAME_REGISTERS}
            captured["segments"] = {
                name: segment._replace(type=segment.type | 1)
                for name, segment in handoff.segments.items()
                if name in ("cs", "ds", "es", "ss")
            }
            captured["tr"] = handoff.segments["tr"]._replace(type=0)  # KVM shows the busy type, Unicorn the one before ltr

        get_engine(engine).run(board, Until(EXIT), Limits(), on_handoff)
        captured["log"] = board.bus.log
        captured["console"] = re.sub(rb"(?m)^reg .*$", b"", bytes(board.console))
        seen[engine] = captured
    for key, value in seen["unicorn"].items():
        assert value == seen["kvm"][key], key


def test_the_way_to_the_entry_is_short_on_microvm(guest_file, tmp_path):
    """The same of a boot with all that there can be: one look for DMA, and eleven transfers."""
    (tmp_path / "initrd").write_bytes(bytes(range(256)) * 40)
    with Kernel.open(str(guest_file("vmlinux-6.1"))) as kernel:
        plan = make_plan(
            MICROVM,
            default_blob(MICROVM).data,
            kernel,
            memory=512 * MIB,
            modules=[Module(str(tmp_path / "initrd"))],
            cmdline=LINUX_CMDLINE,
        )
        outcome = run(plan, "unicorn")
    assert outcome.ok
    counts = outcome.handoff.counts
    assert {kind: counts.get(kind, 0) for kind in ("in", "out", "read", "write")} == {"in": 1, "out": 11, "read": 0, "write": 0}
    assert counts["instructions"] <= 490


def test_the_way_to_the_entry_is_short():
    """Deterministic counts: no device access, and few instructions besides the copies of tables."""
    kernel = Kernel.from_bytes(default_guest(64), "guest")
    plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB)
    outcome = run(plan, "unicorn")
    counts = outcome.handoff.counts
    assert sum(counts.get(kind, 0) for kind in ("in", "out", "read", "write")) == 0
    # Each iteration of a rep counts as an instruction (and its end as one more): e820 entries, start_info, GDT.
    copies = len(plan.memmap) * (20 // 4) + 56 // 4 + 32 // 4
    assert counts["instructions"] - copies < 150


def test_a_boot_without_arguments_is_clean(capsys):
    status, data = boot_json(capsys)
    assert status == 0
    assert data["ok"] is True
    assert data["stop"]["reason"] == EXIT
    assert {finding["status"] for finding in data["findings"]} == {"ok"}
    assert {"engine", "stop", "handoff", "start_info", "memmap", "modules", "cmdline", "findings", "blob", "counts"} <= set(
        data
    )
    assert {"registers", "segments", "tr"} <= set(data["handoff"])


def test_boot_prints_console_and_check(capsys):
    assert main(["boot", "--append", "one two"]) == 0
    out = capsys.readouterr().out
    assert "pvhguest 2 elf64" in out
    assert "clauses of the PVH ABI are met" in out
    assert out.rstrip().splitlines()[-1].startswith("end: exit")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("memory", ["64M", "96M", "512M", "3G", "5G"])
def test_debian_kernel_reaches_its_entry(guest_file, engine_name, capsys, memory, machine):
    arguments = ["--engine", engine_name, "--machine", machine, "--memory", memory, "--append", LINUX_CMDLINE]
    status, data = boot_json(capsys, guest_file("vmlinux-6.1"), *arguments)
    assert status == 0, data["findings"]
    assert data["handoff"]["registers"]["eip"] == 0x1000850
    size = {"M": 1 << 20, "G": 1 << 30}[memory[-1]] * int(memory[:-1])
    spec = MACHINES[machine]
    no_ram = 0x60000 if spec.chipset else 0 if spec is BARE else 0x10000
    # On a PC the tables lie in front of 1 MiB, where RAM is nobody's; elsewhere in RAM.
    kinds = (pvh.MEMMAP_TYPE_RAM,) if spec.chipset else (pvh.MEMMAP_TYPE_RAM, pvh.MEMMAP_TYPE_ACPI)
    assert sum(entry["size"] for entry in data["memmap"] if entry["type"] in kinds) == size - no_ram
    assert {entry["type"] for entry in data["memmap"]} >= ({pvh.MEMMAP_TYPE_ACPI} if spec.acpi else set())


@pytest.mark.parametrize("name", ["grub-i386-xen_pvh.bin", "xen-shim"])
def test_other_pvh_images_reach_their_entry(guest_file, engine_name, capsys, name):
    status, data = boot_json(capsys, guest_file(name), "--engine", engine_name)
    assert status == 0, data["findings"]


def test_xen_hypervisor_is_refused(guest_file, capsys):
    assert main(["boot", str(guest_file("xen.gz"))]) == 2
    assert "PHYS32_ENTRY" in capsys.readouterr().err


def linux_view(memmap):
    """What Linux prints of a PVH memory map: it reserves 0xa0000-0xfffff, then sorts, splits and merges."""
    ranges = [*memmap, (0xA0000, 0x60000, pvh.MEMMAP_TYPE_RESERVED)]
    edges = sorted({edge for start, size, _ in ranges for edge in (start, start + size)})
    out = []
    for start, end in pairwise(edges):
        kinds = [kind for at, size, kind in ranges if at <= start and end <= at + size]
        if not kinds:
            continue
        kind = max(kinds)  # a reservation wins over RAM
        if out and out[-1][1] == start and out[-1][2] == kind:
            out[-1] = (out[-1][0], end, kind)
        else:
            out.append((start, end, kind))
    return out


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine_name", ["kvm"], indirect=True)
def test_debian_kernel_prints_the_planned_memory_map(guest_file, engine_name):
    with Kernel.open(str(guest_file("vmlinux-6.1"))) as kernel:
        plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=5 << 30, cmdline=LINUX_CMDLINE)
        outcome = run(plan, engine_name, CONSOLE, "last_pfn", seconds=300.0)
    said = outcome.console.decode(errors="replace")
    assert outcome.ok, said
    assert "Linux version 6.1" in said
    assert f"Command line: {LINUX_CMDLINE}" in said
    kinds = {"usable": pvh.MEMMAP_TYPE_RAM, "reserved": pvh.MEMMAP_TYPE_RESERVED}
    told = [
        (int(start, 16), int(end, 16) + 1, kinds[kind])
        for start, end, kind in re.findall(r"BIOS-e820: \[mem (0x\w+)-(0x\w+)\] (\w+)", said)
    ]
    assert told == linux_view([tuple(entry) for entry in plan.memmap])


STAGE = "docs/examples/hello-serial.s"


def test_the_custom_stage_example_prints(engine_name, tmp_path, pytestconfig, capsys):
    rom = tmp_path / "hello.bin"
    example = pytestconfig.rootpath / STAGE
    assert main(["build", "--stage", f"before-handoff={example}", "-o", str(rom)]) == 0
    assert main(["boot", "--firmware", str(rom), "--engine", engine_name]) == 0
    out = capsys.readouterr().out
    assert "hello from the firmware" in out
    assert out.index("hello from the firmware") < out.index("pvhguest 2")


def test_a_baked_rom_needs_nothing_but_the_kernel_in_memory(tmp_path, engine_name):
    """The ROM that --kernel fills boots without anybody writing its block again."""
    guest = tmp_path / guest_file_name("elf64")
    guest.write_bytes(default_guest(64))
    rom = tmp_path / "fw.bin"
    assert main(["build", "--kernel", str(guest), "--append", "baked in", "--memory", "96M", "-o", str(rom)]) == 0
    with Kernel.open(str(guest)) as kernel:
        plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=96 * MIB, cmdline="baked in")
        assert rom.read_bytes() == plan.rom
        plan = plan._replace(rom=rom.read_bytes())
        assert run(plan, engine_name, EXIT).ok


def test_the_manifest_of_a_baked_rom_is_about_that_rom(tmp_path):
    guest, rom, manifest = tmp_path / "guest", tmp_path / "fw.bin", tmp_path / "fw.json"
    guest.write_bytes(default_guest(64))
    assert main(["build", "--kernel", str(guest), "--append", "x", "-o", str(rom), "--manifest", str(manifest)]) == 0
    data = json.loads(manifest.read_text())
    assert data["rom"]["sha256"] == hashlib.sha256(rom.read_bytes()).hexdigest()
    assert data["boots"]["cmdline"] == "x"
    assert data["boots"]["kernel"]["entry"] == 0x100000


def test_output_that_cannot_be_written_is_one_line():
    code = "import sys; from pvhboot.emu.cli import main; sys.exit(main(['boot']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "pvhboot: cannot write the output: No space left on device\n")


def test_a_reader_that_goes_away_is_no_error_of_ours():
    code = "import sys; from pvhboot.emu.cli import main; sys.exit(main(['boot']))"
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" | head -n 1', sys.executable, code], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_unicorn_starts_in_the_reset_state(guest_plan):
    """The same constants as KVM's vCPU is compared with."""
    board = Board(plan := guest_plan(), plan.memory())
    machine = UnicornCpu(board, Limits())
    registers, state = machine.registers(), machine.handoff()
    assert machine.linear_ip() == x86.RESET_VECTOR
    wanted = {"eip": x86.RESET_IP, "cr0": x86.RESET_CR0, "eflags": x86.RESET_EFLAGS, "edx": x86.RESET_EDX, "gdtr_limit": 0xFFFF}
    zero = ("eax", "ebx", "ecx", "esi", "edi", "ebp", "esp", "cr3", "cr4", "efer", "gdtr_base")
    assert registers == {**wanted, **dict.fromkeys(zero, 0)}
    assert state.segments == {**dict.fromkeys(x86.SEGMENT_NAMES, x86.RESET_DATA), "cs": x86.RESET_CS, "tr": x86.RESET_TR}


def test_an_empty_block_is_a_named_panic(engine_name, guest_plan):
    blob = default_blob(BARE)
    plan = guest_plan()._replace(rom=blob.data)
    outcome = run(plan, engine_name)
    assert not outcome.ok
    assert outcome.run.stop.reason == "halt"
    assert outcome.post_codes == (0xE0,)
    assert outcome.debug_console == b"pvhboot panic 0xe0 NO_PARAMS: the ROM's parameter block is empty\n"


@HOSTS
def test_verbose_firmware_tells_its_phases(engine_name, guest_plan, spec, dma):
    blob = build(spec, verbose=True)
    outcome = run(guest_plan(blob=blob, spec=spec, dma=dma), engine_name, blob=blob)
    assert outcome.ok
    codes = (0x10, 0x20, 0x30, 0x38, 0x3E, 0x40, 0x60) if spec.mp_table else (0x10, 0x20, 0x30, 0x38, 0x40, 0x60)
    assert outcome.post_codes == codes
    lines = outcome.debug_console.decode().splitlines()
    assert [line[:13] for line in lines] == [f"pvhboot {code:#04x} " for code in codes]
    assert lines[-1] == "pvhboot 0x60 the handoff"


@HOSTS
def test_marks_of_the_boot_time(engine_name, guest_plan, spec, dma):
    blob = build(spec, marks=True)
    outcome = run(guest_plan(blob=blob, spec=spec, dma=dma), engine_name, blob=blob)
    assert outcome.ok
    marks = [(access.address, access.value) for access in outcome.accesses if access.address in (0xF4, 0xF5)]
    assert marks == [(0xF5, 1), (0xF4, 4)]
    plain = run(guest_plan(blob=default_blob(spec), spec=spec, dma=dma), engine_name)
    assert not [access for access in plain.accesses if access.address in (0xF4, 0xF5)]


@pytest.mark.parametrize("size", [0x20000, 0x40000, 0x1000000])
@HOSTS
def test_a_larger_rom_boots(engine_name, guest_plan, spec, dma, size):
    blob = build(spec, size=size)
    outcome = run(guest_plan(blob=blob, spec=spec, dma=dma), engine_name, EXIT, blob=blob)
    assert outcome.ok, outcome.console


def test_a_blob_of_bare_boots_on_microvm(engine_name):
    """It has its parameter block, and no use for fw_cfg; the map that it is given says the low copy of the ROM."""
    kernel = Kernel.from_bytes(default_guest(64), "guest")
    plan = make_plan(MICROVM, default_blob(BARE).data, kernel, memory=96 * MIB, cmdline="x")
    outcome = run(plan, engine_name, EXIT, blob=default_blob(BARE))
    assert outcome.ok, outcome.console
    assert sum(outcome.handoff.counts.get(kind, 0) for kind in ("in", "out", "read", "write")) == 0


QBOOT = Path("/usr/share/qemu/qboot.rom")
# pvhboot's check of it: no TR, no MTRRs, a memory map unsorted and one entry too long, rubbish in the module's entry.
QBOOT_DEFECTS = ["cpu.tr", "cpu.mtrr", "memmap.count", "memmap.entries", "memmap.sorted", "modules.entries"]


def test_a_foreign_firmware_boots_debian_on_microvm(guest_file, tmp_path):
    """qboot, with port accesses that this firmware never makes, does the same on both engines, and is found wanting."""
    if not QBOOT.is_file():
        pytest.skip(f"no {QBOOT}")
    if problem := kvm_problem():
        pytest.skip(problem)
    (tmp_path / "initrd").write_bytes(bytes(range(256)) * 40)
    logs = []
    for engine in ("unicorn", "kvm"):
        with Kernel.open(str(guest_file("vmlinux-6.1"))) as kernel:
            modules = [Module(str(tmp_path / "initrd"))]
            plan = make_plan(MICROVM, QBOOT.read_bytes(), kernel, memory=512 * MIB, modules=modules, cmdline=LINUX_CMDLINE)
            board, findings = Board(plan, plan.memory()), []
            run = get_engine(engine).run(
                board, Until(HANDOFF), Limits(), lambda handoff, plan=plan, out=findings: out.extend(check(handoff, plan))
            )
        assert run.stop.reason == HANDOFF
        assert [finding.clause for finding in findings if finding.status == VIOLATED] == QBOOT_DEFECTS
        logs.append(board.bus.log)
    assert logs[0] == logs[1]
    assert len(logs[0]) > 60


# Reads and writes of ports up to the entry, as QEMU counts them for the same kernel (see the facts on qboot).
QBOOT_PORTS = {"microvm-acpi": (58, 25), "pc": (111, 136), "q35": (112, 137)}


@pytest.mark.skipif(not QBOOT.is_file(), reason=f"no {QBOOT}")
@pytest.mark.parametrize(("machine", "counts"), QBOOT_PORTS.items(), ids=QBOOT_PORTS)
def test_a_foreign_firmware_finds_the_chipset_and_the_tables_of_qemu(guest_file, engine_name, tmp_path, machine, counts):
    (tmp_path / "initrd").write_bytes(bytes(1 << 20))
    with Kernel.open(str(guest_file("vmlinux-6.1"))) as kernel:
        modules = [Module(str(tmp_path / "initrd"))]
        plan = make_plan(
            MACHINES[machine], QBOOT.read_bytes(), kernel, memory=512 * MIB, modules=modules, cmdline=LINUX_CMDLINE
        )
        outcome = run(plan, engine_name)
    assert outcome.run.stop.reason == HANDOFF
    seen = outcome.handoff.counts
    assert (seen["in"], seen["out"]) == counts
    assert outcome.tables.start_info.rsdp_paddr
    assert "acpi.tables" not in [finding.clause for finding in outcome.findings if finding.status == VIOLATED]
    if MACHINES[machine].chipset:
        assert outcome.handoff.memory.read(0xF0000, 0x10000).count(b"_SM_") == 1  # SMBIOS's anchor, in what was ROM


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("    ud2\n", "fault"),
        ("    jmp handoff_here\n", "limit"),
        ("    mov al, 0xfe\n    out 0x64, al\n", "reset"),
        ("    mov al, 1\n    out 0x92, al\n", "reset"),
        ("    hlt\n", "halt"),
    ],
)
def test_a_run_that_goes_wrong_ends_with_a_report(code, reason, engine_name, guest_plan):
    sources = {"handoff.s": asm_source("handoff.s").replace("    mov ebx, START_INFO_PADDR\n", f"handoff_here:\n{code}")}
    blob = build(BARE, sources=sources)
    outcome = run(guest_plan(blob=blob), engine_name, blob=blob, seconds=1.0)
    assert not outcome.ok
    assert outcome.run.stop.reason == reason
    place = blob.locate(outcome.run.stop.rip)
    assert place is not None
    assert place.source.startswith("handoff.s:")


def test_limits_end_a_run(capsys):
    assert main(["boot", "--max-instructions", "50"]) == 1
    assert "limit: 50 instructions" in capsys.readouterr().out
    assert main(["boot", "--max-exits", "20"]) == 1
    assert "limit: 20 accesses" in capsys.readouterr().out


def test_ctrl_c_ends_a_run(engine_name, tmp_path):
    """An endless guest, interrupted from outside."""
    code = (
        "import os, signal, sys, threading\n"
        "from pvhboot.emu.cli import main\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"sys.exit(main(['boot', '--firmware', {str(tmp_path / 'loop.bin')!r}, '--engine', {engine_name!r}]))\n"
    )
    rom = bytearray(4096)
    rom[-16:-14] = b"\xeb\xfe"
    (tmp_path / "loop.bin").write_bytes(rom)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stderr == "pvhboot: interrupted\n"
    assert "end: interrupted: by Ctrl-C" in done.stdout
    assert "at 0xfffffff0" in done.stdout
