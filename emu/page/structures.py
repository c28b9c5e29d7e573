"""What a kernel finds at the handoff, field by field: start_info and what it leads to, and the GDT."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from pvhboot.loader.picture import about
from pvhboot.loader.printable import one_line
from pvhboot.shim.abi import pvh, x86

from ..descriptors import decode_descriptor
from ..memmap_words import type_name
from ..report.state import descriptor_text
from ..session import Outcome
from ..start_info_words import start_info_meaning
from ..tables import Tables
from .beside import LoadedGdt
from .columns import plain

_CONTENT_MAX: Final = 4096  # bytes that are given


class Line(NamedTuple):
    """A field: offset and size in bytes, name, value, and what it means."""

    offset: int
    size: int
    name: str
    value: str
    meaning: str = ""


class Structure(NamedTuple):
    """A structure at a physical address: `kind` is start_info, memmap, modlist, cmdline or gdt."""

    name: str
    start: int
    kind: str
    content: bytes
    lines: tuple[Line, ...]

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + len(self.content)

    def to_json(self) -> list[object]:
        """Name, start, end, kind, content, fields."""
        lines = [list(line) for line in self.lines]
        return [self.name, plain(self.start), plain(self.end), self.kind, self.content[:_CONTENT_MAX].hex(), lines]


def structures(outcome: Outcome, gdt: LoadedGdt | None) -> list[Structure]:
    """Those of a boot that has reached the handoff, by address; without one, the GDT at most."""
    found = [] if gdt is None or not gdt.descriptors else [_gdt(gdt)]
    if outcome.handoff is not None and outcome.tables is not None and outcome.tables.start_info is not None:
        found += _handed(outcome.tables, outcome.handoff.registers["ebx"])
    return sorted(found, key=lambda structure: (structure.start, structure.name))


def memmap_json(outcome: Outcome) -> list[list[object]]:
    """The ranges of the memory map: start, end, type as a number, and its name."""
    entries = outcome.tables.memmap if outcome.tables is not None else ()
    return [[plain(entry.addr), plain(entry.end), entry.type, type_name(entry.type)] for entry in entries]


def _handed(tables: Tables, ebx: int) -> Iterator[Structure]:
    info = tables.start_info
    assert info is not None
    lines = tuple(
        Line(field.offset, field.size, name, f"{value:#x}", start_info_meaning(name, value))
        for (name, field), value in zip(pvh.HVM_START_INFO.fields.items(), info, strict=True)
    )
    yield Structure("start_info", ebx, "start_info", pvh.HVM_START_INFO.pack(info), lines)
    if tables.memmap:
        content = b"".join(map(pvh.HVM_MEMMAP_ENTRY.pack, tables.memmap))
        size = pvh.HVM_MEMMAP_ENTRY.size
        lines = tuple(
            Line(number * size, size, f"entry {number}", f"{entry.addr:#x}, {entry.size:#x} bytes", type_name(entry.type))
            for number, entry in enumerate(tables.memmap)
        )
        yield Structure("memory map", info.memmap_paddr, "memmap", content, lines)
    if tables.modules:
        content = b"".join(map(pvh.HVM_MODLIST_ENTRY.pack, tables.modules))
        size = pvh.HVM_MODLIST_ENTRY.size
        lines = tuple(
            Line(number * size, size, f"module {number}", f"{entry.paddr:#x}", about(entry.size))
            for number, entry in enumerate(tables.modules)
        )
        yield Structure("module list", info.modlist_paddr, "modlist", content, lines)
    strings = [("command line", info.cmdline_paddr, tables.cmdline)]
    strings += [
        (f"command line of module {number}", entry.cmdline_paddr, line)
        for number, (entry, line) in enumerate(zip(tables.modules, tables.module_cmdlines, strict=True))
    ]
    for name, start, text in strings:
        if text is not None:
            line = Line(0, len(text) + 1, "text", one_line(text.decode(errors="replace")), f"{len(text)} bytes and a NUL")
            yield Structure(name, start, "cmdline", text + b"\0", (line,))


def _gdt(gdt: LoadedGdt) -> Structure:
    size = x86.DESC_SIZE
    lines = tuple(
        Line(selector, size, f"selector {selector:#06x}", f"{value:016x}", _descriptor_meaning(selector, value))
        for selector, value in zip(range(0, len(gdt.descriptors) * size, size), gdt.descriptors, strict=True)
    )
    content = b"".join(value.to_bytes(size, "little") for value in gdt.descriptors)
    return Structure("GDT", gdt.base, "gdt", content, lines)


def _descriptor_meaning(selector: int, value: int) -> str:
    return descriptor_text(decode_descriptor(selector, value)) if selector else "the null descriptor"
