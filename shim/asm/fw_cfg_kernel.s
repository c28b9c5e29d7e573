# What to boot, as fw_cfg tells it: entry, command line, initrd. QEMU has put the kernel itself into RAM.
#
# In:       ebp = fw_cfg reader, ebx = entries of the memory map
# Out:      the entry at ENTRY_POINTER; the initrd in place; esi = command line (0: none), edx = modules; ebx as it was
# Clobbers: eax, ecx, edi

    POST POST_MODULES
    mov eax, FW_CFG_READ_KERNEL_ENTRY
    mov edi, ENTRY_POINTER
    call fw_cfg_read_word
    mov eax, FW_CFG_READ_KERNEL_ADDR
    mov edi, KERNEL_ADDR_PADDR
    call fw_cfg_read_word
    mov eax, FW_CFG_READ_KERNEL_SIZE
    mov edi, KERNEL_SIZE_PADDR
    call fw_cfg_read_word

# QEMU loads a kernel wherever it is linked, be there RAM or not, or this firmware's data.
    cmp dword ptr [ENTRY_POINTER], 0
    je kernel_missing
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

    mov eax, FW_CFG_READ_CMDLINE_SIZE
    mov edi, FW_CFG_WORD_PADDR
    call fw_cfg_read_word
    mov esi, dword ptr [edi]            # bytes, with the terminator
    test esi, esi
    jz cmdline_done
    cmp esi, CMDLINE_MAX
    ja cmdline_too_long
    mov ecx, esi
    mov eax, FW_CFG_READ_CMDLINE_DATA
    mov edi, STRINGS_PADDR
    call ebp
    cmp byte ptr [edi + esi - 1], 0
    jne cmdline_bad_end
    mov esi, edi
cmdline_done:

    mov eax, FW_CFG_READ_INITRD_SIZE
    mov edi, MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE
    call fw_cfg_read_word
    xor edx, edx                        # modules
    cmp dword ptr [edi], edx
    je initrd_done
    mov eax, FW_CFG_READ_INITRD_ADDR
    mov edi, MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR
    call fw_cfg_read_word

# It must lie in RAM, above the low ROM, where nothing of ours is, and beside the kernel: QEMU puts it where RAM ends, whatever
# the kernel needs.
    mov eax, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR]
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    cmp eax, LOW_ROM_END
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
