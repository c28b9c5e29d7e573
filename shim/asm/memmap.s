# e820 entries, as a host packs them (20 bytes), to the PVH memory map (24 bytes).
#
# In:       ebp = parameter block, esi = first e820 entry
# Out:      the memory map at MEMMAP_PADDR, esi behind the last e820 entry
# Clobbers: eax, ecx, edx, edi

    POST MEMMAP
    xor eax, eax                        # what a map entry's reserved field holds
    mov edi, MEMMAP_PADDR
    mov edx, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]
memmap_entry:
    mov ecx, SIZEOF_E820_ENTRY / 4
    rep movsd
    stosd
    dec edx
    jnz memmap_entry
