"""What a kernel finds at the handoff, field by field: start_info and what it leads to, and the GDT."""

from collections.abc import Iterable, Iterator
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


def field_text(kind: str, name: str, selector: int, data: bytes) -> tuple[str, str]:
    """The value and the meaning of a field of a structure of a kind that holds `data`; `selector`: its offset in a GDT."""
    if kind == "start_info":
        value = int.from_bytes(data, "little")
        return f"{value:#x}", start_info_meaning(name, value)
    if kind == "memmap":
        entry = pvh.HVM_MEMMAP_ENTRY.unpack(data)
        return f"{entry.addr:#x}, {entry.size:#x} bytes", type_name(entry.type)
    if kind == "modlist":
        module = pvh.HVM_MODLIST_ENTRY.unpack(data)
        return f"{module.paddr:#x}", about(module.size)
    if kind == "gdt":
        value = int.from_bytes(data, "little")
        return f"{value:016x}", _descriptor_meaning(selector, value)
    text = data.split(b"\0")[0]
    return one_line(text.decode(errors="replace")), f"{len(text)} bytes and a NUL"


def _structure(name: str, start: int, kind: str, content: bytes, fields: Iterable[tuple[str, int, int]]) -> Structure:
    """With fields of these names, offsets and sizes."""
    lines = (
        Line(offset, size, field, *field_text(kind, field, offset, content[offset : offset + size]))
        for field, offset, size in fields
    )
    return Structure(name, start, kind, content, tuple(lines))


def _entries(word: str, content: bytes, size: int) -> Iterator[tuple[str, int, int]]:
    return ((f"{word} {offset // size}", offset, size) for offset in range(0, len(content), size))


def _handed(tables: Tables, ebx: int) -> Iterator[Structure]:
    info = tables.start_info
    assert info is not None
    fields = [(name, *field) for name, field in pvh.HVM_START_INFO.fields.items()]
    yield _structure("start_info", ebx, "start_info", pvh.HVM_START_INFO.pack(info), fields)
    if tables.memmap:
        content = b"".join(map(pvh.HVM_MEMMAP_ENTRY.pack, tables.memmap))
        entries = _entries("entry", content, pvh.HVM_MEMMAP_ENTRY.size)
        yield _structure("memory map", info.memmap_paddr, "memmap", content, entries)
    if tables.modules:
        content = b"".join(map(pvh.HVM_MODLIST_ENTRY.pack, tables.modules))
        entries = _entries("module", content, pvh.HVM_MODLIST_ENTRY.size)
        yield _structure("module list", info.modlist_paddr, "modlist", content, entries)
    strings = [("command line", info.cmdline_paddr, tables.cmdline)]
    strings += [
        (f"command line of module {number}", entry.cmdline_paddr, line)
        for number, (entry, line) in enumerate(zip(tables.modules, tables.module_cmdlines, strict=True))
    ]
    for name, start, text in strings:
        if text is not None:
            yield _structure(name, start, "cmdline", text + b"\0", [("text", 0, len(text) + 1)])


def _gdt(gdt: LoadedGdt) -> Structure:
    size = x86.DESC_SIZE
    content = b"".join(value.to_bytes(size, "little") for value in gdt.descriptors)
    selectors = ((f"selector {selector:#06x}", selector, size) for selector in range(0, len(content), size))
    return _structure("GDT", gdt.base, "gdt", content, selectors)


def _descriptor_meaning(selector: int, value: int) -> str:
    return descriptor_text(decode_descriptor(selector, value)) if selector else "the null descriptor"
