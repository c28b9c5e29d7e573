"""ELF: its headers as they lie in a file, for both classes.

Source: System V ABI, "Object Files": figures "ELF Header", "Program Header", "Section Header", "Note Information". Fields keep
their names; those of e_ident are parted.
"""

from typing import Any, Final, NamedTuple

from .layout import Layout


class ElfHeader(NamedTuple):
    """Elf32_Ehdr and Elf64_Ehdr. Offsets in the file; sizes in bytes."""

    ei_mag: bytes
    ei_class: int
    ei_data: int
    ei_version: int
    ei_osabi: int
    ei_pad: bytes
    e_type: int
    e_machine: int
    e_version: int
    e_entry: int
    e_phoff: int
    e_shoff: int
    e_flags: int
    e_ehsize: int
    e_phentsize: int
    e_phnum: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class ProgramHeader32(NamedTuple):
    """Elf32_Phdr. An offset in the file, addresses, sizes in bytes."""

    p_type: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_flags: int
    p_align: int


class ProgramHeader64(NamedTuple):
    """Elf64_Phdr: the same in another order."""

    p_type: int
    p_flags: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_align: int


class SectionHeader(NamedTuple):
    """Elf32_Shdr and Elf64_Shdr."""

    sh_name: int
    sh_type: int
    sh_flags: int
    sh_addr: int
    sh_offset: int
    sh_size: int
    sh_link: int
    sh_info: int
    sh_addralign: int
    sh_entsize: int


class NoteHead(NamedTuple):
    """What a note begins with: its name and its descriptor follow, each padded to 4 bytes."""

    n_namesz: int
    n_descsz: int
    n_type: int


class ElfLayouts(NamedTuple):
    """The headers of one class. The program headers of the two classes have the same fields."""

    header: Layout[ElfHeader]
    program_header: Layout[Any]
    section_header: Layout[SectionHeader]


_IDENT: Final = ("4s", "B", "B", "B", "B", "8s")

LAYOUTS: Final = {  # by the bits of the class
    32: ElfLayouts(
        Layout(ElfHeader, (*_IDENT, *"HHIIIIIHHHHHH"), "ELF32_EHDR"),
        Layout(ProgramHeader32, "IIIIIIII", "ELF32_PHDR"),
        Layout(SectionHeader, "IIIIIIIIII", "ELF32_SHDR"),
    ),
    64: ElfLayouts(
        Layout(ElfHeader, (*_IDENT, *"HHIQQQIHHHHHH"), "ELF64_EHDR"),
        Layout(ProgramHeader64, "IIQQQQQQ", "ELF64_PHDR"),
        Layout(SectionHeader, "IIQQQQIIQQ", "ELF64_SHDR"),
    ),
}
NOTE_HEAD: Final = Layout(NoteHead, "III", "ELF_NHDR")
NOTE_ALIGN: Final = 4  # bytes, whatever the p_align of the segment says

SHT_SYMTAB: Final = 2  # sh_type
SHT_STRTAB: Final = 3
SHT_NOTE: Final = 7
ELFCLASS64: Final = 2  # ei_class
ELFDATA2LSB: Final = 1  # ei_data: little-endian
