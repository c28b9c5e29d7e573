# ACPI tables, as the script in etc/table-loader wants them: files of fw_cfg put into memory, pointers and checksums mended.
#
# In:       ebp = fw_cfg reader, the first piece of the directory at TRANSFER_PADDR, the memory map in place, the initrd too;
#           ebx = entries of the memory map, esi = command line, edx = modules
# Out:      the tables in memory and in the memory map, RSDP_PADDR (0: none); ebx = entries of the map; esi, edx as they were
# Clobbers: eax, ecx, edi
#
# Files get memory downwards from the top of the RAM that begins at 1 MiB, or from the initrd if that lies there, but not below
# the kernel's end. What one needs of the others stands in the list at ALLOCATED_PADDR. While the script runs:
# esi = command, ebx = where the last whole one can begin, edi = end of the list.

    POST ACPI
    push ebx
    push edx
    push esi
    mov dword ptr [RSDP_PADDR], 0
    mov esi, offset acpi_script_name
    call file_find
    jc acpi_done                        # a machine without ACPI
    test ecx, ecx
    jz acpi_done
    cmp ecx, LOADER_MAX_BYTES
    ja acpi_bad_script
    lea ebx, [ecx + LOADER_PADDR - LOADER_ENTRY_BYTES]
    bswap ecx
    mov edi, LOADER_PADDR
    call ebp

    mov eax, LOW_HOLE_END
    add eax, dword ptr [ACPI_RAM + HVM_MEMMAP_ENTRY_SIZE]
    cmp dword ptr [esp + 4], 0          # modules
    je acpi_top
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR]
    cmp ecx, eax
    jae acpi_top
    mov eax, ecx
acpi_top:
    and eax, -PAGE_SIZE
    mov dword ptr [ACPI_TOP], eax
    mov dword ptr [ACPI_BOTTOM], eax
    mov eax, dword ptr [KERNEL_ADDR_PADDR]
    cmp eax, dword ptr [ACPI_TOP]
    jae acpi_low_floor                  # in another range of RAM, and not in the way
    add eax, dword ptr [KERNEL_SIZE_PADDR]
    add eax, PAGE_SIZE - 1
    and eax, -PAGE_SIZE
    cmp eax, LOW_HOLE_END + PAGE_SIZE
    jae acpi_floor
acpi_low_floor:
    mov eax, LOW_HOLE_END + PAGE_SIZE   # some RAM is to be left in front of the tables
acpi_floor:
    mov dword ptr [ACPI_FLOOR], eax

    mov esi, LOADER_PADDR - LOADER_ENTRY_BYTES
    mov edi, ALLOCATED_PADDR
acpi_next:
    add esi, LOADER_ENTRY_BYTES
    cmp esi, ebx
    ja acpi_finish                      # no whole command is left
    mov eax, dword ptr [esi]
    cmp eax, LOADER_ADD_POINTER
    je acpi_add_pointer
    cmp eax, LOADER_ADD_CHECKSUM
    je acpi_add_checksum
    cmp eax, LOADER_ALLOCATE
    je acpi_allocate
    cmp eax, LOADER_WRITE_POINTER
    je acpi_write_pointer
    jmp acpi_next                       # padding, or a command of a later QEMU: those may be passed over

# ALLOCATE: the file goes, aligned, below what is in use. On a PC: into the F segment if it is asked for, or else into the
# upper memory in front of that, which costs no RAM; and where there is no room, into RAM.
acpi_allocate:
    cmp edi, ALLOCATED_END
    jae acpi_bad_script
    push esi
    add esi, LOADER_ALLOCATE_FILE
    mov dword ptr [edi + ALLOCATED_NAME], esi
    call file_find
    pop esi
    jc acpi_bad_file
    mov dword ptr [edi + ALLOCATED_SIZE], ecx
    push eax
.if CHIPSET
    mov eax, FSEG_END
    cmp byte ptr [esi + LOADER_ALLOCATE_ZONE], LOADER_ZONE_FSEG
    je acpi_try
    mov eax, UPPER_END
acpi_try:
    call acpi_take
    jnc acpi_taken
.endif
    mov eax, ACPI_BOTTOM
    call acpi_take
    jc acpi_no_room
acpi_taken:
    pop eax
    mov dword ptr [edi + ALLOCATED_ADDRESS], edx
    mov ecx, dword ptr [edi + ALLOCATED_SIZE]
    bswap ecx
    add edi, SIZEOF_ALLOCATED
    push edi
    mov edi, edx
    call ebp
    pop edi
    jmp acpi_next

# ADD_POINTER: the address of one file is added to 4 or 8 bytes of another; it must fit. Into 1 or 2 none does: all files lie
# above 64 KiB.
acpi_add_pointer:
    lea eax, [esi + LOADER_ADD_POINTER_SRC]
    call acpi_find
    push dword ptr [edx + ALLOCATED_ADDRESS]
    lea eax, [esi + LOADER_ADD_POINTER_DEST]
    call acpi_find
    mov eax, dword ptr [esi + LOADER_ADD_POINTER_OFFSET]
    movzx ecx, byte ptr [esi + LOADER_ADD_POINTER_SIZE]
    call acpi_bound
    pop edx
    cmp ecx, 4
    je acpi_pointer_4
    cmp ecx, 8
    jne acpi_bad_script
    add dword ptr [eax], edx
    adc dword ptr [eax + 4], 0
    jmp acpi_next
acpi_pointer_4:
    add dword ptr [eax], edx
    jc acpi_bad_script
    jmp acpi_next

# ADD_CHECKSUM: a byte becomes such that a span of the file adds up to 0.
acpi_add_checksum:
    lea eax, [esi + LOADER_ADD_CHECKSUM_FILE]
    call acpi_find
    mov eax, dword ptr [esi + LOADER_ADD_CHECKSUM_OFFSET]
    cmp eax, dword ptr [edx + ALLOCATED_SIZE]
    jae acpi_bad_script
    add eax, dword ptr [edx + ALLOCATED_ADDRESS]
    push eax
    mov eax, dword ptr [esi + LOADER_ADD_CHECKSUM_START]
    mov ecx, dword ptr [esi + LOADER_ADD_CHECKSUM_LENGTH]
    call acpi_bound
    call sum_bytes
    pop ecx
    sub byte ptr [ecx], al
    jmp acpi_next

# WRITE_POINTER: the host is told an address, in a file of its own. Only DMA can write.
acpi_write_pointer:
    cmp ebp, offset fw_cfg_read_dma
    jne acpi_next
    lea eax, [esi + LOADER_WRITE_POINTER_SRC]
    call acpi_find
    mov eax, dword ptr [esi + LOADER_WRITE_POINTER_SRC_OFFSET]
    mov ecx, 1
    call acpi_bound
    mov dword ptr [ACPI_POINTER], eax
    mov dword ptr [ACPI_POINTER_HIGH], 0
    movzx eax, byte ptr [esi + LOADER_WRITE_POINTER_SIZE]
    dec eax
    cmp eax, 8 - 1
    ja acpi_bad_script
    push esi
    add esi, LOADER_WRITE_POINTER_DEST
    call file_find
    pop esi
    jc acpi_bad_file
    push edi
    mov edi, ACPI_POINTER
    xor eax, FW_CFG_READ_TO_SKIP        # the key of the file, and to the place in it
    mov ecx, dword ptr [esi + LOADER_WRITE_POINTER_DST_OFFSET]
    bswap ecx
    call ebp
    mov eax, FW_CFG_WRITE_ON
    movzx ecx, byte ptr [esi + LOADER_WRITE_POINTER_SIZE]
    bswap ecx
    call ebp
    pop edi
    jmp acpi_next

# Which of the files with memory is the RSDP? Then the memory map: its RAM ends where the tables begin, and behind them may go on.
acpi_finish:
    mov eax, offset acpi_rsdp_name
    mov edx, edi
acpi_rsdp:
    cmp edx, ALLOCATED_PADDR
    je acpi_map                         # there is none
    sub edx, SIZEOF_ALLOCATED
    mov esi, dword ptr [edx + ALLOCATED_NAME]
    call names_equal
    jne acpi_rsdp
    mov eax, dword ptr [edx + ALLOCATED_ADDRESS]
    mov dword ptr [RSDP_PADDR], eax
acpi_map:
    mov ebx, dword ptr [esp + 8]        # entries of the memory map
    mov eax, dword ptr [ACPI_BOTTOM]
    and eax, -PAGE_SIZE
    mov edx, dword ptr [ACPI_TOP]
    sub edx, eax                        # bytes of the tables
    jz acpi_counted
    cmp ebx, MEMMAP_MAX_ENTRIES - 2
    ja e820_bad_count
    mov ecx, eax
    sub ecx, LOW_HOLE_END               # what is left of the RAM
    xchg ecx, dword ptr [ACPI_RAM + HVM_MEMMAP_ENTRY_SIZE]
    add ecx, LOW_HOLE_END
    sub ecx, dword ptr [ACPI_TOP]       # what there is behind
    mov edi, ACPI_RAM + SIZEOF_HVM_MEMMAP_ENTRY
    push MEMMAP_TYPE_ACPI
    call memmap_insert
    add eax, edx                        # where the tables end
    mov edx, ecx
    pop ecx
    test edx, edx
    jz acpi_counted
    mov edi, ACPI_RAM + 2 * SIZEOF_HVM_MEMMAP_ENTRY
    push MEMMAP_TYPE_RAM
    call memmap_insert
    pop ecx
acpi_counted:
.if CHIPSET
    MACHINE edx, MACHINE_UPPER_END      # upper memory is behind the first range, and in none
    mov edx, dword ptr [edx]
    mov eax, dword ptr [UPPER_END]
    and eax, -PAGE_SIZE
    sub edx, eax
    jz acpi_no_upper
    cmp ebx, MEMMAP_MAX_ENTRIES - 1
    ja e820_bad_count
    mov edi, MEMMAP_PADDR + SIZEOF_HVM_MEMMAP_ENTRY
    push MEMMAP_TYPE_ACPI
    call memmap_insert
    pop ecx
acpi_no_upper:
.endif
    mov dword ptr [esp + 8], ebx
acpi_done:
    pop esi
    pop edx
    pop ebx
