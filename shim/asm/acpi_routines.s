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
    mov ecx, FW_CFG_FILE_COUNT_BYTES + FW_CFG_DIR_CHUNK * SIZEOF_FW_CFG_FILE
    mov edi, TRANSFER_PADDR
    call ebp
file_piece:
    mov edx, FW_CFG_DIR_CHUNK
    mov edi, TRANSFER_PADDR + FW_CFG_FILE_COUNT_BYTES
file_entry:
    dec ebx
    js file_none
    mov eax, dword ptr [esi + 8]
    cmp eax, dword ptr [edi + FW_CFG_FILE_NAME + 8]
    jne file_next
    push esi
    lea eax, [edi + FW_CFG_FILE_NAME]
    call names_equal
    pop esi
    je file_found
file_next:
    add edi, SIZEOF_FW_CFG_FILE
    dec edx
    jnz file_entry
    mov eax, FW_CFG_READ_ON
    mov ecx, FW_CFG_DIR_CHUNK * SIZEOF_FW_CFG_FILE
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

# A file that has memory. The last one first: most of a script is about the tables, which get theirs last.
#
# In:       eax = name, edi = end of the list
# Out:      edx = its place in the list; does not come back if it is in none
# Clobbers: ecx
acpi_find:
    push esi
    mov edx, edi
1:  cmp edx, ALLOCATED_PADDR
    je acpi_bad_file
    sub edx, SIZEOF_ALLOCATED
    mov esi, dword ptr [edx + ALLOCATED_NAME]
    mov ecx, dword ptr [eax + 8]        # behind "etc/acpi" names differ
    cmp ecx, dword ptr [esi + 8]
    jne 1b
    call names_equal
    jne 1b
    pop esi
    ret

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

# Eight bytes of the sum, from so many before esi on. Clobbers: al.
.macro SUM_EIGHT before
    add al, byte ptr [esi - \before]
    add al, byte ptr [esi - \before + 1]
    add al, byte ptr [esi - \before + 2]
    add al, byte ptr [esi - \before + 3]
    add al, byte ptr [esi - \before + 4]
    add al, byte ptr [esi - \before + 5]
    add al, byte ptr [esi - \before + 6]
    add al, byte ptr [esi - \before + 7]
.endm

# The sum of bytes. Sums of wider words would have to be taken apart again, since carries run from byte to byte: that takes as
# many instructions. The loop is entered in its middle, so that what is left is a multiple of its 64 bytes.
#
# In:       eax = physical address, ecx = bytes
# Out:      al = their sum, modulo 256
# Clobbers: eax, ecx, edx
sum_bytes:
    push esi
    mov edx, ecx
    shr edx, 6
    and ecx, 63
    lea esi, [eax + ecx]
    neg ecx
    lea ecx, [ecx + ecx * 2 + sum_next] # each add has three bytes
    xor eax, eax
    jmp ecx
sum_loop:
    SUM_EIGHT 64
    SUM_EIGHT 56
    SUM_EIGHT 48
    SUM_EIGHT 40
    SUM_EIGHT 32
    SUM_EIGHT 24
    SUM_EIGHT 16
    SUM_EIGHT 8
sum_next:
    add esi, 64
    dec edx
    jns sum_loop
    pop esi
    ret
