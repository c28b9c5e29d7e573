"""Writes small ELF executables: the firmware with its symbols for a debugger, and the conformance guest.

Source: System V ABI, "Object Files" (ELF header, program headers, symbol table); pyelftools reads ELF, but writes none.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

PT_LOAD: Final = 1
PT_NOTE: Final = 4
PF_X: Final = 1
PF_W: Final = 2
PF_R: Final = 4
EM_386: Final = 3
EM_X86_64: Final = 62

_ET_EXEC: Final = 2
_SHT_PROGBITS: Final = 1
_SHT_SYMTAB: Final = 2
_SHT_STRTAB: Final = 3
_SHF_ALLOC_EXEC: Final = 2 | 4
_STB_GLOBAL_FUNC: Final = 1 << 4 | 2
_DATA_ALIGN: Final = 16


class ElfSegment(NamedTuple):
    """A program header and its bytes. Addresses are physical; `memsz` is in bytes, at least len(data)."""

    type: int
    paddr: int
    data: bytes
    memsz: int
    flags: int
    align: int


def note(name: bytes, kind: int, descriptor: bytes) -> bytes:
    """A note packed to 4 bytes; `name` with its terminator."""

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 4)

    return struct.pack("<III", len(name), len(descriptor), kind) + padded(name) + padded(descriptor)


def write_elf(bits: int, entry: int, segments: Sequence[ElfSegment], symbols: Mapping[str, int]) -> bytes:
    """An executable of 32 or 64 bits with a .text section over its first segment, to which the symbols belong."""
    wide = bits == 64
    header_size, phdr_size, shdr_size = (64, 56, 64) if wide else (52, 32, 40)
    body = bytearray(header_size + phdr_size * len(segments))

    def append(data: bytes) -> int:
        body.extend(bytes(-len(body) % _DATA_ALIGN))
        offset = len(body)
        body.extend(data)
        return offset

    offsets = [append(segment.data) for segment in segments]
    text, names = segments[0], bytearray(1)
    symtab = bytearray(24 if wide else 16)
    for name, value in sorted(symbols.items(), key=lambda item: (item[1], item[0])):
        if wide:
            symtab += struct.pack("<IBBHQQ", len(names), _STB_GLOBAL_FUNC, 0, 1, value, 0)
        else:
            symtab += struct.pack("<IIIBBH", len(names), value, 0, _STB_GLOBAL_FUNC, 0, 1)
        names += name.encode() + b"\0"
    section_names = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    symtab_offset, strtab_offset = append(bytes(symtab)), append(bytes(names))
    section_names_offset = append(section_names)

    section = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    sections = b"".join(
        section.pack(section_names.index(b"." + name) if name else 0, *fields)
        for name, fields in (
            (b"", (0,) * 9),
            (b"text", (_SHT_PROGBITS, _SHF_ALLOC_EXEC, text.paddr, offsets[0], len(text.data), 0, 0, 1, 0)),
            (b"symtab", (_SHT_SYMTAB, 0, 0, symtab_offset, len(symtab), 3, 1, 8, 24 if wide else 16)),
            (b"strtab", (_SHT_STRTAB, 0, 0, strtab_offset, len(names), 0, 0, 1, 0)),
            (b"shstrtab", (_SHT_STRTAB, 0, 0, section_names_offset, len(section_names), 0, 0, 1, 0)),
        )
    )
    sections_offset = append(sections)

    for index, (segment, offset) in enumerate(zip(segments, offsets, strict=True)):
        at = header_size + phdr_size * index
        filesz, paddr = len(segment.data), segment.paddr
        if wide:
            fields = (segment.type, segment.flags, offset, paddr, paddr, filesz, segment.memsz, segment.align)
            struct.pack_into("<IIQQQQQQ", body, at, *fields)
        else:
            fields = (segment.type, offset, paddr, paddr, filesz, segment.memsz, segment.flags, segment.align)
            struct.pack_into("<IIIIIIII", body, at, *fields)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    machine = EM_X86_64 if wide else EM_386
    head = (
        _ET_EXEC,
        machine,
        1,
        entry,
        header_size,
        sections_offset,
        0,
        header_size,
        phdr_size,
        len(segments),
        shdr_size,
        5,
        4,
    )
    struct.pack_into("<16sHHIQQQIHHHHHH" if wide else "<16sHHIIIIIHHHHHH", body, 0, ident, *head)
    return bytes(body)
