"""Symbols of an ELF file.

Source: System V ABI, "Symbol Table" and "String Table".
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pvhboot.shim.abi.elf import SHN_ABS, SHN_UNDEF, STT_FUNC, STT_NOTYPE
from pvhboot.shim.abi.elf_layouts import LAYOUTS
from pvhboot.shim.errors import BootError

from .elf import Header, ProgramHeader, read_header, read_program_headers, read_sections
from .image import Image, SizedSource

if TYPE_CHECKING:
    from .kallsyms import Kallsyms


SYMBOL_TABLE: Final = "symbol table"
KALLSYMS: Final = "kallsyms"


class SizedImage(Image, SizedSource, Protocol):
    """Bytes that are read, or put somewhere."""


class Symbol(NamedTuple):
    """A symbol that is defined: `value` is its virtual address, or anything if it `is_absolute`."""

    value: int
    is_absolute: bool


def find_symbol(image: Image, header: Header, name: str) -> list[Symbol]:
    """The symbols of that name in .symtab, each value once; BootError if there is no symbol table, or it is broken."""
    wanted = name.encode("utf-8", "surrogateescape")
    tables = _tables(image, header)
    if not tables:
        raise BootError("no symbol table: it was stripped, or never had one")
    return list(dict.fromkeys(symbol for table in tables for symbol in _named(*table, header, wanted)))


class CodeSymbol(NamedTuple):
    """A function or a label that is loaded: where it is linked to be loaded, and where the kernel has it mapped then."""

    paddr: int
    vaddr: int
    name: str


def code_symbols(image: SizedImage) -> list[CodeSymbol]:
    """The functions and labels, sorted by address: those of the symbol table, or of kallsyms if there is none. Empty if there
    is neither; BootError if the symbol table is broken."""
    header = read_header(image)
    headers = read_program_headers(image, header)
    if tables := _filled_tables(image, header):
        return sorted(set(_from_tables(tables, header, headers)))
    found = _kallsyms(image, header, headers)
    return sorted(_loaded(found.functions(), headers)) if found else []


def code_symbol(image: SizedImage, name: str) -> CodeSymbol | None:
    """The function or label of that name, of several the lowest; None if there is none. As code_symbols, at a third of the
    cost."""
    header = read_header(image)
    headers = read_program_headers(image, header)
    if tables := _filled_tables(image, header):
        return min(_from_tables(tables, header, headers, name.encode("utf-8", "surrogateescape")), default=None)
    found = _kallsyms(image, header, headers)
    return min(_loaded([(address, name) for address in found.find(name)], headers), default=None) if found else None


class SymbolSource(NamedTuple):
    """What tells of symbols: SYMBOL_TABLE and how many are in it, or KALLSYMS and how many functions are."""

    kind: str
    number: int


def symbol_source(image: SizedImage, header: Header, headers: Sequence[ProgramHeader]) -> SymbolSource | None:
    """Where code_symbols has them from, of a little-endian file that may be broken; None if there are none."""
    try:
        size = max((s["sh_size"] for s in read_sections(image, header) if s["sh_type"] == "SHT_SYMTAB"), default=0)
    except BootError:
        return None
    if (count := size // LAYOUTS[header.bits].symbol.size) > 1:
        return SymbolSource(SYMBOL_TABLE, count - 1)
    found = _kallsyms(image, header, headers)
    return SymbolSource(KALLSYMS, len(found)) if found else None


def _kallsyms(image: SizedImage, header: Header, headers: Sequence[ProgramHeader]) -> "Kallsyms | None":
    from .kallsyms import find_kallsyms  # most who import this module need none

    return find_kallsyms(image, headers, header.bits)


def _loaded(functions: Sequence[tuple[int, str]], headers: Sequence[ProgramHeader]) -> Iterator[CodeSymbol]:
    """Those that lie in a PT_LOAD, of many that are sorted by address."""
    addresses = [address for address, _ in functions]
    at = 0
    for header in sorted((header for header in headers if header.type == "PT_LOAD"), key=attrgetter("vaddr")):
        at = max(at, bisect_left(addresses, header.vaddr))
        end = bisect_left(addresses, header.vaddr + header.memsz)
        moved_by = header.paddr - header.vaddr
        yield from (CodeSymbol(vaddr + moved_by, vaddr, name) for vaddr, name in functions[at:end])
        at = max(at, end)


def _from_tables(
    tables: Sequence[tuple[bytes, bytes]], header: Header, headers: Sequence[ProgramHeader], name: bytes | None = None
) -> Iterator[CodeSymbol]:
    """Those of that name only, if one is given."""
    for symbols, strings in tables:
        wanted = None if name is None else _places_of(name, strings)
        for entry in LAYOUTS[header.bits].symbol.unpack_all(symbols):
            at = entry.st_name
            if not at or entry.st_shndx == SHN_UNDEF or entry.st_info & 0xF not in (STT_NOTYPE, STT_FUNC):
                continue
            if wanted is not None and at not in wanted:
                continue
            paddr = physical_address(Symbol(entry.st_value, entry.st_shndx == SHN_ABS), headers)
            if paddr is not None:
                yield CodeSymbol(paddr, entry.st_value, strings[at : strings.find(b"\0", at)].decode(errors="replace"))


def _filled_tables(image: Image, header: Header) -> list[tuple[bytes, bytes]]:
    """Those with more than the null symbol that each begins with."""
    return [table for table in _tables(image, header) if len(table[0]) > LAYOUTS[header.bits].symbol.size]


def _tables(image: Image, header: Header) -> list[tuple[bytes, bytes]]:
    """Each symbol table with its strings."""
    tables = []
    sections = read_sections(image, header)
    for section in sections:
        if section["sh_type"] == "SHT_SYMTAB" and section["sh_link"] < len(sections):
            parts = (section, sections[section["sh_link"]])
            for part in parts:
                if part["sh_offset"] + part["sh_size"] > image.size:
                    raise BootError(f"truncated symbol table: it ends at {part['sh_offset'] + part['sh_size']:#x}")
            symbols, strings = (image.read(part["sh_offset"], part["sh_size"]) for part in parts)
            tables.append((symbols, strings))
    return tables


def physical_address(symbol: Symbol, headers: Sequence[ProgramHeader]) -> int | None:
    """Where the symbol is loaded, by the PT_LOAD that holds its virtual address; None if none does.

    An absolute one that lies in none (Linux's phys_startup_64) is a physical address already.
    """
    for header in headers:
        if header.type == "PT_LOAD" and header.vaddr <= symbol.value < header.vaddr + header.memsz:
            return symbol.value - header.vaddr + header.paddr
    return symbol.value if symbol.is_absolute else None


def _named(symbols: bytes, strings: bytes, header: Header, name: bytes) -> Iterator[Symbol]:
    wanted = _places_of(name, strings)
    for entry in LAYOUTS[header.bits].symbol.unpack_all(symbols):
        if entry.st_name in wanted and entry.st_shndx != SHN_UNDEF:
            yield Symbol(entry.st_value, entry.st_shndx == SHN_ABS)


def _places_of(name: bytes, strings: bytes) -> set[int]:
    """Where the name stands in a string table, perhaps as the end of another."""
    found = set()
    at = strings.find(name + b"\0")
    while at >= 0:
        found.add(at)
        at = strings.find(name + b"\0", at + 1)
    return found
