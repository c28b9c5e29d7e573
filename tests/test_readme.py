"""What the README shows is what one gets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import PATIENCE, check
from host import qemu_problem
from initramfs import initramfs
from pvhboot.emu.cli import main
from pvhboot.shim.guest_library import LIBRARY

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.timeout(PATIENCE)
def test_it_is_true(tmp_path):
    check("README.md", tmp_path)


def test_the_guests_are_as_many_as_it_says():
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


def test_the_figures_are_true(capsys):
    assert main(["boot"]) == 0
    count = re.search(r"after (\d+) instructions, 0 device accesses", capsys.readouterr().out)
    assert count is not None
    assert f"it is {count.group(1)} instructions" in README
