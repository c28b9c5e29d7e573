"""What a machine shows to a test, or in a notebook: registers, memory, memory map, accesses to devices. Each is equal to plain
data; most draw themselves in a notebook (`_repr_html_`)."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Self, SupportsIndex, overload

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError

from ..bus import Access
from ..shown import Printer, show_text

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


class MemoryMap(list[MemoryRange]):
    """Entries of a memory map, in the order in which they were found. Equal to a list of tuples; `print` gives a line each with
    types and sizes, a notebook a table and a bar."""

    def __str__(self) -> str:
        from .differences import memmap_lines

        return "\n".join(line.rstrip() for line in memmap_lines(self))

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from ..html.memory import memory_map_html

        return memory_map_html(self)


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
    memmap: MemoryMap
    modules: list[BootModule]
    cmdline: str | None
    rsdp: int

    def _repr_html_(self) -> str:
        from ..html.handoff import start_info_html

        return start_info_html(self)


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

    def _repr_html_(self) -> str:
        from ..html.registers import registers_html

        return registers_html(self)


class Segments(dict[str, Segment]):
    """Segment registers by name, each with its hidden part, as they were when they were asked for."""

    def _repr_html_(self) -> str:
        from ..html.registers import segments_html

        return segments_html(self)


class IoLog(list[Access]):
    """Accesses to devices in their order, as is a slice of them. `devices` are the names that there are."""

    def __init__(self, accesses: Iterable[Access] = (), devices: Iterable[str] = ()) -> None:
        super().__init__(accesses)
        self._devices = tuple(devices)

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Access: ...

    @overload
    def __getitem__(self, index: "slice[Any, Any, Any]", /) -> Self: ...

    def __getitem__(self, index: "SupportsIndex | slice[Any, Any, Any]", /) -> Access | Self:
        if isinstance(index, slice):
            return type(self)(super().__getitem__(index), self._devices)
        return super().__getitem__(index)

    def of(self, *where: str | int | range, kind: str | None = None) -> Self:
        """Those to one of these devices, ports or addresses (each access counts where it begins), and of that kind: in, out,
        read or write. BootError for a device that the board does not have."""
        return self._picked(where, kind, True)

    def but(self, *where: str | int | range, kind: str | None = None) -> Self:
        """The others: what `of` of the same leaves out. BootError as there."""
        return self._picked(where, kind, False)

    def _picked(self, where: tuple[str | int | range, ...], kind: str | None, wanted: bool) -> Self:
        for name in where:
            if isinstance(name, str) and name not in self._devices:
                raise BootError(f"no device {name!r} on this board; there is: {', '.join(self._devices)}")

        def fits(access: Access) -> bool:
            return kind in (None, access.kind) and (not where or any(_is_at(access, at) for at in where))

        return type(self)((access for access in self if fits(access) == wanted), self._devices)

    @property
    def values(self) -> list[int]:
        """What was read or written, without the rest."""
        return [access.value for access in self]

    def _repr_html_(self) -> str:
        from ..html.accesses import accesses_html

        return accesses_html(self)


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
