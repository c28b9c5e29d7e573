"""The symbols of a stripped Linux in use: where a boot stops, and what Linux itself says of them."""

import json
import stat
from hashlib import sha256

import pytest
from plain import CMDLINE, NIGHTLY, run
from pvhboot.emu.cli import main
from pvhboot.loader.cpio import Entry, archive
from pvhboot.loader.kernel import Kernel

STRIPPED = ("vmlinux-6.1", "vmlinux-6.12")

# Prints a digest of the functions of the kernel proper, and how many they are.
_INIT = r"""#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir /proc
$bb mount -t proc proc /proc
$bb awk 'NF == 3 && $2 ~ /[tTwW]/ {print $1, $3}' /proc/kallsyms | $bb sort > /functions
echo "functions $($bb sha256sum < /functions) $($bb wc -l < /functions)"
$bb reboot -f
"""


@pytest.mark.parametrize("name", STRIPPED)
def test_a_run_to_functions_in_the_order_in_which_linux_comes_to_them(name, guest_file, pvh):
    machine = pvh(kernel=guest_file(name), append="console=ttyS0")
    machine.run_until_handoff()
    assert str(machine.where) == "pvh_start_xen"
    machine.run_until("startup_64")
    assert machine.ip == machine.plan.kernel.elf_entry + machine.plan.moved_by
    machine.run_until("x86_64_start_kernel")
    machine.run_until("start_kernel")
    assert (machine.ip, str(machine.where)) == (machine.plan.kernel.symbol("start_kernel").vaddr, "start_kernel")
    assert machine.console == ""
    machine.run_until(console="Linux version")


def test_a_run_to_a_function_on_each_engine(guest_file, pvh, engine_name):
    machine = pvh(kernel=guest_file("vmlinux-6.1"), engine=engine_name)
    machine.run_until("x86_64_start_kernel")
    assert str(machine.where) == "x86_64_start_kernel"


def test_a_boot_that_stops_in_the_kernel_tells_its_function(guest_file, capsys):
    """It is zeroing its .bss by then, for millions of instructions."""
    line = ["boot", str(guest_file("vmlinux-6.1")), "--until", "exit", "--max-instructions", "20000"]
    assert main(line) == 1
    assert ", clear_bss+0x" in capsys.readouterr().out
    assert main([*line, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["stop"]["place"].startswith("clear_bss+0x")
    assert "x86_64_start_kernel" in {(one["place"] or "").partition("+")[0] for one in told["executed"]}


def test_a_trace_of_one_function(guest_file, capsys):
    line = ["trace", str(guest_file("vmlinux-6.1")), "--until", "console:Linux version", "--symbol", "x86_64_start_kernel"]
    assert main([*line, "--from", "x86_64_start_kernel", "--limit", "3", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["symbol"] for record in records if "symbol" in record] == ["x86_64_start_kernel"] * 3


if NIGHTLY:  # it takes half a minute

    @pytest.mark.usefixtures("plain_qemu")
    @pytest.mark.parametrize("name", ["vmlinux-6.1", "vmlinux-6.12"])
    def test_linux_itself_tells_the_same(name, guest_file, qboot, tmp_path):
        path = tmp_path / "initrd.cpio"
        entries = [
            *(Entry(directory, stat.S_IFDIR | 0o755) for directory in (b"bin", b"dev")),
            Entry(b"dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry(b"bin/busybox", stat.S_IFREG | 0o755, guest_file("busybox").read_bytes()),
            Entry(b"init", stat.S_IFREG | 0o755, _INIT.encode()),
        ]
        path.write_bytes(b"".join(archive(entries)))
        line = ["-M", "microvm,acpi=off", "-bios", qboot, "-kernel", guest_file(name), "-initrd", path, "-m", "512M"]
        said = run(*line, "-append", f"{CMDLINE} quiet nokaslr")
        with Kernel.open(guest_file(name)) as kernel:
            lines = sorted(f"{symbol.vaddr:016x} {symbol.name}\n" for symbol in kernel.symbols())
        assert f"functions {sha256(''.join(lines).encode()).hexdigest()}  - {len(lines)}" in said
