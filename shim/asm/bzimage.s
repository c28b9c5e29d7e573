# A kernel that QEMU has found no PVH entry in: a bzImage, by the Linux boot protocol. Its protected-mode part is put into RAM,
# its setup header into boot_params; what else the kernel wants to know there, linux.s adds when all of it is known.
#
# In:       ebp = fw_cfg reader, the memory map in place, ebx = its entries; the host's KERNEL_ADDR_PADDR, KERNEL_SIZE_PADDR
# Out:      at kernel_loaded: ENTRY_POINTER = linux_handoff, LINUX_ENTRY; KERNEL_ADDR_PADDR, KERNEL_SIZE_PADDR = all that the
#           kernel takes while it unpacks itself; ebx as it was
# Clobbers: eax, ecx, edx, esi, edi

bzimage:
    mov eax, FW_CFG_READ_SETUP_DATA
    mov ecx, BOOT_HEADER_BYTES
    mov edi, SETUP_DATA_PADDR           # nothing else is there yet
    call ebp
    cmp dword ptr [edi + BOOT_HEADER_MAGIC], BOOT_HEADER_MAGIC_VALUE
    jne kernel_missing
    cmp word ptr [edi + BOOT_VERSION], BOOT_PROTOCOL_MIN
    jb kernel_old
    test byte ptr [edi + BOOT_LOADFLAGS], BOOT_LOADED_HIGH
    jz kernel_old

# boot_params is zeros but for the header, and that ends where it says.
    lea esi, [edi + BOOT_HEADER]
    movzx edx, byte ptr [edi + BOOT_HEADER_JUMP]
    cmp edx, BOOT_HEADER_MIN - BOOT_HEADER_MAGIC
    jb kernel_old                       # less than that protocol has
    add edx, BOOT_HEADER_MAGIC - BOOT_HEADER
    cmp edx, BOOT_HEADER_MAX - BOOT_HEADER
    jbe bzimage_header
    mov edx, BOOT_HEADER_MAX - BOOT_HEADER
bzimage_header:
    mov edi, BOOT_PARAMS_PADDR
    xor eax, eax
    mov ecx, SIZEOF_BOOT_PARAMS / 4
    rep stosd
    mov edi, BOOT_PARAMS_PADDR + BOOT_HEADER
    mov ecx, edx
    rep movsb
    mov byte ptr [BOOT_PARAMS_PADDR + BOOT_TYPE_OF_LOADER], BOOT_LOADER_UNDEFINED

    mov eax, dword ptr [KERNEL_ADDR_PADDR]
    mov dword ptr [LINUX_ENTRY], eax
    mov dword ptr [ENTRY_POINTER], offset linux_handoff
    cmp eax, FIRMWARE_END
    jb kernel_bad_place
    mov ecx, dword ptr [KERNEL_SIZE_PADDR]
    call ram_range
    jc kernel_bad_place
    mov edi, eax
    mov ecx, dword ptr [KERNEL_SIZE_PADDR]
    bswap ecx
    mov eax, FW_CFG_READ_KERNEL_DATA
    call ebp

# The kernel unpacks itself to its preferred address, or, if it can be moved and was loaded above that, to the next address of
# its alignment, and needs so many bytes there.
    mov esi, BOOT_PARAMS_PADDR
    cmp word ptr [esi + BOOT_VERSION], BOOT_PROTOCOL_INIT_SIZE
    jb bzimage_placed
    cmp dword ptr [esi + BOOT_PREF_ADDRESS + 4], 0
    jne kernel_bad_place
    mov eax, dword ptr [esi + BOOT_PREF_ADDRESS]
    cmp byte ptr [esi + BOOT_RELOCATABLE], 0
    je bzimage_unpacked
    cmp edi, eax
    jbe bzimage_unpacked
    mov ecx, dword ptr [esi + BOOT_ALIGNMENT]
    dec ecx
    lea eax, [edi + ecx]
    not ecx
    and eax, ecx
bzimage_unpacked:
    mov ecx, dword ptr [esi + BOOT_INIT_SIZE]
    add ecx, eax                        # where that ends
    jc kernel_bad_place
    mov edx, dword ptr [KERNEL_SIZE_PADDR]
    add edx, edi                        # and where the kernel ends
    cmp ecx, edx
    jae bzimage_end
    mov ecx, edx
bzimage_end:
    cmp edi, eax
    jae bzimage_start
    mov eax, edi
bzimage_start:
    sub ecx, eax
    mov dword ptr [KERNEL_ADDR_PADDR], eax
    mov dword ptr [KERNEL_SIZE_PADDR], ecx
    cmp eax, FIRMWARE_END
    jb kernel_bad_place
    call ram_range
    jc kernel_bad_place
bzimage_placed:

# What a host appends to the kernel, as a list of setup_data, would be overwritten: it is moved. esi = where the address of the
# next piece stands, edi = where the next one that is moved goes.
    push ebp
    add esi, BOOT_SETUP_DATA
    mov edi, SETUP_DATA_PADDR
    mov ebp, SETUP_DATA_MAX
setup_data_next:
    mov eax, dword ptr [esi]
    mov ecx, dword ptr [esi + 4]
    test eax, eax
    jnz setup_data_there
    test ecx, ecx
    jz setup_data_done
setup_data_there:
    test ecx, ecx
    jnz setup_data_bad
    dec ebp
    js setup_data_bad                   # more than anybody has, or a ring
    cmp eax, LOW_HOLE_END
    jb setup_data_bad                   # what this firmware has there is not for a host to point to
    push edi
    mov ecx, SIZEOF_SETUP_DATA
    call ram_range
    jc setup_data_bad
    mov ecx, dword ptr [eax + SETUP_DATA_LEN]
    add ecx, SIZEOF_SETUP_DATA
    jc setup_data_bad
    push ecx
    call ram_range
    jc setup_data_bad
    mov edx, ecx                        # its last byte
    pop ecx
    pop edi
    cmp edx, dword ptr [KERNEL_ADDR_PADDR]
    jb setup_data_stays
    mov edx, dword ptr [KERNEL_ADDR_PADDR]
    add edx, dword ptr [KERNEL_SIZE_PADDR]
    cmp eax, edx
    jae setup_data_stays
    mov edx, SETUP_DATA_END
    sub edx, edi
    cmp ecx, edx
    ja setup_data_bad
    mov dword ptr [esi], edi
    mov esi, eax
    mov eax, edi
    rep movsb
    add edi, 7
    and edi, -8
setup_data_stays:
    mov esi, eax                        # a piece begins with the address of the next
    jmp setup_data_next
setup_data_done:
    pop ebp
    jmp kernel_loaded
