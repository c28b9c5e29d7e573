"""What this process holds of the host's, to be compared before and after work that should give all of it back."""

import gc
import os
from collections.abc import Callable
from typing import NamedTuple

from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MIB, MachineSpec
from pvhboot.shim.stock import default_blob


class Held(NamedTuple):
    """Numbers of descriptors, mappings, threads and children, and resident memory in KiB (Linux: /proc/self). A virtual machine
    of KVM that is not closed is a descriptor, or a mapping of its vCPU's."""

    descriptors: int
    maps: int
    threads: int
    children: int
    resident: int

    @property
    def countable(self) -> tuple[int, int, int]:
        """What must be the same to the last one: not the mappings, which the C library merges and splits, nor the memory."""
        return self.descriptors, self.threads, self.children


def held(*, collected: bool = True) -> Held:
    """Now; `collected`: when Python has looked for cycles."""
    if collected:
        gc.collect()
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    with open("/proc/self/maps") as file:
        maps = sum(1 for _ in file)
    children = 0
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as file:
            children += len(file.read().split())
    descriptors = len(os.listdir("/proc/self/fd")) - 1  # but the one that looks
    return Held(descriptors, maps, int(status["Threads"]), children, int(status["VmRSS"].split()[0]))


def virtual_machine_maps() -> list[str]:
    """The mappings of descriptors of KVM's."""
    with open("/proc/self/maps") as file:
        return [line.split()[-1] for line in file if "kvm" in line]


def booting(engine_name: str, spec: MachineSpec, kernel: str, until: str, memory: int = 64 * MIB) -> Callable[[], Outcome]:
    """What boots a file anew, from opening it to the outcome, each time it is called."""
    engine, blob = get_engine(engine_name), default_blob(spec)

    def once() -> Outcome:
        with Kernel.open(kernel) as opened:
            plan = make_plan(spec, blob.data, opened, memory=memory, cmdline="quiet")
            return boot(plan, blob, engine, Until(until), Limits(seconds=60.0))

    return once
