"""From the start of a process to the kernel's first instruction: pvhboot on KVM, and QEMU with qboot.

    python bench/start_to_handoff.py vmlinux [--rounds N] [--boots N]

Each measurement is a process of its own, all of them interleaved; printed are medians, and the lowest in parentheses. The clock
is CLOCK_MONOTONIC, read right before a process is made. It is stopped in two ways:

- By pvhboot itself, which says when it had stopped the guest at the kernel's entry, and how long each phase before that took.
- From outside, alike for all: a copy of the kernel has its code at the entry replaced by a program that prints `@` and a line
  feed on COM1, and stops. What counts is when the two bytes come out of the process. (By then pvhboot has checked the handoff,
  too, and has made interrupt controllers: what is let run beyond the handoff is taken for an operating system.)

The last rows are of one process that boots the same kernel again and again by the Python API: opened, planned, placed, run to
the handoff, checked. QEMU is the one on the PATH, its firmware Debian's qboot. Times are of this machine, and noisy; where
others use it meanwhile, `chrt -f 20 python bench/start_to_handoff.py …` (by root) has them all wait.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final

from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.devices import COM1_PORT

MEMORY: Final = "512M"
QEMU: Final = "qemu-system-x86_64"
QBOOT: Final = "/usr/share/qemu/qboot.rom"
PVHBOOT: Final = os.path.join(os.path.dirname(sys.executable), "pvhboot")
MARK: Final = b"@\n"
BARE: Final = "a Python that does nothing, to its end"
QEMU_KVM: Final = "QEMU with qboot on KVM"

# 32-bit code: mov dx, COM1_PORT; then for each byte mov al, BYTE; out dx, al; then hlt; jmp to the hlt.
PROGRAM: Final = (
    b"\x66\xba" + COM1_PORT.to_bytes(2, "little") + b"".join(b"\xb0%c\xee" % byte for byte in MARK) + b"\xf4\xeb\xfd"
)

WARM: Final = """
import json, sys, time
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.session import boot, get_engine
from pvhboot.emu.stats import Stats
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob

path, engine, count = sys.argv[1], get_engine(sys.argv[2]), int(sys.argv[3])
blob = default_blob(BARE)
to_handoff, whole = [], []
for _ in range(count):
    stats = Stats()
    start = time.monotonic_ns()
    with Kernel.open(path) as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=512 * MIB)
        outcome = boot(plan, blob, engine, Until("handoff"), Limits(), stats=stats)
    whole.append(time.monotonic_ns() - start)
    assert outcome.clean
    to_handoff.append(stats.handoff_ns - start)
print(json.dumps([to_handoff[1:], whole[1:]]))
"""


def marked_copy(path: str, directory: str) -> str:
    """A copy of an uncompressed kernel that prints MARK at its entry, and stops."""
    with Kernel.open(path) as kernel:
        if not kernel.kind.startswith("ELF"):
            sys.exit(f"{path}: is compressed: give a vmlinux, as `pvhboot extract` writes it")
        segment = next(one for one in kernel.segments if one.paddr <= kernel.entry < one.end)
        offset = segment.offset + kernel.entry - segment.paddr
    copy = os.path.join(directory, "vmlinux-marked")
    shutil.copyfile(path, copy)
    with open(copy, "r+b") as file:
        file.seek(offset)
        file.write(PROGRAM)
    return copy


def until_mark(command: Sequence[str]) -> float:
    """Milliseconds from the start of a process until MARK comes out of it. It is ended, if it does not end itself."""
    out = b""
    start = time.monotonic_ns()
    none = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=none, stdout=subprocess.PIPE, stderr=none, bufsize=0) as process:
        assert process.stdout
        while MARK not in out:
            if not (piece := process.stdout.read(4096)):
                sys.exit(f"{' '.join(command)}: ended without the mark")
            out += piece
        end = time.monotonic_ns()
        if command[0] == QEMU:
            process.kill()
        process.stdout.read()
    return (end - start) / 1e6


def whole(command: Sequence[str]) -> float:
    """Milliseconds from the start of a process to its end."""
    start = time.monotonic_ns()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic_ns() - start) / 1e6


def split(command: Sequence[str]) -> dict[str, float]:
    """Milliseconds of each phase of a boot, and of all to the handoff. The interpreter has what the others have not."""
    start = time.monotonic_ns()
    done = subprocess.run([*command, "--stats", "--json"], check=True, capture_output=True)
    end = time.monotonic_ns()
    said = json.loads(done.stdout)["stats"]
    phases = {name: ns / 1e6 for name, ns in said["phases_ns"].items()}
    to_handoff = (said["handoff_monotonic_ns"] - start) / 1e6
    phases.pop("guest", None)
    check = phases.pop("check")
    phases["interpreter"] = 0
    phases["interpreter"] = to_handoff - sum(phases.values())
    return {**phases, "to the handoff": to_handoff, "check": check, "whole process": (end - start) / 1e6}


def qemu_command(kernel: str, accelerator: str) -> list[str]:
    """The least that boots it: no option here makes QEMU slower."""
    plain = ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
    return [QEMU, "-M", "microvm", "-accel", accelerator, "-m", MEMORY, "-bios", QBOOT, "-kernel", kernel, *plain]


def shown(values: Sequence[float]) -> str:
    return f"{median(values):7.1f} ({min(values):.1f})"


def require() -> None:
    """Ends with a line if something is missing."""
    if shutil.which(QEMU) is None:
        sys.exit(f"no {QEMU}")
    for path in (QBOOT, "/dev/kvm", PVHBOOT):
        if not os.path.exists(path):
            sys.exit(f"no {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernel", metavar="vmlinux", help="an uncompressed kernel")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of all measurements (default: %(default)s)")
    parser.add_argument("--boots", type=int, default=50, metavar="N", help="in one process (default: %(default)s)")
    arguments = parser.parse_args()
    require()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs pvhboot has its bytecode
    os.environ.pop("PYTHONUNBUFFERED", None)
    version = (
        subprocess.run([QEMU, "--version"], check=True, capture_output=True, text=True).stdout.partition("(")[0].split()[-1]
    )
    print(
        f"{os.path.basename(arguments.kernel)}, {os.path.getsize(arguments.kernel)} bytes, {MEMORY}; {os.cpu_count()} CPUs,",
        end=" ",
    )
    print(f"Python {platform.python_version()}, QEMU {version}; {arguments.rounds} rounds; medians (lowest) in ms")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["XDG_CACHE_HOME"] = directory
        measure(arguments.kernel, marked_copy(arguments.kernel, directory), arguments.rounds, arguments.boots)


def measure(kernel: str, marked: str, rounds: int, boots: int) -> None:
    """All of it, after a round that writes bytecode, fills the cache of kernels and reads the files."""
    own = [PVHBOOT, "boot", "--memory", MEMORY]
    timed: dict[str, Callable[[], float]] = {
        BARE: lambda: whole([sys.executable, "-c", "pass"]),
        "pvhboot on KVM": lambda: until_mark([*own, "--engine", "kvm", "--until", f"console:{MARK.decode()}", marked]),
        QEMU_KVM: lambda: until_mark(qemu_command(marked, "kvm")),
        "QEMU with qboot, TCG": lambda: until_mark(qemu_command(marked, "tcg")),
    }
    phased = {
        "KVM": [*own, "--engine", "kvm", kernel],
        "KVM, not cached": [*own, "--engine", "kvm", "--no-cache", kernel],
        "Unicorn": [*own, "--engine", "unicorn", "--until", "handoff", kernel],
    }
    times: dict[str, list[float]] = {}
    phases: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds + 1):
        if number < 2:
            times = {name: [] for name in timed}
            phases = {name: [] for name in phased}
        for name, run in timed.items():
            times[name].append(run())
        for name, command in phased.items():
            phases[name].append(split(command))
    done = subprocess.run([sys.executable, "-c", WARM, kernel, "kvm", str(boots + 1)], check=True, capture_output=True)
    to_handoff, checked = ([ns / 1e6 for ns in row] for row in json.loads(done.stdout))

    against = median(times[QEMU_KVM])
    print("\nfrom the start of the process until the kernel prints its first line, seen from outside")
    for name, values in times.items():
        print(f"  {name:<40}{shown(values):>16}" + ("" if name == BARE else ratio(values, against)))
    print("\nto the kernel's first instruction, as pvhboot says, and where it goes")
    print(f"  {'':<16}" + "".join(f"{name:>18}" for name in phases))
    for part in phases["KVM"][0]:
        print(f"  {part:<16}" + "".join(f"{shown([run[part] for run in runs]):>18}" for runs in phases.values()))
    print(f"\nagain in one process on KVM, by the Python API, {boots} boots")
    print(f"  {'to the handoff':<40}{shown(to_handoff):>16}{ratio(to_handoff, against)}")
    print(f"  {'to the end, checked and closed':<40}{shown(checked):>16}{ratio(checked, against)}")


def ratio(values: Sequence[float], against: float) -> str:
    return f"{median(values) / against:8.2f} of QEMU's on KVM"


if __name__ == "__main__":
    main()
