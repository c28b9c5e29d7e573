# What to boot, as fw_cfg tells it: entry, command line, initrd. QEMU has put a PVH kernel itself into RAM.
#
# In:       ebp = fw_cfg reader, ebx = entries of the memory map
# Out:      the entry at ENTRY_POINTER; the initrd in place; esi = command line (0: none), edx = modules; ebx as it was
# Clobbers: eax, ecx, edi

    POST MODULES
    FW_CFG_NUMBER KERNEL_ENTRY, ENTRY_POINTER
    FW_CFG_NUMBER KERNEL_ADDR, KERNEL_ADDR_PADDR
    FW_CFG_NUMBER KERNEL_SIZE, KERNEL_SIZE_PADDR

# QEMU loads a kernel wherever it is linked, be there RAM or not, or this firmware's data.
    cmp dword ptr [ENTRY_POINTER], 0
    je bzimage
    mov eax, dword ptr [KERNEL_ADDR_PADDR]
    mov ecx, dword ptr [KERNEL_SIZE_PADDR]
    cmp eax, FIRMWARE_END
    jb kernel_bad_place
    call ram_range
    jc kernel_bad_place
    mov edx, dword ptr [ENTRY_POINTER]
    cmp edx, eax
    jb kernel_bad_entry
    cmp edx, ecx
    ja kernel_bad_entry
kernel_loaded:

    FW_CFG_NUMBER CMDLINE_SIZE, FW_CFG_WORD_PADDR
    mov esi, dword ptr [edi]            # bytes, with the terminator
    test esi, esi
    jz cmdline_done
    cmp esi, CMDLINE_MAX
    ja cmdline_too_long
    mov ecx, esi
    bswap ecx
    mov eax, FW_CFG_READ_CMDLINE_DATA
    mov edi, STRINGS_PADDR
    call ebp
    cmp byte ptr [edi + esi - 1], 0
    jne cmdline_bad_end
    mov esi, edi
cmdline_done:

    FW_CFG_NUMBER INITRD_SIZE, MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE
    xor edx, edx                        # modules
    cmp dword ptr [edi], edx
    je initrd_done
    FW_CFG_NUMBER INITRD_ADDR, MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR

# It must lie in RAM, above the low ROM, where nothing of ours is, and beside the kernel: QEMU puts it where RAM ends, whatever
# the kernel needs.
    mov eax, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR]
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    cmp eax, LOW_HOLE_END
    jb initrd_bad_place
    call ram_range
    jc initrd_bad_place
    mov edx, dword ptr [KERNEL_ADDR_PADDR]
    cmp ecx, edx
    jb initrd_free
    add edx, dword ptr [KERNEL_SIZE_PADDR]
    cmp eax, edx
    jb initrd_over_kernel
initrd_free:

    mov edi, eax
    mov eax, FW_CFG_READ_INITRD_DATA
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    bswap ecx
    call ebp
    mov edi, MODLIST_PADDR
    xor eax, eax                        # the upper halves, no command line, reserved
    mov dword ptr [edi + HVM_MODLIST_ENTRY_PADDR + 4], eax
    mov dword ptr [edi + HVM_MODLIST_ENTRY_SIZE + 4], eax
    mov dword ptr [edi + HVM_MODLIST_ENTRY_CMDLINE_PADDR], eax
    mov dword ptr [edi + HVM_MODLIST_ENTRY_CMDLINE_PADDR + 4], eax
    mov dword ptr [edi + HVM_MODLIST_ENTRY_RESERVED], eax
    mov dword ptr [edi + HVM_MODLIST_ENTRY_RESERVED + 4], eax
    mov edx, 1
initrd_done:
