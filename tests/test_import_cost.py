"""What a cold `pvhboot boot` waits for: which modules it imports. Each costs 0.1 ms at least, and some much more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from host import kvm_problem
from pvhboot.shim.stock import default_guest

# What a boot that goes well has no use for, though it could easily come in by an import at the head of a module.
UNUSED = {
    *("capstone", "elftools", "keystone", "unicorn"),
    *(
        "bz2",
        "dataclasses",
        "datetime",
        "decimal",
        "email",
        "hashlib",
        "importlib.resources",
        "inspect",
        "json",
        "logging",
        "lzma",
    ),
    *("pathlib", "platform", "random", "shutil", "socket", "subprocess", "tempfile", "threading", "urllib", "uuid", "zipfile"),
}
# Of pvhboot's own, in a boot on KVM with the kernel in the cache. Raise it only for what such a boot needs.
OWN_MAX = 88
OWN_UNUSED = (
    *("pvhboot.loader.codecs", "pvhboot.loader.elf", "pvhboot.loader.recording", "pvhboot.shim.listing"),
    *("pvhboot.emu.chipset", "pvhboot.emu.diagnosis", "pvhboot.emu.disassembly", "pvhboot.emu.devices.fw_cfg"),
)
BOOT = """
import os, sys
from pvhboot.emu.cli import main
import pvhboot.emu.engines.base as base

at_handoff = []  # what has come in when the kernel's first instruction is next
drive = base.drive

def noting(cpu, board, until, on_handoff, **how):
    def noted(handoff):
        at_handoff.extend(sys.modules)
        on_handoff(handoff)

    return drive(cpu, board, until, noted, **how)

base.drive = noting
out, sys.stdout = sys.stdout, open(os.devnull, "w")
status = main(sys.argv[1:])
print(*at_handoff, file=out)
print(*sys.modules, file=out)
sys.exit(status)
"""


@pytest.fixture
def kvm() -> None:
    """Skips where there is none."""
    if problem := kvm_problem():
        pytest.skip(problem)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """The conformance guest as a file."""
    path = tmp_path / "vmlinux"
    path.write_bytes(default_guest(64))
    return path


def imported(*arguments: str, cache: Path) -> tuple[set[str], set[str]]:
    """The modules in a process that boots: up to the handoff, and up to its end."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", BOOT, "boot", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    at_handoff, at_end = (set(line.split()) for line in done.stdout.splitlines())
    return at_handoff, at_end


@pytest.mark.usefixtures("kvm")
def test_a_cold_boot_on_kvm_imports_what_it_uses(kernel, tmp_path):
    arguments = ("--engine", "kvm", "--until", "handoff", str(kernel))
    first, _ = imported(*arguments, cache=tmp_path / "cache")
    assert "elftools" in first  # the kernel is met for the first time: else the next boot would show nothing
    at_handoff, at_end = imported(*arguments, cache=tmp_path / "cache")
    assert not UNUSED & at_end
    assert not set(OWN_UNUSED) & at_end
    assert sum(name.startswith("pvhboot.") for name in at_end) <= OWN_MAX
    behind = {"pvhboot.emu.clauses", "pvhboot.emu.boot_clauses", "pvhboot.emu.cpu_clauses", "pvhboot.emu.report.text"}
    assert behind <= at_end - at_handoff


@pytest.mark.parametrize("command", ["boot", "trace", "vary", "build", "initrd"])
def test_only_the_subcommand_that_is_asked_for_has_a_parser(command):
    code = (
        "import argparse, sys\nfrom pvhboot.emu.arguments import parse\nmade = []\ninit = argparse.ArgumentParser.__init__\n"
        "def noted(self, *a, **how):\n    made.append(how['prog'])\n    init(self, *a, **how)\n"
        "argparse.ArgumentParser.__init__ = noted\n"
        "try: parse(sys.argv[1:])\nexcept SystemExit: pass\nprint(made)"
    )
    command_line = [sys.executable, "-c", code, command, "--help"]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"['pvhboot {command}']"
