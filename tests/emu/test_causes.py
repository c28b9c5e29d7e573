"""Why a boot failed is said, and said rightly: of each broken firmware the cause, of one that boots none."""

import json

import pytest
from host import qemu_problem
from mutant_boot import boot_mutant, kernel_image
from pvhboot.emu.board import Board
from pvhboot.emu.causes.scene import scene_of, scene_of_outcome
from pvhboot.emu.causes.table import likely_causes
from pvhboot.emu.cli import main
from pvhboot.emu.diagnosis import diagnose, watcher
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.names import KVM, UNICORN
from pvhboot.emu.lab.astray import ASTRAY
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.x86 import CR0_PE
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, FIRMWARES, MACHINES, MIB, PC, Span
from pvhboot.shim.stock import default_blob, default_guest

# A loop, or a way through all of RAM, is ended soon.
LIMITS = {UNICORN: Limits(instructions=20_000), KVM: Limits(seconds=0.3)}

NOT_SWAPPED = "a number of fw_cfg's directory was not swapped"
LACKS_ONE = "the memory map lacks one entry"
ONE_TOO_MANY = "memmap_entries counts one entry too many"
STORES_TO_ROM = "the firmware stores to its own ROM"
NEVER_FETCHED = "the initrd was never fetched"
TITLES = {
    "bare-cs-limit-without-g": "the segment in cs ends at 1 MiB: its descriptor lacks the G bit",
    "bare-cs-16-bit": "the kernel would run as 16-bit code: the code segment's descriptor lacks the D bit",
    "bare-es-limit-without-g": "the segment in es ends at 1 MiB: its descriptor lacks the G bit",
    "bare-cs-not-readable": "the code segment cannot be read: its descriptor lacks the R bit",
    "bare-tr-missing": "TR was never loaded",
    "bare-tss-limit-one-short": "the TSS in TR has the limit 0x66",
    "bare-cd-nw-left-set": "the caches are left off: CR0.CD and NW are still set",
    "bare-cr4-pse": "bits of CR4 are left set: PSE",
    "bare-interrupts-on": "interrupts are left on",
    "bare-mtrr-left-uncached": "the memory type is left at uncached: the MTRRs were not set up",
    "bare-ebx-clobbered": "ebx does not point to start_info",
    "bare-magic-wrong": "start_info has the wrong magic",
    "bare-version-0": "start_info says version 0",
    "bare-memmap-count-one-too-many": ONE_TOO_MANY,
    "bare-memmap-count-one-too-few": LACKS_ONE,
    "bare-start-info-at-0": "start_info lies at 0",
    "bare-start-info-in-rom": "ebx does not point to start_info",
    "bare-store-to-rom": STORES_TO_ROM,
    "bare-cmdline-dropped": "the command line is not handed over",
    "bare-kernel-overwritten": "the kernel is overwritten",
    "bare-gdt-one-byte-short": "the GDT's limit is too small for selector 0x18",
    "bare-tss-out-of-the-gdt": "the GDT's limit is too small for selector 0x8",
    "microvm-file-size-not-swapped": NOT_SWAPPED,
    "microvm-file-count-not-swapped": NOT_SWAPPED,
    "microvm-file-key-not-swapped": "a key of fw_cfg was not swapped",
    "microvm-dma-register-not-swapped": "the address in fw_cfg's DMA register was not swapped",
    "microvm-dma-address-not-swapped": "the address in a DMA descriptor was not swapped",
    "microvm-dma-never-started": "the DMA transfer of fw_cfg is never started",
    "microvm-dma-error-ignored": NEVER_FETCHED,
    "microvm-pio-moves-the-pointer": "the firmware has stopped itself: NO_FW_CFG",
    "microvm-file-not-selected": "a file of fw_cfg is read without being selected",
    "microvm-memmap-count-one-too-many": ONE_TOO_MANY,
    "microvm-memmap-unsorted": "the memory map is not sorted by address",
    "microvm-low-rom-as-ram": "the memory map says RAM where none is: 0xf0000-0x100000",
    "microvm-rom-left-out": LACKS_ONE,
    "microvm-ram-from-0-left-there": "the firmware has stopped itself: E820_OVERLAP",
    "microvm-ram-from-0-not-cut": "the memory map says RAM where none is: 0x100000-0xc0100000",
    "microvm-store-to-rom": STORES_TO_ROM,
    "microvm-store-to-low-rom": STORES_TO_ROM,
    "microvm-cmdline-one-too-far": "cmdline_paddr points one byte into the command line",
    "microvm-cmdline-size-as-its-address": "cmdline_paddr holds the size of the command line",
    "microvm-initrd-size-forgotten": "the firmware has stopped itself: INITRD_RAM",
    "microvm-initrd-not-told": "the initrd is not handed over",
    "microvm-initrd-not-fetched": NEVER_FETCHED,
    "microvm-initrd-a-byte-short": "the initrd is cut off: one byte is missing",
    "microvm-modlist-rest-not-cleared": "the rest of the module list is never cleared",
    "microvm-initrd-over-the-kernel": "the kernel is overwritten",
    "microvm-initrd-above-4-gib-cut": "the initrd is not where the host says",
    "microvm-acpi-tables-in-the-ram-as-well": "the ACPI tables lie in what the memory map calls RAM",
    "q35-pam-left-as-it-was": "fw_cfg has refused a DMA transfer",
    "q35-ecam-left-out": LACKS_ONE,
    "q35-video-memory-as-ram": "the memory map says RAM where none is: 0x0-0xf0000",
    "q35-rsdp-not-told": "the ACPI tables are not handed over",
}


def mutant_name(mutant):
    return f"{mutant.machine.name}-{mutant.name}"


def test_of_each_mutant_it_is_known_what_is_to_be_said():
    assert set(TITLES) == {mutant_name(mutant) for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_name)
def test_the_likeliest_cause_of_a_mutant(mutant, engine_name, tmp_path):
    causes = boot_mutant(mutant, engine_name, tmp_path, LIMITS[engine_name], diagnosed=True).diagnosis.causes
    assert causes[0].title == TITLES[mutant_name(mutant)]
    assert all(cause.why and cause.evidence and cause.remedy for cause in causes)


ASTRAY_ON = [
    pytest.param(engine, case, id=f"{engine}-{case.mutant.name}")
    for engine in (UNICORN, KVM)
    for case in ASTRAY
    if engine == UNICORN or case.on_kvm is not None
]


@pytest.mark.parametrize(("engine_name", "case"), ASTRAY_ON, indirect=["engine_name"])
def test_the_likeliest_cause_of_what_has_gone_astray(case, engine_name, tmp_path):
    causes = boot_mutant(case.mutant, engine_name, tmp_path, LIMITS[engine_name], diagnosed=True).diagnosis.causes
    assert causes[0].title == ((engine_name == KVM and case.on_kvm) or case.title)
    assert all(cause.why and cause.evidence and cause.remedy for cause in causes)


# A KVM makes a step of each instruction, and by port there are many.
CLEAN_ON = [
    pytest.param(engine, spec, dma, id=f"{engine}-{spec.name}-{'dma' if dma else 'pio'}")
    for engine in (UNICORN, KVM)
    for spec in MACHINES.values()
    for dma in (True, False)
    if engine == UNICORN or dma
]


@pytest.mark.parametrize(("engine_name", "spec", "dma"), CLEAN_ON, indirect=["engine_name"])
def test_of_a_clean_boot_nothing_is_said(spec, dma, engine_name, tmp_path):
    (tmp_path / "initrd").write_bytes(b"module" * 100)
    blob, engine = default_blob(spec), get_engine(engine_name)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        modules = [Module(str(tmp_path / "initrd"))]
        plan = make_plan(spec, blob.data, kernel, memory=128 * MIB, modules=modules, cmdline="hello", dma=dma)
        recent = watcher(plan, blob, None)
        outcome = boot(plan, blob, engine, Until(HANDOFF), Limits(seconds=20.0), watchers=[recent])
        assert outcome.ok
        assert recent.history().executed
        assert likely_causes(scene_of_outcome(outcome, recent.history())) == []
        assert diagnose(outcome, engine, Until(HANDOFF), Limits(), None).causes == ()


def causes_of(plan, blob, engine_name=UNICORN):
    engine, until, limits = get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0)
    outcome = boot(plan, blob, engine, until, limits)
    return diagnose(outcome, engine, until, limits, Board(plan)).causes


def test_an_address_is_not_taken_for_a_number_of_the_directory(tmp_path):
    """0x100000 is 0x1000, the size of a file, with its bytes turned; but the directory was read long before."""
    (tmp_path / "initrd").write_bytes(b"module")
    source = asm_source("fw_cfg_kernel.s")
    checked = "    add edx, dword ptr [KERNEL_SIZE_PADDR]\n    cmp eax, edx\n    jb initrd_over_kernel\n"
    assert source.count(checked) == 1
    blob = build(PC, sources={"fw_cfg_kernel.s": source.replace(checked, "    cmp eax, edx\n    ja initrd_over_kernel\n")})
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(PC, blob.data, kernel, memory=64 * MIB, modules=[Module(str(tmp_path / "initrd"))])
        assert causes_of(plan, blob)[0].title == "the firmware has stopped itself: INITRD_KERNEL"


def test_start_info_in_memory_that_is_reserved():
    copied = "    mov esi, START_INFO_PADDR\n    mov edi, 0x2000000\n    mov ecx, SIZEOF_HVM_START_INFO / 4\n    rep movsd\n"
    handoff = "    mov ebx, START_INFO_PADDR\n"
    source = asm_source("handoff.s").replace(handoff, copied + "    mov ebx, 0x2000000\n")
    blob = build(BARE, sources={"handoff.s": source})
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        reserved = [Span("reserved", 0x2000000, 0x2100000)]
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB, cmdline="hello", reserved=reserved)
        cause = causes_of(plan, blob)[0]
    assert cause.title == "start_info lies where it must not"
    assert "memory that is reserved" in cause.why


BUILT_FOR_BARE = "the firmware is built for the machine bare, and asks no fw_cfg"


@pytest.mark.parametrize("spec", [spec for spec in MACHINES.values() if spec.acpi], ids=lambda spec: spec.name)
def test_a_firmware_for_bare_where_fw_cfg_has_acpi_tables(spec, engine_name):
    blob = default_blob(BARE)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=64 * MIB, cmdline="hello")
        (cause,) = causes_of(plan, blob, engine_name)
    assert (cause.title, cause.clauses) == (BUILT_FOR_BARE, ("acpi.tables",))
    assert f"--machine {spec.name}," in cause.remedy
    assert "0xffff0000" in cause.evidence[0]


def test_a_firmware_of_the_machine_that_tells_of_no_tables_is_not_taken_for_one_for_bare(tmp_path):
    mutant = next(mutant for mutant in MUTANTS if mutant_name(mutant) == "q35-rsdp-not-told")
    causes = boot_mutant(mutant, UNICORN, tmp_path, diagnosed=True).diagnosis.causes
    assert BUILT_FOR_BARE not in [cause.title for cause in causes]


@pytest.mark.parametrize("spec", [spec for spec in FIRMWARES.values() if spec.source == FW_CFG], ids=lambda spec: spec.name)
def test_a_firmware_for_qemu_on_bare(spec, engine_name):
    blob = default_blob(spec)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        (cause,) = causes_of(make_plan(BARE, blob.data, kernel, memory=64 * MIB), blob, engine_name)
    assert cause.title == "the firmware has stopped itself: NO_FW_CFG"
    assert cause.remedy.startswith("bare has no fw_cfg")
    assert "--machine q35" in cause.remedy


def test_a_device_that_the_machine_does_not_have():
    spec = BARE._replace(unclaimed="stop")
    blob = build(BARE, sources={"flat32.s": asm_source("flat32.s").replace("    cld\n", "    mov edx, 0x511\n    in al, dx\n")})
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)._replace(spec=spec)
        assert causes_of(plan, blob)[0].title == "the firmware wants a device that the machine bare does not have"


def test_an_instruction_that_this_kvm_lacks(tmp_path):
    """On KVM in software an end of its own; here told of the end of another run."""
    mutant = next(case.mutant for case in ASTRAY if case.mutant.name == "ud2")
    outcome = boot_mutant(mutant, UNICORN, tmp_path).outcome
    stop = outcome.run.stop._replace(detail="KVM cannot emulate an instruction (internal error, suberror 1)")
    outcome = outcome._replace(run=outcome.run._replace(stop=stop))
    cause = diagnose(outcome, get_engine(UNICORN), Until(HANDOFF), Limits(), None).causes[0]
    assert cause.title == "this KVM does not execute the instruction"
    assert cause.evidence[0].endswith(": ud2")


# Of qboot, where it switches to protected mode (Debian's 8ca302e): what is replaced, by what, and what is said then.
QBOOT = {
    "an lgdt of 24 bits": (
        b"\x2e\x66\x0f\x01\x16",
        b"\x90\x2e\x0f\x01\x16",
        "lgdt has loaded only 24 bits of the GDT's address",
    ),
    "no far jump": (
        b"\x66\xea\xac\xff\xff\xff\x08\x00\x66\xb8",
        b"\x90\x90\x90\x90\x90\x90\x90\x90\x66\xb8",
        "no far jump after CR0.PE was set",
    ),
    "the caches left off": (b"\x66\x25\xff\xff\xff\x9f\x0c\x01", b"\x66\x25\xff\xff\xff\xff\x0c\x01", "CR0.CD and NW"),
}


@pytest.mark.parametrize("what", QBOOT)
def test_a_foreign_firmware_without_symbols(what, qboot, engine_name, tmp_path, capsys):
    old, new, said = QBOOT[what]
    rom = qboot.read_bytes()
    if rom.count(old) != 1:
        pytest.skip(f"{qboot} is another qboot")
    (tmp_path / "broken.rom").write_bytes(rom.replace(old, new))
    (tmp_path / "guest").write_bytes(kernel_image())
    arguments = ["boot", str(tmp_path / "guest"), "--machine", "microvm", "--firmware", str(tmp_path / "broken.rom")]
    assert main([*arguments, "--engine", engine_name, "--json"]) == 1
    titles = [cause["title"] for cause in json.loads(capsys.readouterr().out)["causes"]]
    assert any(said in title for title in titles)
    assert said in titles[0] or what == "the caches left off"  # qboot's own faults are told, too


@pytest.mark.parametrize(
    "name",
    ["bare-cd-nw-left-set", "bare-magic-wrong", "bare-ebx-clobbered", "bare-gdt-one-byte-short", "microvm-initrd-not-told"],
)
def test_under_qemu_the_end_alone_tells(name, tmp_path):
    if problem := qemu_problem():
        pytest.skip(problem)
    mutant = next(mutant for mutant in MUTANTS if mutant_name(mutant) == name)
    causes = boot_mutant(mutant, "qemu", tmp_path, diagnosed=True).diagnosis.causes
    assert causes[0].title == TITLES[name]


def test_a_cpu_that_a_test_has_driven_is_looked_at_too():
    mutant = next(mutant for mutant in MUTANTS if mutant_name(mutant) == "bare-gdt-one-byte-short")
    blob = build(BARE, sources=mutant.sources())
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        board = Board(make_plan(BARE, blob.data, kernel, memory=64 * MIB))
        with get_engine(UNICORN).cpu(board, Limits()) as cpu:
            assert cpu.run_to(lambda _at: bool(cpu.registers()["cr0"] & CR0_PE))
            assert likely_causes(scene_of(cpu, board, blob)) == []
            assert not cpu.run_to(())
            assert likely_causes(scene_of(cpu, board, blob))[0].title == TITLES[mutant_name(mutant)]


def test_the_report_names_the_cause_first_and_is_short(tmp_path, capsys):
    blob = build(BARE, sources=next(case.mutant for case in ASTRAY if case.mutant.name == "divide-by-zero").sources())
    (tmp_path / "broken.rom").write_bytes(blob.data)
    assert main(["boot", "--firmware", str(tmp_path / "broken.rom"), "--memory", "64M"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    marks = ["end: fault: #DE", "likely cause: #DE (divide error)", "the CPU then:", "the last instructions:"]
    places = [next(at for at, line in enumerate(lines) if line.startswith(mark)) for mark in marks]
    assert places == sorted(places)
    assert "  protected mode, 32-bit code, paging off" in lines
    assert "div ecx" in lines[-1]


def test_of_a_boot_behind_the_handoff_the_end_is_diagnosed(capsys, tmp_path):
    image = bytearray(kernel_image())
    at = image.index(b"\xf4" * 16)
    image[at : at + 2] = b"\x0f\x0b"
    (tmp_path / "guest").write_bytes(image)
    assert main(["boot", str(tmp_path / "guest"), "--until", "exit", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["causes"][0]["title"] == "#UD (invalid opcode), and nobody handles it"
    assert said["executed"][-1]["text"] == "ud2"
    assert said["stop"]["code"].startswith("0f0b")
    assert said["stop"]["segments"]["cs"]["db"] is True
