"""ELF: its headers as they lie in a file, for both classes.

Source: System V ABI, "Object Files": figures "ELF Header", "ELF Identification", "Program Header", "Section Header", "Symbol
Table Entry", "Note Information"; the x86 supplements for EM_386 and EM_X86_64. Fields keep their names; those of e_ident are
parted.
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


class Symbol32(NamedTuple):
    """Elf32_Sym. `st_name` is an offset in the string table, `st_shndx` the number of a section, `st_size` in bytes."""

    st_name: int
    st_value: int
    st_size: int
    st_info: int
    st_other: int
    st_shndx: int


class Symbol64(NamedTuple):
    """Elf64_Sym: the same in another order."""

    st_name: int
    st_info: int
    st_other: int
    st_shndx: int
    st_value: int
    st_size: int


class NoteHead(NamedTuple):
    """What a note begins with: its name and its descriptor follow, each padded to 4 bytes."""

    n_namesz: int
    n_descsz: int
    n_type: int


class ElfLayouts(NamedTuple):
    """The headers of one class. The program headers of the two classes have the same fields, and so have the symbols."""

    header: Layout[ElfHeader]
    program_header: Layout[Any]
    section_header: Layout[SectionHeader]
    symbol: Layout[Any]


_IDENT: Final = ("4s", "B", "B", "B", "B", "8s")

LAYOUTS: Final = {  # by the bits of the class
    32: ElfLayouts(
        Layout(ElfHeader, (*_IDENT, *"HHIIIIIHHHHHH"), "ELF32_EHDR"),
        Layout(ProgramHeader32, "IIIIIIII", "ELF32_PHDR"),
        Layout(SectionHeader, "IIIIIIIIII", "ELF32_SHDR"),
        Layout(Symbol32, "IIIBBH", "ELF32_SYM"),
    ),
    64: ElfLayouts(
        Layout(ElfHeader, (*_IDENT, *"HHIQQQIHHHHHH"), "ELF64_EHDR"),
        Layout(ProgramHeader64, "IIQQQQQQ", "ELF64_PHDR"),
        Layout(SectionHeader, "IIQQQQIIQQ", "ELF64_SHDR"),
        Layout(Symbol64, "IBBHQQ", "ELF64_SYM"),
    ),
}
NOTE_HEAD: Final = Layout(NoteHead, "III", "ELF_NHDR")
