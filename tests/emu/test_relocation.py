"""Kernels that are moved, RAM that is reserved and modules by FreeBSD's rules: what a user types, on the engines."""

import json

import pytest
from forge_elf import entry_note, forge, load_segment
from host import kvm_problem, qemu_problem
from pvhboot.emu.cli import main
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.pvh import NOTE_NAME
from pvhboot.shim.elfwriter import note
from pvhboot.shim.machines import MACHINES, MIB, max_e820
from pvhboot.shim.stock import build_guest, default_guest

ASKING = [name for name, spec in MACHINES.items() if spec.source == FW_CFG]


@pytest.fixture
def relocatable(tmp_path):
    """A kernel of 64 bytes, linked at 1 MiB, that can run from any page on."""
    path = tmp_path / "relocatable"
    path.write_bytes(forge(notes=entry_note() + note(NOTE_NAME, 19, (0x1000).to_bytes(4, "little"))))
    return str(path)


def outcome(capsys, *arguments):
    """The exit status, and the outcome as JSON."""
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_moved_kernel_is_handed_over_where_it_is(capsys, engine_name, machine, relocatable):
    status, data = outcome(capsys, "boot", relocatable, "--machine", machine, "--engine", engine_name, "--base", "0x2345000")
    assert status == 0
    assert data["handoff"]["registers"]["eip"] == 0x2345001


def test_qemu_loads_a_moved_kernel_segment_by_segment(capsys, relocatable):
    if problem := qemu_problem():
        pytest.skip(problem)
    status, data = outcome(capsys, "boot", relocatable, "--engine", "qemu", "--base", "0x2345000")
    assert status == 0
    assert data["handoff"]["registers"]["eip"] == 0x2345001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "32M"], "is to run at 0x2000000, but QEMU loads a kernel where it is linked: use --machine bare"),
        (["--reserve", "1M@32M"], "QEMU's own fw_cfg tells what RAM there is: reserve some on --machine bare"),
        (["--memory", "65540K"], "QEMU takes no memory of 65540 KiB: it wants a multiple of 8 KiB"),
    ],
)
def test_what_qemus_machines_cannot_do(capsys, relocatable, options, message):
    if problem := qemu_problem():
        pytest.skip(problem)
    assert main(["boot", relocatable, "--machine", "microvm", "--engine", "qemu", *options]) == 2
    assert message in capsys.readouterr().err


# What a firmware that takes its map from fw_cfg could stumble over: little RAM in one range above 1 MiB, many, and RAM that is
# split in front of a kernel that is moved behind the gap.
EDGES = {
    "above-1m": ["--reserve", "1M@0x140000", "--base", "16M"],
    "many": [word for at in range(58) for word in ("--reserve", f"4K@{0x8000000 + at * 0x10000:#x}")],
    "behind-the-gap": ["--reserve", "16M@16M", "--reserve", "1M@2M"],
    "over-the-kernel": ["--reserve", "16M@15M"],
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("options", EDGES.values(), ids=EDGES)
def test_reserved_ram_and_a_moved_kernel_on_every_machine(capsys, engine_name, machine, options, tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(build_guest("reloc-4"))
    status, data = outcome(
        capsys, "boot", str(path), *options, "--machine", machine, "--engine", engine_name, "--until", "exit"
    )
    assert status == 0, data["stop"]
    assert data["console"].endswith("result ok\n")


def reserving(count):
    """So many pages, none beside another."""
    return [word for at in range(count) for word in ("--reserve", f"4K@{0x8000000 + at * 0x10000:#x}")]


@pytest.mark.parametrize("machine", ASKING)
def test_as_many_ranges_can_be_reserved_as_the_firmware_takes(capsys, machine):
    """121 entries in etc/e820: RAM in front of each of the 60, and behind the last."""
    status, data = outcome(capsys, "boot", "--machine", machine, *reserving(60))
    assert (status, data["stop"]["reason"]) == (0, "exit")


@pytest.mark.parametrize("machine", ASKING)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reserve", "4K@1M"], "cannot reserve 0x100000-0x101000: the firmware needs RAM from 0 to above 1 MiB"),
        (["--reserve", "4K@0x80000"], "cannot reserve 0x80000-0x81000: the firmware needs RAM from 0 to above 1 MiB"),
        (reserving(61), "the firmware takes {}, so"),
    ],
    ids=["at-1m", "below-1m", "too-many"],
)
def test_what_cannot_be_reserved_from_a_firmware_that_asks_fw_cfg(capsys, relocatable, machine, options, message):
    assert main(["plan", relocatable, "--machine", machine, "--base", "16M", *options]) == 2
    assert message.format(max_e820(MACHINES[machine])) in capsys.readouterr().err


@pytest.mark.parametrize("machine", MACHINES)
def test_the_guest_finds_ram_that_is_reserved(capsys, engine_name, machine):
    status, data = outcome(capsys, "boot", "--machine", machine, "--engine", engine_name, "--reserve", "16M@32M")
    assert status == 0
    assert [entry for entry in data["memmap"] if entry["addr"] == 32 * MIB] == [
        {"addr": 32 * MIB, "size": 16 * MIB, "type": 2, "reserved": 0}
    ]


def test_a_kernel_goes_around_what_is_reserved(capsys, relocatable):
    assert main(["boot", relocatable, "--reserve", "4K@0x100000"]) == 0
    assert "(ELF64, entry 0x101001, moved to 0x101000) on bare" in capsys.readouterr().out
    assert main(["plan", relocatable, "--reserve", "4K@0x100000"]) == 0
    out = capsys.readouterr().out
    assert "moved from 0x100000 to 0x101000, as its PHYS32_RELOC note allows" in out
    assert "0x000000100000-0x000000100fff  RAM              4 KiB  reserved" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "1000"], "cannot read --base '1000': write 0x2000000 or 32M"),
        (["--base", "0x10000000000000"], "--base 0x10000000000000: no physical address is that large"),
        (["--reserve", "4K"], "cannot read --reserve '4K': write 16M@0x2000000, a size and an address"),
        (["--reserve", "4K@x"], "cannot read the address of --reserve 'x': write 0x2000000 or 32M"),
        (["--reserve", "x@1M"], "cannot read the memory size 'x'"),
        (["--base", "0x100800"], "cannot run at 0x100800"),
    ],
)
def test_addresses_that_cannot_be_are_refused_in_one_line(capsys, relocatable, options, message):
    assert main(["boot", relocatable, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pvhboot: ")
    assert message in error
    assert error.count("\n") == 1


def least_memory(more=0):
    """What the conformance guest needs and `more` KiB, of as many as QEMU takes."""
    end = Kernel.from_bytes(default_guest(64), "guest").end
    return f"{-(-end // 8192) * 8 + more}K"


@pytest.mark.parametrize("memory", [least_memory(), "64G", "1T"])
def test_from_the_least_memory_to_the_most(capsys, memory):
    status, data = outcome(capsys, "boot", "--memory", memory)
    assert (status, data["stop"]["value"]) == (0, 0)


@pytest.mark.parametrize("memory", [least_memory(), "64G"])
def test_from_the_least_memory_to_much_on_kvm(capsys, engine_name, memory):
    status, data = outcome(capsys, "boot", "--engine", engine_name, "--memory", memory)
    assert (status, data["stop"]["value"]) == (0, 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_least_memory_is_as_qemu_has_it(capsys, machine):
    """Where ACPI tables have to lie in RAM they need some too."""
    tables = 64 if machine == "microvm-acpi" else 0
    if problem := qemu_problem():
        pytest.skip(problem)
    status, data = outcome(capsys, "boot", "--machine", machine, "--engine", "qemu", "--memory", least_memory(tables))
    assert (status, data["stop"]["value"]) == (0, 0)


def test_a_kernel_below_1_mib_needs_less(capsys, tmp_path):
    path = tmp_path / "low"
    path.write_bytes(forge(loads=[load_segment(0x28000, memsz=0x1000)], notes=entry_note(0x28001)))
    assert main(["boot", str(path), "--memory", "164K"]) == 0
    capsys.readouterr()
    assert main(["boot", str(path), "--memory", "160K"]) == 2
    assert "160 KiB of memory: RAM is 0x0-0x28000; give at least --memory 164K" in capsys.readouterr().err


def test_a_module_is_not_loaded_over_qemus_copy_of_the_rom(capsys, tmp_path):
    if problem := qemu_problem():
        pytest.skip(problem)
    (tmp_path / "module").write_bytes(b"x")
    options = ["--memory", least_memory(), "--module", f"{tmp_path / 'module'},x"]
    assert main(["boot", *options]) == 0
    capsys.readouterr()
    assert main(["boot", *options, "--engine", "qemu"]) == 2
    assert "lies where QEMU has a copy of the ROM: use the engine unicorn or kvm" in capsys.readouterr().err


def test_compare_goes_on_without_an_engine_that_cannot(capsys, relocatable):
    if problem := qemu_problem() or kvm_problem():
        pytest.skip(problem)
    assert main(["compare", relocatable, "--machine", "q35", "--base", "32M"]) == 0
    out = capsys.readouterr().out
    assert "qemu     not run: " in out
    assert "the same on unicorn and kvm: every access to a device" in out


@pytest.mark.parametrize("option", [["--base", "32M"], ["--reserve", "1M@32M"], ["--guest", "freebsd"]])
def test_build_without_a_kernel_takes_nothing_of_what_to_boot(capsys, tmp_path, option):
    assert main(["build", "-o", str(tmp_path / "rom"), *option]) == 2
    assert capsys.readouterr().err == f"pvhboot: {option[0]} says what to boot: it needs --kernel\n"


def test_freebsds_modules_follow_the_kernel(capsys, engine_name, relocatable, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 1500)
    options = [word for name in ("one", "two") for word in ("--module", f"{tmp_path / name},line of {name}")]
    status, data = outcome(capsys, "boot", relocatable, "--guest", "freebsd", "--engine", engine_name, *options)
    assert status == 0
    modules = data["modules"]
    assert [(module["paddr"], module["size"], module["cmdline"]) for module in modules] == [
        (0x102000, 4500, "line of one"),
        (0x104000, 4500, "line of two"),
    ]
    assert main(["boot", relocatable, "--guest", "freebsd", "--initrd", str(tmp_path / "one")]) == 2
    assert "a module without a command line, as Linux's initrd is" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["unicorn", "kvm", "qemu"])
def test_debians_kernel_is_moved_and_prints_its_banner(capsys, guest_file, engine):
    """6.12 carries the note."""
    problems = {"unicorn": lambda: None, "kvm": kvm_problem, "qemu": qemu_problem}
    if problem := problems[engine]():
        pytest.skip(problem)
    arguments = [str(guest_file("vmlinux-6.12")), "--engine", engine, "--append", "earlyprintk=ttyS0,115200", "--base", "128M"]
    status, data = outcome(capsys, "boot", *arguments, "--until", "console:Linux version 6.12")
    assert status == 0
    assert 0x8000000 <= data["handoff"]["registers"]["eip"] < 0x8200000
