"""ELF headers, every size checked before it is used; pyelftools knows the layouts, and is imported when a file is read.

Source: System V ABI, "Object Files". The class and the machine of a file are independent here, as for QEMU: an ELF32 for
EM_X86_64 is one more way to wrap the same bytes.
"""

from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.elf import EI_CLASS, EI_DATA, EI_NIDENT, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFDATA2MSB, PN_XNUM
from pvhboot.shim.abi.elf_layouts import LAYOUTS
from pvhboot.shim.errors import BootError

from .image import Image
from .printable import printable

_CLASS_BITS: Final = {ELFCLASS32: 32, ELFCLASS64: 64}
_MACHINES: Final = ("EM_386", "EM_X86_64")
_SECTION_NAME_MAX: Final = 64  # bytes shown; a longer name is cut


class Header(NamedTuple):
    """What an ELF header says. `type` and `machine` have the names of the specification, or are hexadecimal numbers.

    `structs` are pyelftools' layouts for this class and byte order.
    """

    bits: int
    big_endian: bool
    type: str
    machine: str
    entry: int
    phoff: int
    phentsize: int
    phnum: int
    shoff: int
    shentsize: int
    shnum: int
    shstrndx: int
    structs: Any


class ProgramHeader(NamedTuple):
    """A program header; `name` is its type and its number among those of that type, as in "PT_LOAD 0"."""

    name: str
    type: str
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    flags: int
    align: int


class NoteSpan(NamedTuple):
    """Where notes lie in the file: the name of the place, its offset and size in bytes."""

    source: str
    offset: int
    size: int


def _named(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:#x}"


def _check_range(what: str, offset: int, size: int, image: Image) -> None:
    if offset + size > image.size:
        raise BootError(
            f"truncated {what}: at {offset:#x}-{offset + size:#x} by the header, but the file ends at {image.size:#x}"
        )


def _read_table(image: Image, layout: Any, offset: int, count: int) -> list[Any]:
    stream = BytesIO(image.read(offset, layout.sizeof() * count))
    return [layout.parse_stream(stream) for _ in range(count)]


def read_header(image: Image) -> Header:
    """The header of any ELF file, whatever its machine and byte order; BootError if it is truncated or of an unknown class."""
    ident = image.read(0, min(EI_NIDENT, image.size))
    if len(ident) < EI_NIDENT:
        raise BootError(f"truncated ELF header: the file has {image.size} bytes")
    bits = _CLASS_BITS.get(ident[EI_CLASS])
    if bits is None:
        raise BootError(f"the ELF header has EI_CLASS {ident[EI_CLASS]}: 1 (ELF32) or 2 (ELF64) would be right")
    if ident[EI_DATA] not in (ELFDATA2LSB, ELFDATA2MSB):
        raise BootError(f"the ELF header has EI_DATA {ident[EI_DATA]}: 1 (little-endian) would be right")
    size = LAYOUTS[bits].header.size
    if image.size < size:
        raise BootError(f"truncated ELF header: the file has {image.size} bytes, the header of an ELF{bits} {size}")

    from elftools.elf.elffile import ELFFile  # 60 ms

    elf = ELFFile(BytesIO(image.read(0, size)))
    raw = elf.header
    return Header(
        bits=bits,
        big_endian=not elf.little_endian,
        type=_named(raw["e_type"]),
        machine=_named(raw["e_machine"]),
        entry=raw["e_entry"],
        phoff=raw["e_phoff"],
        phentsize=raw["e_phentsize"],
        phnum=raw["e_phnum"],
        shoff=raw["e_shoff"],
        shentsize=raw["e_shentsize"],
        shnum=raw["e_shnum"],
        shstrndx=raw["e_shstrndx"],
        structs=elf.structs,
    )


def require_x86(header: Header) -> None:
    """BootError unless the file is for a little-endian x86."""
    if header.big_endian:
        raise BootError(f"big-endian ELF for {header.machine}: PVH is for x86, which is little-endian")
    if header.machine not in _MACHINES:
        raise BootError(f"ELF for the machine {header.machine}: PVH is for {' and '.join(_MACHINES)}")


def read_program_headers(image: Image, header: Header) -> list[ProgramHeader]:
    """All program headers in file order; BootError if there is none, or they are truncated or of the wrong size."""
    if header.phnum == 0:
        raise BootError(f"no program headers ({header.type}): a kernel is an executable with PT_LOAD segments")
    layout = header.structs.Elf_Phdr
    if header.phentsize != layout.sizeof():
        raise BootError(
            f"e_phentsize is {header.phentsize}: a program header of an ELF{header.bits} has {layout.sizeof()} bytes"
        )
    _check_range(f"program headers ({header.phnum})", header.phoff, layout.sizeof() * header.phnum, image)
    counts: dict[str, int] = {}
    headers = []
    for raw in _read_table(image, layout, header.phoff, header.phnum):
        kind = _named(raw["p_type"])
        number = counts[kind] = counts.get(kind, -1) + 1
        fields = (raw[f"p_{field}"] for field in ProgramHeader._fields[2:])
        headers.append(ProgramHeader(f"{kind} {number}", kind, *fields))
    # Loaders of PVH kernels take 0xffff as a number. Where it means "see section 0", headers would be lost without a word.
    if header.phnum == PN_XNUM and header.shoff and header.shoff + header.structs.Elf_Shdr.sizeof() <= image.size:
        first = _read_table(image, header.structs.Elf_Shdr, header.shoff, 1)[0]
        if first["sh_type"] == "SHT_NULL" and first["sh_info"] > PN_XNUM:
            raise BootError(f"{first['sh_info']} program headers: no loader takes more than {PN_XNUM}")
    return headers


def note_segments(headers: list[ProgramHeader], image: Image) -> Iterator[NoteSpan]:
    """Where the PT_NOTE segments lie; BootError at one that reaches beyond the file."""
    for header in headers:
        if header.type == "PT_NOTE":
            _check_range(header.name, header.offset, header.filesz, image)
            yield NoteSpan(header.name, header.offset, header.filesz)


def read_sections(image: Image, header: Header) -> list[Any]:
    """All section headers, as pyelftools has them, none if there is no table; BootError if they are truncated or of the wrong
    size."""
    if not header.shoff or not header.shnum:
        return []
    layout = header.structs.Elf_Shdr
    if header.shentsize != layout.sizeof():
        raise BootError(
            f"e_shentsize is {header.shentsize}: a section header of an ELF{header.bits} has {layout.sizeof()} bytes"
        )
    _check_range(f"section headers ({header.shnum})", header.shoff, layout.sizeof() * header.shnum, image)
    return _read_table(image, layout, header.shoff, header.shnum)


def note_sections(image: Image, header: Header) -> Iterator[NoteSpan]:
    """Where the SHT_NOTE sections lie; BootError if the section headers are broken, or at a section beyond the file."""
    sections = read_sections(image, header)
    names = sections[header.shstrndx] if header.shstrndx < len(sections) else None
    for number, section in enumerate(sections):
        if section["sh_type"] == "SHT_NOTE":
            source = f"section {_section_name(image, names, section['sh_name']) or number}"
            _check_range(source, section["sh_offset"], section["sh_size"], image)
            yield NoteSpan(source, section["sh_offset"], section["sh_size"])


def _section_name(image: Image, names: Any, at: int) -> str:
    """The name at an offset of the string table, made printable; "" where there is none."""
    if names is None or at >= names["sh_size"]:
        return ""
    offset = names["sh_offset"] + at
    if offset >= image.size:
        return ""
    data = image.read(offset, min(_SECTION_NAME_MAX, names["sh_size"] - at, image.size - offset))
    return printable(data.partition(b"\0")[0])
