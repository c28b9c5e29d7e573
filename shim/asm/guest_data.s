# The guest's texts, and the table of its checks.
#
# A template is strings with a field behind each: its kind and its offset in the structure, a byte each; FIELD_END ends it.

hex_digits:
    .ascii "0123456789abcdef"
no_start_info:                          # stands in for one that cannot be read
    .skip SIZEOF_HVM_START_INFO, 0

line_hello:
    .asciz "pvhguest "
text_check:
    .asciz "check "
text_result:
    .asciz "result"
text_ok:
    .asciz " ok"
text_fail:
    .asciz " FAIL"
text_memmap:
    .asciz "memmap "
text_module:
    .asciz "module "
text_cmdline:
    .asciz "cmdline "
text_none:
    .asciz "none"
text_unreachable:
    .asciz "unreachable"
line_no_start_info:
    .asciz "start_info none\n"

text_elf:
    .asciz " elf"
text_load:
    .asciz "load "

line_image:
    .asciz "\nimage base="
    .byte FIELD_HEX32, STATE_BASE
    .asciz " displacement="
    .byte FIELD_HEX32, STATE_DISPLACEMENT
    .asciz " sum="
    .byte FIELD_HEX32, STATE_IMAGE_SUM
    .asciz "\n"
    .byte FIELD_END

line_load:
    .asciz " paddr="
    .byte FIELD_HEX64, REGION_PADDR
    .asciz " filesz="
    .byte FIELD_HEX32, REGION_FILESZ
    .asciz " memsz="
    .byte FIELD_HEX32, REGION_MEMSZ
    .asciz ""
    .byte FIELD_END
line_load_hash:
    .asciz " hash="
    .byte FIELD_HEX32, REGION_FOUND_HASH
    .asciz ""
    .byte FIELD_END
line_load_zeros:
    .asciz " zeros="
    .byte FIELD_HEX32, REGION_FOUND_ZEROS
    .asciz "\n"
    .byte FIELD_END

line_state:
    .asciz "reg eip="
    .byte FIELD_HEX32, STATE_EIP
    .asciz " ebx="
    .byte FIELD_HEX32, STATE_EBX
    .asciz " eax="
    .byte FIELD_HEX32, STATE_EAX
    .asciz " ecx="
    .byte FIELD_HEX32, STATE_ECX
    .asciz " edx="
    .byte FIELD_HEX32, STATE_EDX
    .asciz " esi="
    .byte FIELD_HEX32, STATE_ESI
    .asciz " edi="
    .byte FIELD_HEX32, STATE_EDI
    .asciz " ebp="
    .byte FIELD_HEX32, STATE_EBP
    .asciz " esp="
    .byte FIELD_HEX32, STATE_ESP
    .asciz " cr0="
    .byte FIELD_HEX32, STATE_CR0
    .asciz " cr4="
    .byte FIELD_HEX32, STATE_CR4
    .asciz " eflags="
    .byte FIELD_HEX32, STATE_EFLAGS
    .asciz "\nseg cs="
    .byte FIELD_HEX16, STATE_CS
    .asciz " ds="
    .byte FIELD_HEX16, STATE_DS
    .asciz " es="
    .byte FIELD_HEX16, STATE_ES
    .asciz " ss="
    .byte FIELD_HEX16, STATE_SS
    .asciz " fs="
    .byte FIELD_HEX16, STATE_FS
    .asciz " gs="
    .byte FIELD_HEX16, STATE_GS
    .asciz " tr="
    .byte FIELD_HEX16, STATE_TR
    .asciz "\n"
    .byte FIELD_END

line_mtrr:
    .asciz "mtrr def_type="
    .byte FIELD_HEX64, STATE_MTRR_DEF_TYPE
    .asciz "\n"
    .byte FIELD_END
line_no_mtrr:
    .asciz "mtrr none\n"
    .byte FIELD_END

line_start_info:
    .asciz "start_info magic="
    .byte FIELD_HEX32, HVM_START_INFO_MAGIC
    .asciz " version="
    .byte FIELD_DECIMAL, HVM_START_INFO_VERSION
    .asciz " flags="
    .byte FIELD_HEX32, HVM_START_INFO_FLAGS
    .asciz " nr_modules="
    .byte FIELD_DECIMAL, HVM_START_INFO_NR_MODULES
    .asciz " modlist="
    .byte FIELD_HEX64, HVM_START_INFO_MODLIST_PADDR
    .asciz " cmdline="
    .byte FIELD_HEX64, HVM_START_INFO_CMDLINE_PADDR
    .asciz " rsdp="
    .byte FIELD_HEX64, HVM_START_INFO_RSDP_PADDR
    .asciz " memmap="
    .byte FIELD_HEX64, HVM_START_INFO_MEMMAP_PADDR
    .asciz " memmap_entries="
    .byte FIELD_DECIMAL, HVM_START_INFO_MEMMAP_ENTRIES
    .asciz "\n"
    .byte FIELD_END

line_memmap:
    .asciz " addr="
    .byte FIELD_HEX64, HVM_MEMMAP_ENTRY_ADDR
    .asciz " size="
    .byte FIELD_HEX64, HVM_MEMMAP_ENTRY_SIZE
    .asciz " type="
    .byte FIELD_DECIMAL, HVM_MEMMAP_ENTRY_TYPE
    .asciz "\n"
    .byte FIELD_END

line_module:
    .asciz " paddr="
    .byte FIELD_HEX64, HVM_MODLIST_ENTRY_PADDR
    .asciz " size="
    .byte FIELD_HEX64, HVM_MODLIST_ENTRY_SIZE
    .asciz ""
    .byte FIELD_END
line_sum:
    .asciz " sum="
    .byte FIELD_HEX32, STATE_MODULE_SUM
    .asciz " cmdline="
    .byte FIELD_END

# Address and name of each check; address 0 ends the table.
.macro CHECK name
    .long check_\name
    .asciz "\name"
.endm

check_table:
    CHECK cr0
    CHECK cr4
    CHECK eflags
    CHECK eip
    CHECK placement
    CHECK image
    CHECK load_data
    CHECK load_bss
    CHECK segments
    CHECK tr
    CHECK mtrr
    CHECK ebx
    CHECK below_1g
    CHECK magic
    CHECK version
    CHECK memmap
    CHECK memmap_entries
    CHECK memmap_sorted
    CHECK memmap_ram
    CHECK start_info_ram
    CHECK modules
    CHECK reserved
    .long 0

# What this very file is: the linker writes it here, and behind it regions, relocations and the name.
    .balign 4, 0
shape:
