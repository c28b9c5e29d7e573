# What the firmware adds to the host's memory map, as entries of the PVH map: data, which e820.s copies.
#
# In:       LOW_ROM_START, LOW_ROM_END, ROM_PADDR, ROM_SIZE, as the size of the ROM gives them
# Out:      two entries at rom_memmap_low, one at rom_memmap_high
# Clobbers: nothing

.balign 4, 0
rom_memmap_low:                         # RAM, and the end of the ROM once more below 1 MiB
    .quad 0, LOW_ROM_START
    .long MEMMAP_TYPE_RAM, 0
    .quad LOW_ROM_START, LOW_ROM_END - LOW_ROM_START
    .long MEMMAP_TYPE_RESERVED, 0
rom_memmap_high:
    .quad ROM_PADDR, ROM_SIZE
    .long MEMMAP_TYPE_RESERVED, 0
