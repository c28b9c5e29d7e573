"""What is typed in a notebook, or in a script that wants to look at a boot: docs/notebook.md."""

import atexit
from collections.abc import Mapping
from contextlib import ExitStack
from functools import lru_cache
from typing import Unpack
from weakref import WeakSet

from pvhboot.loader.kernel import Kernel
from pvhboot.shim.errors import BootError

from .diagnosis import diagnose
from .engines.base import Until
from .engines.names import QEMU, UNICORN
from .kit.boot_view import BootView
from .kit.entry import GdtAtEntry
from .kit.factory import MachineFactory
from .kit.setup import Options, Path, Store, make_setup
from .machine import Machine
from .reasons import HANDOFF
from .recorded import INSTRUCTIONS, KERNEL_INSTRUCTIONS, record_boot

_store = lru_cache(Store)  # kernels stay open, for the next boot


def record(
    kernel: Path | bytes | Kernel | None = None,
    /,
    *,
    kernel_instructions: int = KERNEL_INSTRUCTIONS,
    max_instructions: int = INSTRUCTIONS,
    sources: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> BootView:
    """Boots a kernel (without one, the conformance guest) to the handoff and as many of its instructions behind it, and keeps
    each step, up to `max_instructions`. `options` are those of `pvh`; the engine is unicorn or kvm. `sources` are assembly
    files by name that the firmware was built from, where they are not pvhboot's own.

    BootError for the first keyword that cannot be. A boot that fails is none: it is shown how far it came, and why.
    """
    if kernel is not None:
        if options.get("kernel") is not None:
            raise BootError("two kernels: name one, as the first argument or as kernel=")
        options["kernel"] = kernel
    if not isinstance(kernel_instructions, int) or kernel_instructions < 0:
        raise BootError(f"kernel_instructions={kernel_instructions!r}: give a number of instructions")
    if not isinstance(max_instructions, int) or max_instructions < 1:
        raise BootError(f"max_instructions={max_instructions!r}: give a number above 0")
    if sources is not None and not isinstance(sources, Mapping):
        raise BootError(f"sources is a {type(sources).__name__}: give the text of each file by its name")
    with ExitStack() as opened:
        setup = make_setup(_store(), opened, options)
        if setup.engine.name == QEMU:
            raise BootError("the engine qemu does not show single instructions: record on unicorn or kvm")
        board, table = setup.board(), GdtAtEntry(setup.plan.entry)
        recorded = record_boot(
            setup.plan,
            setup.blob,
            setup.engine,
            setup.limits,
            sources=sources,
            kernel_instructions=kernel_instructions,
            most=max_instructions,
            watchers=[table],
            board=board,
        )
        again = None if setup.devices or recorded.outcome.ok else setup.board()  # a device of one's own is as it was left
        limits = setup.limits._replace(
            instructions=recorded.outcome.run.counts.get("instructions")
        )  # each round of a rep is one
        diagnosis = diagnose(recorded.outcome, setup.engine, Until(HANDOFF), limits, again, setup.recording)
    return BootView(recorded, diagnosis, table.gdt, board.bus.devices)


_machines: WeakSet[Machine] = WeakSet()


def pvh(**options: Unpack[Options]) -> Machine:
    """A machine at its reset vector, to be driven: that of the pytest fixture of the same name (docs/testing.md). `close` lets
    go of it; what is left open at the end is closed then. BootError for the first keyword that cannot be."""
    machine = MachineFactory(_store(), UNICORN, [])(**options)
    _machines.add(machine)
    return machine


@atexit.register
def _close_all() -> None:
    for machine in [*_machines]:
        machine.close()
