"""What it takes to put an uncompressed kernel into guest memory: mapped, read and copied, and QEMU until it is ready.

    python bench/load_time.py vmlinux [--times N]

Each measurement is a process of its own, all of them interleaved; printed are medians. "load" is what only the loading takes,
"process" all from its start to where the first instruction of the firmware could run; resident memory is that of the process
then, its own (anonymous) and that of files, which others share. QEMU is the one on the PATH, with the machine microvm, stopped
before its first instruction; what its loading takes alone it does not say. Bytes copied and pages committed are counts, and
repeat; times are of this machine, and noisy.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

MEMORY = 512 << 20  # bytes
QEMU = "qemu-system-x86_64"

# The plan is made, the memory is not; then it is filled in one of the ways.
SCRIPT = """
import json, sys, time
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MICROVM, Span
from pvhboot.shim.stock import default_blob

way, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
kernel = Kernel.open(path)
plan = make_plan(MICROVM, default_blob(MICROVM).data, kernel, memory=size)
start = time.perf_counter()
if way == "map":
    memory = plan.memory()
else:
    memory = GuestMemory(plan.ram, plan.rom)
    data = open(path, "rb").read() if way == "copy" else None
    for segment in plan.segments:
        view = memory.view(segment.paddr, segment.filesz)
        if data is None:
            kernel.read_into(segment.offset, view)
        else:
            view[:] = data[segment.offset : segment.offset + segment.filesz]
load = time.perf_counter() - start
with open("/proc/self/status") as status:
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith("Rss")}
print(json.dumps({"load": load, "anonymous": kib["RssAnon"], "file": kib["RssFile"]}))
"""


def ours(way: str, kernel: str) -> dict[str, float]:
    start = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, way, kernel, str(MEMORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"process": time.perf_counter() - start, **json.loads(done.stdout)}


def qemu(kernel: str) -> dict[str, float]:
    """Until its main loop answers: by then the kernel is in the guest's memory."""
    command = [QEMU, "-M", "microvm,acpi=off", "-m", f"{MEMORY >> 20}M", "-kernel", kernel, "-S", "-qmp", "stdio"]
    start = time.perf_counter()
    with subprocess.Popen(
        [*command, "-nodefaults", "-display", "none"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert b"QMP" in process.stdout.readline()
        process.stdin.write(b'{"execute": "qmp_capabilities"}')
        process.stdin.flush()
        assert b"return" in process.stdout.readline()
        spent = time.perf_counter() - start
        with open(f"/proc/{process.pid}/status") as status:
            kib = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith("Rss")}
        process.stdin.write(b'{"execute": "quit"}')
        process.stdin.close()
        process.stdout.read()
    return {"process": spent, "anonymous": kib["RssAnon"], "file": kib["RssFile"]}


def interpreter(_kernel: str) -> dict[str, float]:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return {"process": time.perf_counter() - start}


WAYS: dict[str, Callable[[str], dict[str, float]]] = {
    "mapped (what pvhboot does)": lambda kernel: ours("map", kernel),
    "read into place (preadv)": lambda kernel: ours("read", kernel),
    "read, then copied": lambda kernel: ours("copy", kernel),
    "QEMU, until ready": qemu,
    "a bare Python": interpreter,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernel", metavar="vmlinux", help="an uncompressed kernel")
    parser.add_argument("--times", type=int, default=15, metavar="N", help="runs of each (default: %(default)s)")
    arguments = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if way is not qemu or shutil.which(QEMU)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(arguments.times):
        for name, way in ways.items():
            runs[name].append(way(arguments.kernel))
    print(f"{arguments.kernel}, {os.path.getsize(arguments.kernel)} bytes; medians of {arguments.times} runs")
    print(f"| {'':<26} | load, ms | process, ms | own memory, KiB | of files, KiB |")
    print("|---|---|---|---|---|")
    for name, measured in runs.items():

        def median(key: str, factor: float, measured: list[dict[str, float]] = measured, digits: int = 0) -> str:
            values = [run[key] * factor for run in measured if key in run]
            return f"{statistics.median(values):.{digits}f}" if values else ""

        cells = (median("load", 1000, digits=2), median("process", 1000), median("anonymous", 1), median("file", 1))
        print(f"| {name:<26} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
