# Whether something lies in RAM, all of it in one range of the memory map.
#
# In:       eax = physical address, ecx = bytes; the memory map in place and sorted
# Out:      CF clear: it does, ecx = its last byte; CF set: it does not, or it is empty or wraps
# Clobbers: ecx, edx, edi
#
# The ROM's own range ends the search: none begins below 4 GiB and ends above.
ram_range:
    dec ecx
    add ecx, eax                        # its last byte
    jc ram_range_no
    mov edx, MEMMAP_PADDR - SIZEOF_HVM_MEMMAP_ENTRY
1:  add edx, SIZEOF_HVM_MEMMAP_ENTRY
    mov edi, dword ptr [edx + HVM_MEMMAP_ENTRY_ADDR]
    add edi, dword ptr [edx + HVM_MEMMAP_ENTRY_SIZE]
    dec edi                             # the last byte of the range
    cmp eax, edi
    ja 1b
    cmp dword ptr [edx + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne ram_range_no
    cmp eax, dword ptr [edx + HVM_MEMMAP_ENTRY_ADDR]
    jb ram_range_no
    cmp edi, ecx                        # CF: the range ends before
    ret
ram_range_no:
    stc
    ret
