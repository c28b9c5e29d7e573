"""What %ebx leads to: start_info, memory map, modules and command lines, read from guest memory with every count bounded."""

from typing import Final, NamedTuple, TypeVar

from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.layout import Layout
from pvhboot.shim.abi.pvh import MemmapEntry, ModlistEntry, StartInfo
from pvhboot.shim.machines import Span

from .handoff import Handoff

MODULE_BOUND: Final = 1024  # entries of the module list that are looked at
_STRING_BOUND: Final = 1 << 16  # bytes that are searched for a terminator
_STRING_CHUNK: Final = 64

RecordT = TypeVar("RecordT", MemmapEntry, ModlistEntry)


class Tables(NamedTuple):
    """The structures as they lie in memory; None, or fewer entries, where there is no memory to read."""

    start_info: StartInfo | None
    memmap: tuple[MemmapEntry, ...]
    modules: tuple[ModlistEntry, ...]
    module_cmdlines: tuple[bytes | None, ...]
    cmdline: bytes | None

    def spans(self, ebx: int) -> list[Span]:
        """Where start_info, to which %ebx has led, and each of the others lies; a string with its terminator."""
        info = self.start_info
        if info is None:
            return []
        found = [("start_info", ebx, pvh.HVM_START_INFO.size)]
        found.append(("the memory map", info.memmap_paddr, len(self.memmap) * pvh.HVM_MEMMAP_ENTRY.size))
        found.append(("the module list", info.modlist_paddr, len(self.modules) * pvh.HVM_MODLIST_ENTRY.size))
        found += [
            (f"the command line of module {index}", entry.cmdline_paddr, len(line) + 1)
            for index, (entry, line) in enumerate(zip(self.modules, self.module_cmdlines, strict=True))
            if line is not None
        ]
        if self.cmdline is not None:
            found.append(("the command line", info.cmdline_paddr, len(self.cmdline) + 1))
        return [Span(name, start, start + size) for name, start, size in found if size]


def read_tables(handoff: Handoff) -> Tables:
    """Follows %ebx. Strings come without their terminator."""
    data = handoff.try_read(handoff.registers["ebx"], pvh.HVM_START_INFO.size)
    if data is None:
        return Tables(None, (), (), (), None)
    info = pvh.HVM_START_INFO.unpack(data)
    # One entry more than Linux takes, so that a count that is too high is seen with what it leads to.
    memmap = _entries(handoff, pvh.HVM_MEMMAP_ENTRY, info.memmap_paddr, min(info.memmap_entries, pvh.MEMMAP_MAX_ENTRIES + 1))
    modules = _entries(handoff, pvh.HVM_MODLIST_ENTRY, info.modlist_paddr, min(info.nr_modules, MODULE_BOUND))
    lines = tuple(_string(handoff, entry.cmdline_paddr) for entry in modules)
    return Tables(info, memmap, modules, lines, _string(handoff, info.cmdline_paddr))


def _entries(handoff: Handoff, layout: Layout[RecordT], paddr: int, count: int) -> tuple[RecordT, ...]:
    entries: list[RecordT] = []
    for index in range(count if paddr else 0):
        data = handoff.try_read(paddr + index * layout.size, layout.size)
        if data is None:
            break
        entries.append(layout.unpack(data))
    return tuple(entries)


def _string(handoff: Handoff, paddr: int) -> bytes | None:
    """The string at `paddr`; None for 0, and where it does not end within the bound or within memory."""
    if not paddr:
        return None
    out = bytearray()
    while len(out) < _STRING_BOUND:
        size = _STRING_CHUNK
        while (chunk := handoff.try_read(paddr + len(out), size)) is None and size > 1:
            size //= 2
        if chunk is None:
            return None
        end = chunk.find(b"\0")
        if end >= 0:
            return bytes(out + chunk[:end])
        out += chunk
    return None
