"""Many boots in one process, and in many: what is held of the host's after 200 and after all of them.

    python bench/soak.py [--boots 1000] [--processes 200] [vmlinux]

Each row boots anew, from opening the kernel to the check of the handoff, and is a process of its own. What it holds is counted
in /proc/self, just as it is: Python is not told to look for cycles. Status 1 if a descriptor, a thread or a child is left, if
mappings or resident memory have grown, or a process has left something behind or failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from held import Held, booting, held, virtual_machine_maps
from host import kvm_problem
from pvhboot.emu.reasons import HANDOFF
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_guest

EARLY = 200  # boots after which all is warm
MAPS = 32  # mappings that come and go: the C library's arenas, and boots that are not collected yet
RESIDENT = 32 << 10  # KiB


def soak(engine: str, kernel: str, boots: int) -> tuple[Held, Held]:
    """After some boots, and after all."""
    once = booting(engine, BARE, kernel, HANDOFF, 512 * MIB)
    early = held(collected=False)
    for number in range(boots):
        if number == min(EARLY, boots // 5):
            early = held(collected=False)
        outcome = once()
        if not outcome.ok:
            sys.exit(f"boot {number}: {outcome.run.stop}")
    del outcome
    return early, held(collected=False)


def grown(early: Held, late: Held) -> bool:
    """Whether anything has been left."""
    return (
        early.countable != late.countable
        or late.maps > early.maps + MAPS
        or late.resident > early.resident + RESIDENT
        or bool(virtual_machine_maps())
    )


def row(name: str, early: Held, late: Held) -> str:
    """A line of the table."""
    pairs = zip(early, late, strict=True)
    return f"{name:<34}" + "".join(f"{f'{before} → {after}':>18}" for before, after in pairs)


def processes(engine: str, kernel: str, count: int) -> tuple[int, int, int]:
    """How many have failed, left files, and left children."""
    command = [sys.executable, "-c", "import sys; from pvhboot.emu.cli import main; sys.exit(main())", "boot", kernel]
    with tempfile.TemporaryDirectory() as directory:
        failed = 0
        for _ in range(count):
            done = subprocess.run(
                [*command, "--engine", engine], env={**os.environ, "TMPDIR": directory}, capture_output=True, check=False
            )
            if done.returncode != 0:
                failed += 1
                words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                print(f"status {done.returncode}: {' '.join(words)}", file=sys.stderr)
        return failed, len(os.listdir(directory)), held().children


def in_a_child(engine: str, kernel: str, boots: int, name: str) -> bool:
    """A row, from a process of its own, so that no other has filled its memory; whether nothing has grown."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        early, late = soak(engine, kernel, boots)
        print(row(name, early, late), flush=True)
        os._exit(grown(early, late))
    _, status = os.waitpid(child, 0)
    return status == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--boots", type=int, default=1000, help="in one process (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=200, help="of `pvhboot boot` (default: %(default)s)")
    parser.add_argument("vmlinux", nargs="?", help="boot it, too")
    arguments = parser.parse_args()
    engines = ["unicorn"] if kvm_problem() else ["kvm", "unicorn"]
    good = True
    with tempfile.TemporaryDirectory() as directory:
        guest = Path(directory) / "guest"
        guest.write_bytes(default_guest(64))
        kernels = {"conformance guest": str(guest)} | (
            {Path(arguments.vmlinux).name: arguments.vmlinux} if arguments.vmlinux else {}
        )
        early = min(EARLY, arguments.boots // 5)
        print(f"after {early} boots → after {arguments.boots}, of a machine with 512 MiB, in one process")
        print(
            f"{'':<34}"
            + "".join(f"{title:>18}" for title in ("descriptors", "mappings", "threads", "children", "resident KiB"))
        )
        for engine in engines:
            for name, kernel in kernels.items():
                good &= in_a_child(engine, kernel, arguments.boots, f"{engine}, {name}")
        print(f"\n{arguments.processes} processes each")
        for engine in engines:
            for name, kernel in kernels.items():
                failed, files, children = processes(engine, kernel, arguments.processes)
                print(f"{f'{engine}, {name}':<34}{failed} failed, {files} files and {children} children left", flush=True)
                good &= not (failed or files or children)
    sys.exit(not good)


if __name__ == "__main__":
    main()
