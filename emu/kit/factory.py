"""What the fixtures give: a function from keywords to a machine."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Unpack

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.blob import Blob

from ..engines.base import Watcher
from ..engines.names import QEMU
from ..machine import Machine
from .setup import Options, Setup, Store, make_setup

WatcherFactory = Callable[[BootPlan, Blob, str], Watcher | None]


class MachineFactory:
    """Builds machines, keeps them in `machines` and closes them. `engine` is that of a machine that does not name one."""

    def __init__(self, store: Store, engine: str, machines: list[Machine], watchers: Sequence[WatcherFactory] = ()) -> None:
        self._store, self._engine, self._machines, self._watchers = store, engine, machines, watchers

    def __call__(self, **options: Unpack[Options]) -> Machine:
        """A machine at its reset vector. BootError for the first keyword that cannot be."""
        opened = ExitStack()
        try:
            setup = make_setup(self._store, opened, {"engine": self._engine, **options})
            machine = self._machine(setup, opened)
        except BaseException:
            opened.close()
            raise
        self._machines.append(machine)
        return machine

    def _machine(self, setup: Setup, opened: ExitStack) -> Machine:
        if setup.engine.name == QEMU:
            from .qemu import QemuMachine

            return QemuMachine(setup, opened)
        watchers = (factory(setup.plan, setup.blob, setup.engine.name) for factory in self._watchers)
        return Machine(setup, opened, [watcher for watcher in watchers if watcher is not None])

    def close(self) -> None:
        """Closes them all, the last one first."""
        while self._machines:
            self._machines.pop().close()
