"""Who answers an access to a port or to memory that is no RAM, and the record of all of them."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from pvhboot.shim.errors import BootError

# The kinds of an access: of a port, of memory that is a device's.
IN: Final = "in"
OUT: Final = "out"
READ: Final = "read"
WRITE: Final = "write"
PORT_KINDS: Final = (IN, OUT)
LOADS: Final = (IN, READ)
STORES: Final = (OUT, WRITE)
KINDS: Final = (IN, OUT, READ, WRITE)
LOG_LIMIT: Final = 250_000  # records, of up to 250 bytes each; a run that makes more goes on, only the counts do too
_MEMORY_WIDTH: Final = 8  # bytes: no CPU's access is wider


class Device(Protocol):
    """What the bus asks of a device. Offsets count from the device's first port or address, sizes are in bytes."""

    def read(self, offset: int, size: int) -> int:
        """The value of a register."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Stores to a register."""


class Deferred:
    """A device that is made when it is first asked for anything."""

    def __init__(self, make: Callable[[], Device]) -> None:
        self._make = make
        self._made: Device | None = None

    def read(self, offset: int, size: int) -> int:
        """See Device."""
        return self._device().read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """See Device."""
        self._device().write(offset, size, value)

    def _device(self) -> Device:
        if self._made is None:
            self._made = self._make()
        return self._made


class Access(NamedTuple):
    """One access: `kind` is in, out, read or write; `size` in bytes; `device` is empty where nobody answered."""

    kind: str
    address: int
    size: int
    value: int
    device: str


class _Claim(NamedTuple):
    start: int
    end: int
    name: str
    device: Device
    width: int


def _holder(claims: Iterable[_Claim], address: int) -> _Claim | None:
    return next((claim for claim in claims if claim.start <= address < claim.end), None)


def _move(windows: dict[str, _Claim], name: str, device: Device, width: int, window: tuple[int, int] | None) -> None:
    windows.pop(name, None)
    if window is not None:
        start, size = window
        windows[name] = _Claim(start, start + size, name, device, width)


class Bus:
    """Port and memory-mapped devices. `unclaimed` is the machine's policy (see MachineSpec). `listeners` are told each access
    when the device has answered."""

    def __init__(self, unclaimed: str) -> None:
        self.log: list[Access] = []
        self.listeners: list[Callable[[Access], None]] = []
        self.counts: Counter[str] = Counter()
        self.unclaimed_stop: Access | None = None
        self._stops = unclaimed == "stop"
        self._ports: dict[int, _Claim] = {}
        self._memory: list[_Claim] = []
        self._port_windows: dict[str, _Claim] = {}
        self._memory_windows: dict[str, _Claim] = {}

    def claim_ports(self, start: int, count: int, name: str, device: Device, width: int = 1) -> None:
        """Gives `count` ports to a device; an access wider than `width` bytes is split, as on an ISA bus."""
        claim = _Claim(start, start + count, name, device, width)
        for port in range(start, start + count):
            if port in self._ports:
                raise BootError(f"port {port:#x} belongs to {self._ports[port].name} already: {name} cannot have it")
            self._ports[port] = claim

    def claim_memory(self, start: int, size: int, name: str, device: Device) -> None:
        """Gives a range of physical addresses (`size` in bytes) to a device."""
        for other in self._memory:
            if start < other.end and other.start < start + size:
                raise BootError(f"{name} at {start:#x} overlaps {other.name}")
        self._memory.append(_Claim(start, start + size, name, device, _MEMORY_WIDTH))

    def move_ports(self, name: str, device: Device, width: int, window: tuple[int, int] | None) -> None:
        """Gives a device the ports (first, number) in place of those that it had before by this name; None: none. What is
        claimed goes before."""
        _move(self._port_windows, name, device, width, window)

    def move_memory(self, name: str, device: Device, window: tuple[int, int] | None) -> None:
        """The same with physical addresses (first, number of bytes). RAM and ROM go before, and what is claimed."""
        _move(self._memory_windows, name, device, _MEMORY_WIDTH, window)

    def port_read(self, port: int, size: int) -> int:
        """`in` of `size` bytes."""
        value, name = self._port_read(port, size)
        return self._record(Access(IN, port, size, value, name))

    def port_write(self, port: int, size: int, value: int) -> None:
        """`out` of `size` bytes."""
        self._record(Access(OUT, port, size, value, self._port_write(port, size, value)))

    def memory_read(self, paddr: int, size: int) -> int:
        """A load from an address where no RAM and no ROM is."""
        claim = self._claim(paddr)
        value = claim.device.read(paddr - claim.start, size) if claim else (1 << 8 * size) - 1
        return self._record(Access(READ, paddr, size, value, claim.name if claim else ""))

    def memory_write(self, paddr: int, size: int, value: int) -> None:
        """A store to an address where no RAM is, or to the ROM."""
        claim = self._claim(paddr)
        if claim:
            claim.device.write(paddr - claim.start, size, value)
        self._record(Access(WRITE, paddr, size, value, claim.name if claim else ""))

    @property
    def accesses(self) -> int:
        """How many there were so far."""
        return self.counts.total()

    @property
    def devices(self) -> list[str]:
        """The names of all that have a port or an address, sorted."""
        windows = *self._port_windows.values(), *self._memory_windows.values()
        return sorted({claim.name for claim in (*self._ports.values(), *self._memory, *windows)})

    def _claim(self, paddr: int) -> _Claim | None:
        return _holder([*self._memory, *self._memory_windows.values()], paddr)

    def _port_claim(self, port: int) -> _Claim | None:
        return self._ports.get(port) or _holder(self._port_windows.values(), port)

    def _port_read(self, port: int, size: int) -> tuple[int, str]:
        claim = self._port_claim(port)
        if size > (claim.width if claim else 1):
            parts = [self._port_read(port + at, 1) for at in range(size)]
            return sum(value << 8 * at for at, (value, _) in enumerate(parts)), parts[0][1]
        if claim is None:
            return 0xFF, ""
        return claim.device.read(port - claim.start, size), claim.name

    def _port_write(self, port: int, size: int, value: int) -> str:
        claim = self._port_claim(port)
        if size > (claim.width if claim else 1):
            names = [self._port_write(port + at, 1, value >> 8 * at & 0xFF) for at in range(size)]
            return names[0]
        if claim is None:
            return ""
        claim.device.write(port - claim.start, size, value)
        return claim.name

    def _record(self, access: Access) -> int:
        self.counts[access.kind] += 1
        if len(self.log) < LOG_LIMIT:
            self.log.append(access)
        for listener in self.listeners:
            listener(access)
        if not access.device and self._stops and self.unclaimed_stop is None:
            self.unclaimed_stop = access
        return access.value
