"""What it takes to open a kernel and to put it into guest memory: with the cache of kernels and without, mapped, read and
copied, and QEMU until it is ready.

    python bench/load_time.py vmlinux|vmlinuz [--times N]

Each measurement is a process of its own, all of them interleaved; printed is the least of each: what else the machine does only
adds to it. "open" is unpacking and parsing, "load" what only the loading takes, "process" all from its start to where the first
instruction of the firmware could run; resident memory is that of the process then, its own (anonymous) and that of files, which
others share. QEMU is the one on the PATH, with the machine microvm, stopped before its first instruction; what it takes to load
alone it does not say. Bytes copied and mapped are counts, and repeat.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from pvhboot.loader.cache import RACY

MEMORY = 512 << 20  # bytes
QEMU = "qemu-system-x86_64"

# The kernel is opened and the plan made, then the memory is filled in one of the ways.
SCRIPT = """
import json, os, sys, time
from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MICROVM
from pvhboot.shim.stock import default_blob

way, path, size, cache = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
start = time.perf_counter()
kernel = Kernel.open(path, cache=Cache(cache) if cache else None)
opened = time.perf_counter() - start
plan = make_plan(MICROVM, default_blob(MICROVM).data, kernel, memory=size)
start = time.perf_counter()
if way == "map":
    memory = plan.memory()
else:
    memory = GuestMemory(plan.ram, plan.rom)
    data = bytearray(kernel.image_size) if way == "copy" else None
    if data:
        kernel.read_into(0, memoryview(data))
    for segment in plan.segments:
        view = memory.view(segment.paddr, segment.filesz)
        memory.copied += segment.filesz
        if data is None:
            kernel.read_into(segment.offset, view)
        else:
            view[:] = data[segment.offset : segment.offset + segment.filesz]
load = time.perf_counter() - start
with open("/proc/self/status") as status:
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith("Rss")}
counts = {"copied": memory.copied, "mapped": memory.mapped}
print(json.dumps({"open": opened, "load": load, "anonymous": kib["RssAnon"], "file": kib["RssFile"], **counts}))
"""


def ours(way: str, kernel: str, cache: str = "") -> dict[str, float]:
    start = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, way, kernel, str(MEMORY), cache]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"process": time.perf_counter() - start, **json.loads(done.stdout)}


def cold(kernel: str) -> dict[str, float]:
    """Into a cache that is empty."""
    with tempfile.TemporaryDirectory() as cache:
        return ours("map", kernel, cache)


def warm(kernel: str) -> dict[str, float]:
    """From a cache that `main` has filled."""
    return ours("map", kernel, WARM)


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


WARM = os.path.join(tempfile.gettempdir(), f"load-time-{os.getpid()}")
WAYS: dict[str, Callable[[str], dict[str, float]]] = {
    "from the cache, mapped": warm,
    "into the cache, mapped": cold,
    "no cache": lambda kernel: ours("map", kernel),
    "no cache, read into place": lambda kernel: ours("read", kernel),
    "no cache, read, then copied": lambda kernel: ours("copy", kernel),
    "QEMU, until ready": qemu,
    "a bare Python": interpreter,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("kernel", metavar="KERNEL", help="a vmlinux, or a vmlinuz (not for QEMU's row)")
    parser.add_argument("--times", type=int, default=15, metavar="N", help="runs of each (default: %(default)s)")
    arguments = parser.parse_args()
    with open(arguments.kernel, "rb") as file:
        is_elf = file.read(4) == b"\x7fELF"
    ways = {name: way for name, way in WAYS.items() if way is not qemu or (shutil.which(QEMU) and is_elf)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    try:
        time.sleep(RACY / 1e9)  # or a kernel that has just been copied would be hashed each time
        warm(arguments.kernel)
        for _ in range(arguments.times):
            for name, way in ways.items():
                runs[name].append(way(arguments.kernel))
    finally:
        shutil.rmtree(WARM, ignore_errors=True)
    print(f"{arguments.kernel}, {os.path.getsize(arguments.kernel)} bytes; the least of {arguments.times} runs")
    print(f"| {'':<27} | open, ms | load, ms | process, ms | own memory, KiB | of files, KiB | copied, bytes | mapped, bytes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, measured in runs.items():

        def least(key: str, factor: float, measured: list[dict[str, float]] = measured, digits: int = 0) -> str:
            values = [run[key] * factor for run in measured if key in run]
            return f"{min(values):.{digits}f}" if values else ""

        cells = [least("open", 1000, digits=2), least("load", 1000, digits=2), least("process", 1000)]
        cells += [least(key, 1) for key in ("anonymous", "file", "copied", "mapped")]
        print(f"| {name:<27} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
