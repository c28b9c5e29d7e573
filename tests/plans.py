"""Plans with a twist, for tests: each stands wherever a BootPlan does."""

from typing import Self

from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.payload import Payload
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.errors import BootError


class DirtyPlan(BootPlan):
    """RAM below 640 KiB, where the firmware keeps its data, holds anything after power on: no zeros to rely on."""

    @classmethod
    def of(cls, plan: BootPlan) -> Self:
        """The plan in such a machine."""
        return cls(*plan)

    def memory(self) -> GuestMemory:
        memory = super().memory()
        memory.view(0, 0xA0000)[:] = b"\xaa" * 0xA0000
        self.place(memory)
        return memory


class RefusedOnce(Payload):
    """A module that cannot be read the first time: that transfer fails."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._refused = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if not self._refused:
            self._refused = True
            raise BootError("refused")
        super().read_into(offset, buffer)
