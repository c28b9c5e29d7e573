# An entry of the memory map, where another is.
#
# In:       edi = place in the map, ebx = entries, eax = address, edx = bytes, [esp + 4] = type
# Out:      those from there on one place up, ebx = entries
# Clobbers: nothing else
memmap_insert:
    push ecx
    push esi
    push edi
    imul ecx, ebx, SIZEOF_HVM_MEMMAP_ENTRY
    lea esi, [ecx + MEMMAP_PADDR]       # the end of the map
    mov ecx, esi
    sub ecx, edi
    shr ecx, 2
    sub esi, 4
    lea edi, [esi + SIZEOF_HVM_MEMMAP_ENTRY]
    std
    rep movsd
    cld
    inc ebx
    pop edi
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_ADDR], eax
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_ADDR + 4], ecx
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_SIZE], edx
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_SIZE + 4], ecx
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_RESERVED], ecx
    mov ecx, dword ptr [esp + 12]
    mov dword ptr [edi + HVM_MEMMAP_ENTRY_TYPE], ecx
    pop esi
    pop ecx
    ret
