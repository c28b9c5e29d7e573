# The host's memory map (etc/e820) to the PVH memory map: what the host says, and what only the firmware knows: the ROM, what
# lies below 1 MiB, and on q35 the window on configuration space.
#
# In:       ebp = fw_cfg reader
# Out:      the memory map at MEMMAP_PADDR, sorted, no two ranges overlapping; ebx = its entries
# Clobbers: eax, ecx, edx, esi, edi

    POST MEMMAP

# The file's key and size stand in the directory. Almost always the first piece of it has the file.
    mov eax, FW_CFG_READ_FILE_DIR
    mov ecx, FW_CFG_DIR_FIRST_BYTES
    mov edi, TRANSFER_PADDR
    call ebp
    mov ebx, dword ptr [TRANSFER_PADDR]
    bswap ebx
    cmp ebx, FW_CFG_MAX_FILES
    ja e820_bad_directory
e820_chunk:
    mov ecx, FW_CFG_DIR_CHUNK
    mov esi, TRANSFER_PADDR + FW_CFG_FILE_COUNT_BYTES
e820_file:
    dec ebx
    js e820_no_file
    cmp dword ptr [esi + FW_CFG_FILE_NAME + 4], E820_FILE_4 # first: many begin with "etc/"
    jne e820_next_file
    cmp dword ptr [esi + FW_CFG_FILE_NAME], E820_FILE_0
    jne e820_next_file
    cmp byte ptr [esi + FW_CFG_FILE_NAME + 8], 0
    je e820_found
e820_next_file:
    add esi, SIZEOF_FW_CFG_FILE
    dec ecx
    jnz e820_file
    mov eax, FW_CFG_READ_ON
    mov ecx, FW_CFG_DIR_NEXT_BYTES
    mov edi, TRANSFER_PADDR + FW_CFG_FILE_COUNT_BYTES
    call ebp
    jmp e820_chunk

e820_found:
    mov ecx, dword ptr [esi + FW_CFG_FILE_SIZE]
    bswap ecx
    lea eax, [ecx - 1]                  # 1..max in one comparison: 0 becomes the largest number
    cmp eax, FW_CFG_MAX_E820 * SIZEOF_E820_ENTRY - 1
    ja e820_bad_count
    lea ebx, [ecx + E820_PADDR]         # where the host's entries will end
    movzx eax, word ptr [esi + FW_CFG_FILE_SELECT] # big-endian, as it goes into the control word
    or eax, FW_CFG_READ_SELECTED
    mov ecx, dword ptr [esi + FW_CFG_FILE_SIZE]
    mov edi, E820_PADDR
    call ebp

# First the RAM below the hole in front of 1 MiB, and that hole. The host's RAM from 0 then begins behind it.
    MACHINE esi, MACHINE_LOW
    mov edi, MEMMAP_PADDR
    mov ecx, 2 * SIZEOF_HVM_MEMMAP_ENTRY / 4
    rep movsd
    mov esi, E820_PADDR
    xor edx, edx                        # how many begin at 0
e820_entry:
    mov eax, dword ptr [esi + E820_ENTRY_SIZE]
    or eax, dword ptr [esi + E820_ENTRY_SIZE + 4]
    jz e820_empty                       # says nothing
    mov eax, dword ptr [esi + E820_ENTRY_ADDR]
    or eax, dword ptr [esi + E820_ENTRY_ADDR + 4]
    jnz e820_copy
    inc edx
    cmp dword ptr [esi + E820_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne e820_bad_low
    mov dword ptr [esi + E820_ENTRY_ADDR], LOW_HOLE_END
    sub dword ptr [esi + E820_ENTRY_SIZE], LOW_HOLE_END
    sbb dword ptr [esi + E820_ENTRY_SIZE + 4], eax
    jc e820_bad_low
    mov eax, dword ptr [esi + E820_ENTRY_SIZE]
    or eax, dword ptr [esi + E820_ENTRY_SIZE + 4]
    jz e820_bad_low
e820_copy:
    mov ecx, SIZEOF_E820_ENTRY / 4
    rep movsd
    xor eax, eax                        # what a map entry's reserved field holds
    stosd
e820_next:
    cmp esi, ebx
    jb e820_entry
    jne e820_bad_count                  # the file ends within an entry
    dec edx
    jnz e820_bad_low
    MACHINE esi, MACHINE_HIGH
    mov ecx, dword ptr [esi + MACHINE_HIGH_WORDS - MACHINE_HIGH]
    rep movsd

# Sorted by walking up and, where two are the wrong way round, exchanging them and going one back. A map that is sorted
# already costs one look at each entry, and each pair of neighbours is looked at after its last change: so at the end none
# overlap.
    mov esi, MEMMAP_PADDR
e820_sort:
    mov eax, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR]
    mov edx, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4]
    add eax, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE]
    adc edx, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE + 4]
    jc e820_overlap                     # it wraps
    add esi, SIZEOF_HVM_MEMMAP_ENTRY
    cmp esi, edi
    je e820_sorted
    sub eax, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR]
    sbb edx, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4]
    jc e820_sort                        # it ends before the next one begins...
    or eax, edx
    jz e820_sort                        # ...or where that begins

# Out of order, or overlapping: which of the two, the addresses tell.
    mov eax, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR]
    mov edx, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4]
    sub eax, dword ptr [esi - SIZEOF_HVM_MEMMAP_ENTRY + HVM_MEMMAP_ENTRY_ADDR]
    sbb edx, dword ptr [esi - SIZEOF_HVM_MEMMAP_ENTRY + HVM_MEMMAP_ENTRY_ADDR + 4]
    jnc e820_overlap
    mov ecx, SIZEOF_HVM_MEMMAP_ENTRY / 4
1:  mov eax, dword ptr [esi + ecx * 4 - 4]
    xchg eax, dword ptr [esi + ecx * 4 - 4 - SIZEOF_HVM_MEMMAP_ENTRY]
    mov dword ptr [esi + ecx * 4 - 4], eax
    dec ecx
    jnz 1b
    sub esi, 2 * SIZEOF_HVM_MEMMAP_ENTRY # the one before the lower of the two: nothing sorts before the first, RAM from 0
    jmp e820_sort

e820_empty:
    add esi, SIZEOF_E820_ENTRY
    jmp e820_next

e820_sorted:
.if CHIPSET
# Of the host's ranges none may lie between 0xa0000 and the low copy of the ROM: the third is the RAM from 1 MiB on.
    cmp dword ptr [MEMMAP_PADDR + 2 * SIZEOF_HVM_MEMMAP_ENTRY + HVM_MEMMAP_ENTRY_ADDR], LOW_HOLE_END
    jne e820_overlap
.endif
    lea eax, [edi - MEMMAP_PADDR]
    xor edx, edx
    mov ecx, SIZEOF_HVM_MEMMAP_ENTRY
    div ecx
    mov ebx, eax
