"""The exceptions of one run on Unicorn: what they are, where they go, and how many were delivered."""

from typing import Any, Final, NamedTuple

from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi import interrupts, x86
from pvhboot.shim.errors import NoMemoryError

from ..bus import Bus
from ..paging import LinearMemory, PageFaultError, PhysicalMemory
from ..reasons import FAULT
from .base import Stop
from .unicorn_context import LiveContext
from .unicorn_delivery import Event, UndeliverableError, deliver

ADDRESS_BITS: Final = 40  # of a physical address: QEMU's TCG_PHYS_ADDR_BITS

_INT: Final = 0xCD


class Exceptions:
    """Delivers what Unicorn's hooks report. `delivered` counts exceptions and software interrupts."""

    def __init__(self, uc: Any, memory: GuestMemory, bus: Bus) -> None:
        self._uc, self._memory = uc, memory
        self._physical = _Physical(memory, bus)
        self.delivered = 0

    def take(self, vector: int) -> Stop | None:
        """Within a hook, whose engine has stopped at an exception: has it go on in the guest's handler, or says why the run
        ends."""
        cpu = LiveContext(self._uc)
        memory = _linear_memory(self._physical, cpu)
        length = _length(memory, cpu.linear_ip, vector) if cpu.is_software_interrupt else 0
        stop = self._deliver(Event(vector, cpu.error_code, length), cpu, memory)
        self.delivered += stop is None
        return stop

    def interrupt(self, vector: int, cpu: LiveContext) -> Stop | None:
        """Between two instructions, the engine's context being `cpu`: the same with an interrupt."""
        return self._deliver(Event(vector, external=True), cpu, _linear_memory(self._physical, cpu))

    def length(self, cpu: LiveContext, code: bytes) -> int:
        """Bytes of the next instruction, which is `code` behind any prefixes; 0: it is not."""
        memory, start = _linear_memory(self._physical, cpu), cpu.linear_ip
        try:
            for at in range(x86.INSTRUCTION_MAX - len(code) + 1):
                if memory.read(start + at, len(code)) == code:
                    return at + len(code)
        except PageFaultError:
            pass
        return 0

    def _deliver(self, event: Event, cpu: LiveContext, memory: LinearMemory) -> Stop | None:
        began = Stop(FAULT, _described(event, cpu.cr2), cpu.linear_ip - event.length)
        try:
            deliver(event, cpu, cpu.all_eflags(), memory)
        except UndeliverableError as error:
            return began._replace(detail=f"{began.detail}, and {error}")
        cpu.restore()
        return None

    def find(self, linear: int) -> int | None:
        """The physical address behind a linear one, for who only looks; None where nothing is mapped."""
        try:
            return _linear_memory(_Looked(self._memory), LiveContext(self._uc)).find(linear)
        except (PageFaultError, NoMemoryError):
            return None


def _linear_memory(physical: PhysicalMemory, cpu: LiveContext) -> LinearMemory:
    return LinearMemory(physical, cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer, ADDRESS_BITS)


class _Looked(NamedTuple):
    """The board's memory for who only looks: no device is asked. NoMemoryError where there is none."""

    memory: GuestMemory

    def read(self, paddr: int, size: int) -> bytes:
        return self.memory.read(paddr, size)

    def write(self, paddr: int, data: bytes) -> None:
        raise NotImplementedError


class _Physical:
    """The board's memory as a store or load of the processor reaches it."""

    def __init__(self, memory: GuestMemory, bus: Bus) -> None:
        self._memory, self._bus = memory, bus

    def read(self, paddr: int, size: int) -> bytes:
        try:
            return self._memory.read(paddr, size)
        except NoMemoryError:
            return b"".join(self._bus.memory_read(paddr + at, 1).to_bytes(1) for at in range(size))

    def write(self, paddr: int, data: bytes) -> None:
        try:
            region = self._memory.region(paddr, len(data))
        except NoMemoryError:
            region = None
        if region is None or region.readonly:
            self._bus.memory_write(paddr, len(data), int.from_bytes(data, "little"))
        else:
            for listener in self._memory.before_write:
                listener(paddr, len(data))
            self._memory.view(paddr, len(data))[:] = data


def _length(memory: LinearMemory, after: int, vector: int) -> int:
    """The bytes of the software interrupt that ends in front of a linear address: int n, or int3 or into."""
    try:
        return 2 if memory.read(after - 2, 2) == bytes((_INT, vector)) else 1
    except PageFaultError:
        return 1


def _described(event: Event, cr2: int) -> str:
    words = event.name
    if event.vector == interrupts.PF and event.is_exception:
        words += f" at {cr2:#x}"
    if event.vector in interrupts.HAS_ERROR_CODE and not event.external:
        words += f" (error code {event.error_code:#x})"
    return words
