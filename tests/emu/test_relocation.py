"""Kernels that are moved, RAM that is reserved and modules by FreeBSD's rules: what a user types, on the engines."""

import json

import pytest
from forge_elf import entry_note, forge, load_segment
from host import kvm_problem, qemu_problem
from pvhboot.emu.cli import main
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.pvh import NOTE_NAME
from pvhboot.shim.elfwriter import note
from pvhboot.shim.machines import MACHINES, MIB
from pvhboot.shim.stock import default_guest


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
    assert main(["boot", str(path), "--memory", "176K"]) == 0
    capsys.readouterr()
    assert main(["boot", str(path), "--memory", "172K"]) == 2
    assert capsys.readouterr().err == "pvhboot: 172 KiB of memory: the machine bare takes 176 KiB to 1 TiB\n"


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
