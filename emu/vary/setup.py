"""A boot as a value: what another process needs to make the same plan again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.modules import LINUX, Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.recording import Recording, read_recording
from pvhboot.shim.abi.chipset import LOW_HOLE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span, machine

_DIRT = b"\xaa"


class Setup(NamedTuple):
    """What to boot and on what. `machine` is the name of one, `firmware` a ROM, `kernel` a path or the bytes of a file;
    `memory` in bytes; `recording` is the path of what `pvhboot record` wrote, None for the machine's own. `dirty`: RAM below
    640 KiB holds anything after power on, not zeros; `cache` is the directory of one of kernels. The rest as in make_plan."""

    machine: str
    firmware: bytes
    kernel: str | bytes
    memory: int
    modules: tuple[Module, ...] = ()
    cmdline: str | None = None
    base: int | None = None
    reserved: tuple[Span, ...] = ()
    guest: str = LINUX
    dma: bool = True
    recording: str | None = None
    dirty: bool = False
    cache: str | None = None

    @classmethod
    def of(
        cls,
        plan: BootPlan,
        firmware: bytes,
        kernel: str | bytes,
        guest: str,
        recording: str | None,
        *,
        dirty: bool,
        cache: str | None = None,
    ) -> Self:
        """What makes a plan again, of which it does not tell the rest."""
        return cls(
            plan.spec.name,
            firmware,
            kernel,
            plan.ram_size,
            tuple(Module(module.payload.path, _text(module.cmdline)) for module in plan.modules),
            _text(plan.cmdline),
            plan.segments[0].paddr if plan.moved_by else None,
            plan.reserved,
            guest,
            plan.dma,
            recording,
            dirty,
            cache,
        )

    def place(self, plan: BootPlan) -> GuestMemory:
        """The memory of the machine, the plan placed into it."""
        memory = plan.memory()
        if self.dirty:
            memory.view(0, LOW_HOLE)[:] = _DIRT * LOW_HOLE
            plan.place(memory)
        return memory

    def read_recording(self) -> Recording | None:
        """BootError if there is one that is of another machine, or cannot be read."""
        if self.recording is None:
            return None
        recording = read_recording(self.recording)
        if recording.machine != self.machine:
            raise BootError(f"{self.recording}: a recording of {recording.machine}: give --machine {recording.machine}")
        return recording

    @contextmanager
    def plan(self) -> Iterator[BootPlan]:
        """The plan, with its files open as long as the context lasts. Raises BootError as make_plan does."""
        named = self.kernel
        cache = None if self.cache is None else Cache(self.cache)
        with (
            Kernel.open(named, cache=cache) if isinstance(named, str) else Kernel.from_bytes(named, "kernel", cache=cache)
        ) as kernel:
            yield make_plan(
                machine(self.machine),
                self.firmware,
                kernel,
                memory=self.memory,
                modules=self.modules,
                cmdline=self.cmdline,
                base=self.base,
                reserved=self.reserved,
                guest=self.guest,
                dma=self.dma,
            )


def _text(cmdline: bytes | None) -> str | None:
    """As modules.encode_cmdline wants it."""
    return None if cmdline is None else cmdline.decode("utf-8", "surrogateescape")
