"""What firmwares cost from the reset vector to the kernel's entry: ours, qboot and SeaBIOS, on the same machines of one QEMU.

Counted by QEMU's own means, so that anybody can do it again: -singlestep with -d exec,nochain writes a line for each
instruction executed (each iteration of a rep is one), the trace events memory_region_ops_* one for each access to a device,
port or memory. These counts repeat exactly. Bytes that fw_cfg moves by DMA are counted on pvhboot's own board under Unicorn,
where a firmware runs there. With --times N each firmware is also started N times on each accelerator, in turn: the time from
the first instruction to the stop at the entry, its median, and in brackets its quarters. Give the kernel, and an initrd.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from pvhboot.emu.board import Board
from pvhboot.emu.devices.fw_cfg import FwCfg
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.qemu.engine import ACCELERATORS, QemuEngine
from pvhboot.emu.engines.qemu.gdb import Gdb
from pvhboot.emu.engines.unicorn import UnicornEngine
from pvhboot.emu.handoff import Handoff
from pvhboot.emu.reasons import HANDOFF
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.machines import KIB, MIB, MICROVM, MICROVM_ACPI, PC, Q35, UNIVERSAL, MachineSpec
from pvhboot.shim.stock import default_blob

CMDLINE = "console=ttyS0 earlyprintk=ttyS0 reboot=t panic=-1"
MEMORY = 512 * MIB
BASE_MEMORY = 640 * KIB
SPECS = (MICROVM, MICROVM_ACPI, PC, Q35)
TRACE = (b"memory_region_ops_read", b"memory_region_ops_write")
PORTS_END = 0x10000
CHUNK = 1 << 20


class Firmware(NamedTuple):
    """A ROM by its name."""

    name: str
    rom: bytes


def firmwares(spec: MachineSpec, arguments: argparse.Namespace) -> Iterator[Firmware]:
    """Ours first: the others are compared with it."""
    yield Firmware("pvhboot", default_blob(spec).data)
    yield Firmware("pvhboot universal", default_blob(UNIVERSAL).data)
    yield Firmware("qboot", _read(arguments.qboot))
    if not arguments.no_seabios:
        name = "bios-256k.bin" if spec.chipset else "bios-microvm.bin"
        yield Firmware("SeaBIOS", _read(os.path.join(arguments.seabios, name)))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Log:
    """Counts what QEMU writes into a pipe: SeaBIOS's log would fill a disk."""

    def __init__(self, path: str, entry: int) -> None:
        self.instructions = self.ports = self.memory = 0
        self._entry = b"/%016x/" % entry
        os.mkfifo(path)
        self._thread = threading.Thread(target=self._run, args=(path,))
        self._thread.start()

    def _run(self, path: str) -> None:
        rest = b""
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                chunk, _, rest = (rest + chunk).rpartition(b"\n")
                self._count(b"\n" + chunk)
            self._count(b"\n" + rest)

    def _count(self, lines: bytes) -> None:
        self.instructions += lines.count(b"\nTrace ") - lines.count(self._entry)
        for event in TRACE:
            for part in lines.split(b"\n" + event)[1:]:
                if part.startswith(b" cpu -1 "):
                    continue  # a device's, at its reset
                address = int(part.partition(b" addr ")[2].partition(b" ")[0], 16)
                self.ports += address < PORTS_END
                self.memory += address >= PORTS_END

    def close(self) -> None:
        """Waits for the end of the pipe."""
        self._thread.join()


def counts(plan: BootPlan) -> dict[str, int]:
    """Instructions, accesses, bytes of ROM that are not zero, bytes below 640 KiB that were zero and are not any more."""
    low: list[bytes] = []

    def on_handoff(handoff: Handoff) -> None:
        low.append(handoff.memory.read(0, BASE_MEMORY))

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "log")
        log = Log(path, plan.entry)
        extra = ["-singlestep", "-d", "exec,nochain", "-D", path]
        for event in TRACE:
            extra += ["-trace", event.decode()]
        run = QemuEngine(extra=extra).run(Board(plan), Until(HANDOFF), Limits(seconds=600), on_handoff)
        log.close()
    if run.stop.reason != HANDOFF:
        sys.exit(f"the entry was not reached: {run.stop}")
    return {
        "instructions": log.instructions,
        "port_accesses": log.ports,
        "memory_accesses": log.memory,
        "rom_bytes": sum(byte != 0 for byte in plan.rom),
        "low_bytes": sum(byte != 0 for byte in low[0]),
    }


def dma_bytes(plan: BootPlan) -> int | None:
    """What fw_cfg moves by DMA up to the entry; None where the firmware does not get there under Unicorn."""
    moved = 0
    next_bytes = FwCfg.next_bytes

    def counted(device: FwCfg, buffer: memoryview) -> None:
        nonlocal moved
        moved += len(buffer) if len(buffer) > 1 else 0  # a single byte is one from the data port
        next_bytes(device, buffer)

    FwCfg.next_bytes = counted  # type: ignore[method-assign]
    try:
        run = UnicornEngine().run(Board(plan), Until(HANDOFF), Limits(instructions=1_000_000), lambda _: None)
    finally:
        FwCfg.next_bytes = next_bytes  # type: ignore[method-assign]
    return moved if run.stop.reason == HANDOFF else None


def seconds(plan: BootPlan, accelerator: str) -> float:
    """From the first instruction to the stop at the entry, once."""
    began = ended = 0.0
    resume = Gdb.resume

    def timed(gdb: Gdb) -> None:
        nonlocal began
        began = time.perf_counter()
        resume(gdb)

    def on_handoff(_handoff: Handoff) -> None:
        nonlocal ended
        ended = time.perf_counter()

    Gdb.resume = timed  # type: ignore[method-assign]
    try:
        QemuEngine(accelerator).run(Board(plan), Until(HANDOFF), Limits(seconds=60), on_handoff)
    finally:
        Gdb.resume = resume  # type: ignore[method-assign]
    return ended - began


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each machine and firmware."""
    rows: list[dict[str, Any]] = []
    modules = [Module(arguments.initrd)] if arguments.initrd else []
    with Kernel.open(arguments.kernel) as kernel:
        for spec in SPECS:
            for dma in (True, False) if arguments.pio else (True,):
                plans = {}
                for firmware in firmwares(spec, arguments):
                    plan = make_plan(spec, firmware.rom, kernel, memory=MEMORY, modules=modules, cmdline=CMDLINE, dma=dma)
                    row = {"machine": spec.name, "firmware": firmware.name, "dma": dma, **counts(plan)}
                    row["dma_bytes"] = dma_bytes(plan) if dma else None
                    rows.append(row)
                    plans[firmware.name] = plan
                for accelerator in ACCELERATORS:
                    # In turn, so that what else the host does meets all of them.
                    turns = [{name: seconds(plan, accelerator) for name, plan in plans.items()} for _ in range(arguments.times)]
                    for row in rows[-len(plans) :] if turns else ():
                        row[f"ms_{accelerator}"] = _spread([turn[row["firmware"]] * 1000 for turn in turns])
    return rows


def _spread(values: list[float]) -> list[float]:
    """Lower quarter, median, upper quarter."""
    quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return [round(value, 1) for value in quarters]


COLUMNS = {
    "instructions": "instructions",
    "port_accesses": "ports",
    "memory_accesses": "MMIO",
    "dma_bytes": "DMA bytes",
    "rom_bytes": "ROM bytes",
    "low_bytes": "low memory",
    "ms_tcg": "ms, TCG",
    "ms_kvm": "ms, KVM",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("--initrd")
    parser.add_argument("--qboot", default="/usr/share/qemu/qboot.rom", help="default: %(default)s")
    parser.add_argument("--seabios", metavar="DIR", default="/usr/share/seabios", help="default: %(default)s")
    parser.add_argument("--no-seabios", action="store_true", help="it takes millions of instructions: a minute or two")
    parser.add_argument("--pio", action="store_true", help="also in a QEMU whose fw_cfg has no DMA")
    parser.add_argument("--times", metavar="N", type=int, default=0, help="time N starts of each (default: none)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    columns = [name for name in COLUMNS if name in rows[0]]
    print(f"{'':<40}" + "".join(f"{COLUMNS[name]:>18}" for name in columns))
    for row in rows:
        title = f"{row['machine']}, {row['firmware']}{'' if row['dma'] else ', no DMA'}"
        print(f"{title:<40}" + "".join(f"{_shown(row[name]):>18}" for name in columns))


def _shown(value: int | list[float] | None) -> str:
    if isinstance(value, list):
        return f"{value[1]} ({value[0]}-{value[2]})"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main()
