"""Symbols of an ELF file.

Source: System V ABI, "Symbol Table" and "String Table".
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pvhboot.shim.abi.elf import LAYOUTS, SHN_ABS, SHN_UNDEF, STT_FUNC, STT_NOTYPE
from pvhboot.shim.errors import BootError

from .elf import Header, ProgramHeader, read_header, read_program_headers, read_sections
from .image import Image


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


def code_symbols(image: Image) -> list[CodeSymbol]:
    """The functions and labels, sorted by address. Empty without a symbol table; BootError if it is broken."""
    header = read_header(image)
    headers = read_program_headers(image, header)
    found: set[CodeSymbol] = set()
    for symbols, strings in _tables(image, header):
        for entry in LAYOUTS[header.bits].symbol.unpack_all(symbols):
            at = entry.st_name
            if not at or entry.st_shndx == SHN_UNDEF or entry.st_info & 0xF not in (STT_NOTYPE, STT_FUNC):
                continue
            paddr = physical_address(Symbol(entry.st_value, entry.st_shndx == SHN_ABS), headers)
            if paddr is not None:
                name = strings[at : strings.find(b"\0", at)].decode(errors="replace")
                found.add(CodeSymbol(paddr, entry.st_value, name))
    return sorted(found)


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
    wanted = set()  # a string can be the end of another
    at = strings.find(name + b"\0")
    while at >= 0:
        wanted.add(at)
        at = strings.find(name + b"\0", at + 1)
    for entry in LAYOUTS[header.bits].symbol.unpack_all(symbols):
        if entry.st_name in wanted and entry.st_shndx != SHN_UNDEF:
            yield Symbol(entry.st_value, entry.st_shndx == SHN_ABS)
