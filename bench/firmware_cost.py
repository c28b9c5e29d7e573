"""What firmwares cost from the reset vector to the kernel's entry: ours and qboot, in the same QEMU (microvm, TCG).

Counted by QEMU's own means, so that anybody can do it again: -singlestep with -d exec,nochain writes a line for each
instruction executed (each iteration of a rep is one), the trace events memory_region_ops_* one for each access to a device. The
counts repeat exactly. Give the kernel, and an initrd if there is to be one.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from typing import Any

from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.qemu.engine import QemuEngine
from pvhboot.emu.handoff import Handoff
from pvhboot.emu.reasons import HANDOFF
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import KIB, MIB, MICROVM, MICROVM_ACPI, MachineSpec
from pvhboot.shim.stock import default_blob

CMDLINE = "console=ttyS0 earlyprintk=ttyS0 reboot=t panic=-1"
MEMORY = 512 * MIB
BASE_MEMORY = 640 * KIB
TRACE = ("memory_region_ops_read", "memory_region_ops_write")
EXECUTED = re.compile(r"^Trace \d+: \S+ \[\w+/(\w+)/")


def cost(spec: MachineSpec, firmware: bytes, kernel: Kernel, initrd: str | None, dma: bool) -> dict[str, Any]:
    """Instructions, accesses, bytes of ROM that are not zero, bytes below 640 KiB that were zero and are not any more."""
    modules = [Module(initrd)] if initrd else []
    plan = make_plan(spec, firmware, kernel, memory=MEMORY, modules=modules, cmdline=CMDLINE, dma=dma)
    low: list[bytes] = []

    def on_handoff(handoff: Handoff) -> None:
        low.append(handoff.memory.read(0, BASE_MEMORY))

    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        extra = ["-singlestep", "-d", "exec,nochain", "-D", log]
        for event in TRACE:
            extra += ["-trace", event]
        run = QemuEngine(extra=extra).run(Board(plan), Until(HANDOFF), Limits(), on_handoff)
        if run.stop.reason != HANDOFF:
            sys.exit(f"the entry was not reached: {run.stop}")
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    executed = [int(found[1], 16) for line in lines if (found := EXECUTED.match(line))]
    return {
        "instructions": sum(pc != plan.entry for pc in executed),
        "accesses": sum(line.startswith(TRACE) for line in lines),
        "rom_bytes": sum(byte != 0 for byte in firmware),
        "low_bytes": sum(byte != 0 for byte in low[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernel")
    parser.add_argument("--initrd")
    parser.add_argument("--qboot", default="/usr/share/qemu/qboot.rom", help="default: %(default)s")
    parser.add_argument("--pio", action="store_true", help="also in a QEMU whose fw_cfg has no DMA")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with open(arguments.qboot, "rb") as file:
        qboot = file.read()
    rows = []
    with Kernel.open(arguments.kernel) as kernel:
        for spec in (MICROVM, MICROVM_ACPI):
            for dma in (True, False) if arguments.pio else (True,):
                for name, firmware in (("pvhboot", default_blob(spec).data), ("qboot", qboot)):
                    counts = cost(spec, firmware, kernel, arguments.initrd, dma)
                    rows.append({"machine": spec.name, "firmware": name, "dma": dma, **counts})
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'':<32}{'instructions':>13}{'accesses':>10}{'ROM bytes':>11}{'low memory':>12}")
    for row in rows:
        title = f"{row['machine']}, {row['firmware']}, {'DMA' if row['dma'] else 'no DMA'}"
        counts = (row["instructions"], row["accesses"], row["rom_bytes"], row["low_bytes"])
        print(f"{title:<32}{counts[0]:>13}{counts[1]:>10}{counts[2]:>11}{counts[3]:>12}")
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        ratios = {key: theirs[key] / ours[key] for key in ("instructions", "accesses", "rom_bytes", "low_bytes")}
        what = f"{ours['machine']}, {'DMA' if ours['dma'] else 'no DMA'}"
        print(f"qboot / pvhboot, {what}: " + ", ".join(f"{key} {value:.1f}" for key, value in ratios.items()))


if __name__ == "__main__":
    main()
