"""What the README shows is what one gets."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from host import kvm_problem, qemu_problem
from initramfs import initramfs
from pvhboot.emu.cli import main
from pvhboot.shim.guest_library import LIBRARY

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture
def with_guests(guest_file, tmp_path, monkeypatch):
    (tmp_path / "vmlinuz").symlink_to(guest_file("vmlinuz-6.1"))
    (tmp_path / "initrd.cpio").write_bytes(initramfs(guest_file("busybox")))
    monkeypatch.chdir(tmp_path)


def shown_output(number):
    """A command that the README shows with its output, and that output."""
    blocks = re.findall(r"^```\n\$ pvhboot (.*?)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    command, output = blocks[number]
    return shlex.split(command), output


@pytest.mark.usefixtures("with_guests")
def test_the_first_output_is_true(capsys):
    if problem := kvm_problem() or qemu_problem():
        pytest.skip(problem)
    command, output = shown_output(0)
    assert main(command) == 0
    assert capsys.readouterr().out == output


@pytest.mark.usefixtures("with_guests")
def test_what_is_shown_of_qboot_is_true(capsys):
    command, output = shown_output(1)
    if not Path(command[-1]).is_file():
        pytest.skip(f"no {command[-1]}")
    assert main(command) == 1
    head, tail = output.split("…\n")
    assert not head
    assert capsys.readouterr().out.endswith(tail)


def test_what_is_shown_of_a_kernel_is_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["guests", "-o", "guests"]) == 0
    capsys.readouterr()
    command, output = shown_output(2)
    assert main(command) == 0
    said = capsys.readouterr().out
    at = 0
    for part in output.split("…\n"):
        at = said.index(part, at) + len(part)
    refused = sum(bool(guest.reason) for guest in LIBRARY)
    assert f"{len(LIBRARY) - refused} that must boot and {refused} that must be refused" in README


def test_the_counts_in_qemu_are_true_and_do_not_grow(guest_file, tmp_path):
    """The table of the section Cost, measured anew: QEMU counts, so that the numbers are the same on every machine."""
    if problem := qemu_problem():
        pytest.skip(problem)
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(initramfs(guest_file("busybox")))
    line = [sys.executable, "bench/firmware_cost.py", str(guest_file("vmlinux-6.1")), "--initrd", str(initrd)]
    line += ["--no-seabios", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    rows = json.loads(done.stdout)
    table = re.findall(r"^\| `([\w-]+)`, ([\w ]+) \| (\d+) \| (\d+) \| (\d+) \|$", README, re.MULTILINE)
    shown = [(machine, firmware, *map(int, numbers)) for machine, firmware, *numbers in table]
    accesses = [row["port_accesses"] + row["memory_accesses"] for row in rows]
    assert shown == [
        (row["machine"], row["firmware"], row["instructions"], count, row["rom_bytes"])
        for row, count in zip(rows, accesses, strict=True)
    ]
    most = {"microvm": (480, 12), "microvm-acpi": (2550, 14), "pc": (9800, 24), "q35": (12_200, 26)}
    for row, count in zip(rows, accesses, strict=True):
        if row["firmware"] == "pvhboot":
            assert (row["instructions"], count) <= most[row["machine"]]
            assert count <= most[row["machine"]][1]


@pytest.mark.usefixtures("with_guests")
def test_the_python_example_runs():
    example = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert example is not None
    exec(compile(example.group(1), "README.md", "exec"), {})


def test_the_figures_are_true(capsys):
    assert main(["boot"]) == 0
    count = re.search(r"after (\d+) instructions, 0 device accesses", capsys.readouterr().out)
    assert count is not None
    assert f"it is {count.group(1)} instructions" in README
