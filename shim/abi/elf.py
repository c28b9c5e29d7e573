"""ELF: the numbers in its headers.

Source: System V ABI, "Object Files", and the x86 supplements for EM_386 and EM_X86_64; elf_layouts.py has the headers.
"""

from typing import Final

ELF_MAGIC: Final = b"\x7fELF"  # ei_mag
EI_CLASS: Final = 4  # offset in the file, as are the next two
EI_DATA: Final = 5
E_MACHINE: Final = 18  # of 2 bytes; the last of the fields that both classes have at the same place
EI_NIDENT: Final = 16  # bytes of e_ident
ELFCLASS32: Final = 1  # ei_class
ELFCLASS64: Final = 2
ELFDATA2LSB: Final = 1  # ei_data: little-endian
ELFDATA2MSB: Final = 2  # big-endian
EV_CURRENT: Final = 1  # ei_version, e_version
ET_EXEC: Final = 2  # e_type
EM_386: Final = 3  # e_machine
EM_X86_64: Final = 62
PN_XNUM: Final = 0xFFFF  # e_phnum: the number stands in sh_info of section 0

PT_NULL: Final = 0  # p_type
PT_LOAD: Final = 1
PT_NOTE: Final = 4
PF_X: Final = 1  # p_flags
PF_W: Final = 2
PF_R: Final = 4

SHT_PROGBITS: Final = 1  # sh_type
SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_NOTE: Final = 7
SHF_ALLOC: Final = 2  # sh_flags
SHF_EXECINSTR: Final = 4
SHN_UNDEF: Final = 0  # st_shndx
SHN_ABS: Final = 0xFFF1
STB_GLOBAL: Final = 1  # st_info, the upper half
STT_NOTYPE: Final = 0  # st_info, the lower half
STT_FUNC: Final = 2

NOTE_ALIGN: Final = 4  # bytes, whatever the p_align of the segment says
GNU_NOTE_NAME: Final = b"GNU\0"  # binutils include/elf/common.h, NT_GNU_*
LINUX_NOTE_NAME: Final = b"Linux\0"  # Linux include/linux/elfnote.h
NT_GNU_ABI_TAG: Final = 1
NT_GNU_BUILD_ID: Final = 3
NT_GNU_PROPERTY_TYPE_0: Final = 5
