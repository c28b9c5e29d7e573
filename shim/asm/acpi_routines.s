# What acpi.s calls.
#
# In:       each says
# Out:      each says
# Clobbers: each says

# A file in fw_cfg's directory, by its name. A directory that is longer than the piece that is in memory is read anew: the piece
# may be another.
#
# In:       esi = name, LOADER_FILE_NAME_BYTES padded with zeros; ebp = fw_cfg reader
# Out:      CF clear: eax = the control word that reads it from its start, ecx = bytes; CF set: there is none
# Clobbers: eax, ecx, edx
file_find:
    push ebx
    push edi
    mov ebx, dword ptr [TRANSFER_PADDR]
    bswap ebx
    cmp ebx, FW_CFG_DIR_CHUNK
    jbe file_piece
    mov eax, FW_CFG_READ_FILE_DIR
    mov ecx, FW_CFG_DIR_FIRST_BYTES
    mov edi, TRANSFER_PADDR
    call ebp
file_piece:
    mov edx, FW_CFG_DIR_CHUNK
    mov edi, TRANSFER_PADDR + FW_CFG_FILE_COUNT_BYTES
    mov eax, dword ptr [esi + 8]        # in these bytes most names differ
file_entry:
    dec ebx
    js file_none
    cmp eax, dword ptr [edi + FW_CFG_FILE_NAME + 8]
    jne file_next
    push esi
    lea eax, [edi + FW_CFG_FILE_NAME]
    call names_equal
    pop esi
    je file_found
    mov eax, dword ptr [esi + 8]
file_next:
    add edi, SIZEOF_FW_CFG_FILE
    dec edx
    jnz file_entry
    mov eax, FW_CFG_READ_ON
    mov ecx, FW_CFG_DIR_NEXT_BYTES
    mov edi, TRANSFER_PADDR + FW_CFG_FILE_COUNT_BYTES
    call ebp
    jmp file_piece
file_found:
    movzx eax, word ptr [edi + FW_CFG_FILE_SELECT]
    or eax, FW_CFG_READ_SELECTED
    mov ecx, dword ptr [edi + FW_CFG_FILE_SIZE]
    bswap ecx
    pop edi
    pop ebx
    clc
    ret
file_none:
    pop edi
    pop ebx
    stc
    ret

# Memory for a file.
#
# In:       eax = what is free: where its end stands, and behind that its start; ecx = bytes; esi = command
# Out:      CF clear: edx = physical address, the free part ends there; CF set: there is no room
# Clobbers: nothing else; does not come back if the alignment is no power of two
acpi_take:
    mov edx, dword ptr [eax]
    sub edx, ecx
    jb 1f
    push ecx
    mov ecx, dword ptr [esi + LOADER_ALLOCATE_ALIGN]
    neg ecx                             # a power of two becomes its mask
    jz acpi_bad_script
    and edx, ecx
    neg ecx
    dec ecx
    test ecx, dword ptr [esi + LOADER_ALLOCATE_ALIGN]
    jnz acpi_bad_script                 # it was none
    pop ecx
    cmp edx, dword ptr [eax + 4]
    jb 1f
    mov dword ptr [eax], edx
1:  ret

# A file that has memory. The last one first: most of a script is about the tables, which get theirs last.
#
# In:       eax = name, edi = end of the list
# Out:      edx = its place in the list; does not come back if it is in none
# Clobbers: ecx
acpi_find:
    push esi
    push edi
    mov edx, edi
1:  cmp edx, ALLOCATED_PADDR
    je acpi_bad_file
    sub edx, SIZEOF_ALLOCATED
    mov esi, dword ptr [edx + ALLOCATED_NAME]
    mov edi, eax
    mov ecx, 4                          # as names_equal, but in place: this is the most of a script
    repe cmpsd
    jne 1b
    cmp byte ptr [eax + 15], 0
    jne 3f
2:  pop edi
    pop esi
    ret
3:  mov ecx, LOADER_FILE_NAME_BYTES / 4 - 4
    repe cmpsd
    je 2b
    jmp 1b

# Whether two names are one.
#
# In:       eax, esi = names, LOADER_FILE_NAME_BYTES padded with zeros
# Out:      ZF set: they are
# Clobbers: ecx, esi
names_equal:
    push edi
    mov edi, eax
    mov ecx, 4
    repe cmpsd
    jne 1f
    cmp byte ptr [eax + 15], 0          # most names end here
    je 1f
    mov ecx, LOADER_FILE_NAME_BYTES / 4 - 4
    repe cmpsd
1:  pop edi
    ret

# A span of such a file.
#
# In:       edx = its place in the list, eax = offset, ecx = bytes
# Out:      eax = physical address, ecx as it was; does not come back if the span reaches beyond the file
# Clobbers: nothing else
acpi_bound:
    add ecx, eax
    jc acpi_bad_script
    cmp ecx, dword ptr [edx + ALLOCATED_SIZE]
    ja acpi_bad_script
    sub ecx, eax
    add eax, dword ptr [edx + ALLOCATED_ADDRESS]
    ret
