"""Writes small ELF executables: the firmware with its symbols for a debugger, and the conformance guests.

Source: System V ABI, "Object Files" (ELF header, program headers, symbol table); pyelftools reads ELF, but writes none.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from .abi.elf import (
    ELF_MAGIC,
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    EM_386,
    EM_X86_64,
    ET_EXEC,
    EV_CURRENT,
    NOTE_ALIGN,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
    SHT_SYMTAB,
    STB_GLOBAL,
    STT_FUNC,
)
from .abi.elf_layouts import (
    LAYOUTS,
    NOTE_HEAD,
    ElfHeader,
    NoteHead,
    ProgramHeader32,
    ProgramHeader64,
    SectionHeader,
    Symbol32,
    Symbol64,
)
from .abi.x86 import PAGE_SIZE

_DATA_ALIGN: Final = 16
_TEXT_SECTION: Final = 1


class ElfSegment(NamedTuple):
    """A program header and its bytes. `memsz` is in bytes, at least len(data) unless the file is to be wrong.

    `paddr` is a physical address, `vaddr` the virtual one, None if it is the same. If `align` is a page or more, the bytes lie
    in the file where they can be mapped from, else at a multiple of 16 and `skew` bytes.
    """

    type: int
    paddr: int
    data: bytes
    memsz: int
    flags: int
    align: int
    vaddr: int | None = None
    skew: int = 0


def note(name: bytes, kind: int, descriptor: bytes) -> bytes:
    """A note packed to 4 bytes; `name` with its terminator."""

    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % NOTE_ALIGN)

    return NOTE_HEAD.pack(NoteHead(len(name), len(descriptor), kind)) + padded(name) + padded(descriptor)


def write_elf(
    bits: int,
    entry: int,
    segments: Sequence[ElfSegment],
    symbols: Mapping[str, int],
    *,
    text: int = 0,
    note_sections: Sequence[bytes] = (),
    debug: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """An executable of 32 or 64 bits with a .text section over the segment number `text`, to which the symbols belong, a
    section of type SHT_NOTE over each of the `note_sections`, and the sections `debug` by name; those are in no segment."""
    wide = bits == 64
    header_layout, phdr_layout, shdr_layout, sym_layout = LAYOUTS[bits]
    body = bytearray(header_layout.size + phdr_layout.size * len(segments))

    def append(data: bytes, align: int = _DATA_ALIGN, remainder: int = 0) -> int:
        body.extend(bytes((remainder - len(body)) % align))
        offset = len(body)
        body.extend(data)
        return offset

    offsets = [
        append(segment.data, segment.align, _vaddr(segment) % segment.align)
        if segment.align >= PAGE_SIZE
        else append(segment.data, remainder=segment.skew)
        for segment in segments
    ]
    notes_offsets = [append(notes) for notes in note_sections]
    debug_offsets = [append(data) for data in debug.values()]
    symtab, names = _symbol_table(wide, symbols)
    symtab_offset, strtab_offset = append(symtab), append(names)
    code = segments[text]
    sections = [
        ("", (0,) * 9),
        (".text", (SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, _vaddr(code), offsets[text], len(code.data), 0, 0, 1, 0)),
        (".symtab", (SHT_SYMTAB, 0, 0, symtab_offset, len(symtab), 3, 1, 8, sym_layout.size)),
        (".strtab", (SHT_STRTAB, 0, 0, strtab_offset, len(names), 0, 0, 1, 0)),
        *(
            (f".note.{number}", (SHT_NOTE, SHF_ALLOC, 0, offset, len(notes), 0, 0, NOTE_ALIGN, 0))
            for number, (notes, offset) in enumerate(zip(note_sections, notes_offsets, strict=True))
        ),
        *(
            (name, (SHT_PROGBITS, 0, 0, offset, len(data), 0, 0, 1, 0))
            for (name, data), offset in zip(debug.items(), debug_offsets, strict=True)
        ),
    ]
    section_names = b"".join(name.encode() + b"\0" for name, _ in sections) + b".shstrtab\0"
    section_names_offset = append(section_names)
    sections.append((".shstrtab", (SHT_STRTAB, 0, 0, section_names_offset, len(section_names), 0, 0, 1, 0)))
    sections_offset = append(
        b"".join(
            shdr_layout.pack(SectionHeader(section_names.index(f"{name}\0".encode()), *fields)) for name, fields in sections
        )
    )

    for index, (segment, offset) in enumerate(zip(segments, offsets, strict=True)):
        fields = {
            "p_type": segment.type,
            "p_flags": segment.flags,
            "p_offset": offset,
            "p_vaddr": _vaddr(segment),
            "p_paddr": segment.paddr,
            "p_filesz": len(segment.data),
            "p_memsz": segment.memsz,
            "p_align": segment.align,
        }
        at = header_layout.size + phdr_layout.size * index
        body[at : at + phdr_layout.size] = phdr_layout.pack((ProgramHeader64 if wide else ProgramHeader32)(**fields))
    head = ElfHeader(
        ei_mag=ELF_MAGIC,
        ei_class=ELFCLASS64 if wide else ELFCLASS32,
        ei_data=ELFDATA2LSB,
        ei_version=EV_CURRENT,
        ei_osabi=0,
        ei_pad=bytes(8),
        e_type=ET_EXEC,
        e_machine=EM_X86_64 if wide else EM_386,
        e_version=EV_CURRENT,
        e_entry=entry,
        e_phoff=header_layout.size,
        e_shoff=sections_offset,
        e_flags=0,
        e_ehsize=header_layout.size,
        e_phentsize=phdr_layout.size,
        e_phnum=len(segments),
        e_shentsize=shdr_layout.size,
        e_shnum=len(sections),
        e_shstrndx=len(sections) - 1,
    )
    body[: header_layout.size] = header_layout.pack(head)
    return bytes(body)


def _vaddr(segment: ElfSegment) -> int:
    return segment.paddr if segment.vaddr is None else segment.vaddr


def _symbol_table(wide: bool, symbols: Mapping[str, int]) -> tuple[bytes, bytes]:
    """The symbols as functions of .text, and their names."""
    layout, record = LAYOUTS[64 if wide else 32].symbol, Symbol64 if wide else Symbol32
    table, names = bytearray(layout.size), bytearray(1)
    for name, value in sorted(symbols.items(), key=lambda item: (item[1], item[0])):
        fields = {"st_name": len(names), "st_info": STB_GLOBAL << 4 | STT_FUNC, "st_shndx": _TEXT_SECTION}
        table += layout.pack(record(**fields, st_value=value, st_size=0, st_other=0))
        names += name.encode() + b"\0"
    return bytes(table), bytes(names)
