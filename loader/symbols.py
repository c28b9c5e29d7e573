"""Symbols of an ELF file, by name; pyelftools knows their layout.

Source: System V ABI, "Symbol Table" and "String Table".
"""

from collections.abc import Iterator
from typing import NamedTuple

from pvhboot.shim.errors import BootError

from .elf import Header, ProgramHeader, read_sections
from .image import Image


class Symbol(NamedTuple):
    """A symbol that is defined: `value` is its virtual address, or anything if it `is_absolute`."""

    value: int
    is_absolute: bool


def find_symbol(image: Image, header: Header, name: str) -> list[Symbol]:
    """The symbols of that name in .symtab, each value once; BootError if there is no symbol table, or it is broken."""
    found: dict[Symbol, None] = {}
    tables = 0
    sections = read_sections(image, header)
    for section in sections:
        if section["sh_type"] == "SHT_SYMTAB" and section["sh_link"] < len(sections):
            names = sections[section["sh_link"]]
            for part in (section, names):
                if part["sh_offset"] + part["sh_size"] > image.size:
                    raise BootError(f"truncated symbol table: it ends at {part['sh_offset'] + part['sh_size']:#x}")
            tables += 1
            symbols = image.read(section["sh_offset"], section["sh_size"])
            strings = image.read(names["sh_offset"], names["sh_size"])
            found |= dict.fromkeys(_named(symbols, strings, header, name.encode("utf-8", "surrogateescape")))
    if not tables:
        raise BootError("no symbol table: it was stripped, or never had one")
    return list(found)


def physical_address(symbol: Symbol, headers: list[ProgramHeader]) -> int | None:
    """Where the symbol is loaded, by the PT_LOAD that holds its virtual address; None if none does.

    An absolute one that lies in none (Linux's phys_startup_64) is a physical address already.
    """
    for header in headers:
        if header.type == "PT_LOAD" and header.vaddr <= symbol.value < header.vaddr + header.memsz:
            return symbol.value - header.vaddr + header.paddr
    return symbol.value if symbol.is_absolute else None


def _named(symbols: bytes, strings: bytes, header: Header, name: bytes) -> Iterator[Symbol]:
    layout = header.structs.Elf_Sym
    wanted = set()  # a string can be the end of another
    at = strings.find(name + b"\0")
    while at >= 0:
        wanted.add(at)
        at = strings.find(name + b"\0", at + 1)
    size = layout.sizeof()
    for start in range(0, len(symbols) - size + 1, size):
        if int.from_bytes(symbols[start : start + 4], "little") in wanted:  # st_name comes first in both classes
            symbol = layout.parse(symbols[start : start + size])
            if symbol["st_shndx"] != "SHN_UNDEF":
                yield Symbol(symbol["st_value"], symbol["st_shndx"] == "SHN_ABS")
