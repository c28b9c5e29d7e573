"""What a machine shows to a test: registers, memory, memory map, accesses to devices. Each is equal to plain data."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Self

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.errors import BootError

from ..bus import Access

_STRING_MAX: Final = 1 << 16  # bytes that are searched for a terminator


class MemoryRange(NamedTuple):
    """An entry of the memory map: physical address, size in bytes, type (a MEMMAP_TYPE_*; 1 is RAM). Equal to the tuple."""

    start: int
    size: int
    type: int

    def __repr__(self) -> str:
        return f"({self.start:#x}, {self.size:#x}, {self.type})"

    @property
    def end(self) -> int:
        """The first physical address after it."""
        return self.start + self.size


class BootModule(NamedTuple):
    """An entry of the list of modules: physical address, size in bytes, command line (None: it has none)."""

    paddr: int
    size: int
    cmdline: str | None

    @property
    def end(self) -> int:
        """The first physical address after it."""
        return self.paddr + self.size


class StartInfoView(NamedTuple):
    """What %ebx leads to, tables and strings included. `rsdp` is a physical address, 0 for none; `cmdline` None for none."""

    magic: int
    version: int
    flags: int
    memmap: list[MemoryRange]
    modules: list[BootModule]
    cmdline: str | None
    rsdp: int


class RegisterValue(int):
    """A register's number, which knows the register's name and shows itself in hexadecimal."""

    name: str

    def __new__(cls, value: int, name: str) -> Self:
        self = super().__new__(cls, value)
        self.name = name
        return self

    def __repr__(self) -> str:
        return hex(self)

    __str__ = int.__repr__


class Registers(dict[str, int]):
    """Registers by name, as they were when they were asked for; an item is a RegisterValue. One that is set is set in the CPU,
    too, if they are a CPU's (BootError for one that cannot be)."""

    def __init__(self, values: Mapping[str, int], write: Callable[[str, int], None] | None = None) -> None:
        super().__init__(values)
        self._write = write

    def __getitem__(self, name: str) -> int:
        return RegisterValue(super().__getitem__(name), name)

    def __missing__(self, name: str) -> int:
        raise BootError(f"no register {name!r}; there is: {', '.join(self)}")

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {value:#x}' for name, value in self.items())}}}"

    def __setitem__(self, name: str, value: int) -> None:
        if self._write is None:
            raise BootError("these registers are those of the handoff: only a machine's can be set")
        self._write(name, value)
        super().__setitem__(name, value)


class IoLog(list[Access]):
    """Accesses to devices in their order. `devices` are the names that there are."""

    def __init__(self, accesses: Iterable[Access] = (), devices: Iterable[str] = ()) -> None:
        super().__init__(accesses)
        self._devices = tuple(devices)

    def of(self, *where: str | int | range, kind: str | None = None) -> Self:
        """Those to one of these devices, ports or addresses (each access counts where it begins), and of that kind: in, out,
        read or write. BootError for a device that the board does not have."""
        for name in where:
            if isinstance(name, str) and name not in self._devices:
                raise BootError(f"no device {name!r} on this board; there is: {', '.join(self._devices)}")
        found = [each for each in self if kind in (None, each.kind) and (not where or any(_is_at(each, at) for at in where))]
        return type(self)(found, self._devices)

    @property
    def values(self) -> list[int]:
        """What was read or written, without the rest."""
        return [access.value for access in self]


def _is_at(access: Access, where: str | int | range) -> bool:
    if isinstance(where, str):
        return access.device == where
    return access.address == where if isinstance(where, int) else access.address in where


class MemoryBytes(bytes):
    """Bytes that know the physical address where they lay."""

    paddr: int

    def __new__(cls, data: bytes, paddr: int) -> Self:
        self = super().__new__(cls, data)
        self.paddr = paddr
        return self


class MemoryView:
    """Physical memory by index, read and written: `memory[paddr]` is a byte, `memory[start:end]` are the bytes between."""

    def __init__(self, memory: ReadableMemory, write: Callable[[int, bytes], None]) -> None:
        self._memory, self._write = memory, write

    def __getitem__(self, where: "int | slice[int, int, None]") -> "int | MemoryBytes":
        if isinstance(where, slice):
            start, end = _bounds(where)
            return MemoryBytes(self._memory.read(start, end - start), start)
        return self._memory.read(where, 1)[0]

    def __setitem__(self, where: "int | slice[int, int, None]", value: int | bytes) -> None:
        if isinstance(where, slice):
            start, end = _bounds(where)
            data = bytes(value) if not isinstance(value, int) else b""
            if len(data) != end - start:
                raise BootError(f"memory[{start:#x}:{end:#x}] takes {end - start} bytes, not {value!r}")
        elif isinstance(value, int) and 0 <= value <= 0xFF:
            start, data = where, bytes((value,))
        else:
            raise BootError(f"memory[{where:#x}] takes a byte, not {value!r}")
        self._write(start, data)

    def number(self, paddr: int, size: int = 4) -> int:
        """The little-endian number of `size` bytes at a physical address."""
        return int.from_bytes(self._memory.read(paddr, size), "little")

    def string(self, paddr: int) -> bytes:
        """What lies from a physical address up to a NUL; BootError if there is none within 64 KiB."""
        found = bytearray()
        while len(found) < _STRING_MAX:
            byte = self._memory.read(paddr + len(found), 1)
            if byte == b"\0":
                return bytes(found)
            found += byte
        raise BootError(f"the string at {paddr:#x} does not end within {_STRING_MAX} bytes")


def _bounds(where: "slice[int, int, None]") -> tuple[int, int]:
    start, end, step = where.start, where.stop, where.step
    if start is None or end is None or step is not None or end < start:
        raise BootError("a piece of memory is memory[start:end], with two physical addresses")
    return start, end
