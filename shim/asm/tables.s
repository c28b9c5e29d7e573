# The descriptor tables as the ROM holds them. The accessed bits are set already, so that loading a segment writes nothing.

.balign 8, 0
rom_gdt:
    .quad 0
    .quad DESC_TSS
    .quad DESC_CODE32
    .quad DESC_DATA32
rom_gdtr:
    .word GDT_SIZE - 1                  # the limit is the last byte
    .long rom_gdt
ram_gdtr:
    .word GDT_SIZE - 1
    .long GDT_PADDR
