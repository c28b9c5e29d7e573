# What to boot, as fw_cfg tells it: entry, command line, initrd. QEMU has put the kernel itself into RAM.
#
# In:       ebp = fw_cfg reader, ebx = entries of the memory map
# Out:      the entry at ENTRY_POINTER; the initrd in place; esi = command line (0: none), edx = modules; ebx as it was
# Clobbers: eax, ecx, edi

    POST POST_MODULES
    mov eax, FW_CFG_READ_KERNEL_ENTRY
    mov edi, ENTRY_POINTER
    call fw_cfg_read_word
    test eax, eax
    jz kernel_missing

    mov eax, FW_CFG_READ_CMDLINE_SIZE
    mov edi, FW_CFG_WORD_PADDR
    call fw_cfg_read_word               # bytes, with the terminator
    xor esi, esi
    test eax, eax
    jz cmdline_done
    cmp eax, CMDLINE_MAX
    ja cmdline_too_long
    mov ecx, eax
    mov eax, FW_CFG_READ_CMDLINE_DATA
    mov edi, STRINGS_PADDR
    mov esi, ecx
    call ebp
    cmp byte ptr [edi + esi - 1], 0
    jne cmdline_bad_end
    mov esi, edi
cmdline_done:

    mov eax, FW_CFG_READ_INITRD_SIZE
    mov edi, MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE
    call fw_cfg_read_word
    xor edx, edx                        # modules
    test eax, eax
    jz initrd_done
    mov eax, FW_CFG_READ_INITRD_ADDR
    mov edi, MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR
    call fw_cfg_read_word

# It must lie in RAM, above the low ROM, where nothing of ours is. The ROM's own range ends the search: none begins below
# 4 GiB and ends above.
    cmp eax, LOW_ROM_END
    jb initrd_bad_place
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    dec ecx
    add ecx, eax                        # its last byte
    jc initrd_bad_place
    mov edx, MEMMAP_PADDR - SIZEOF_HVM_MEMMAP_ENTRY
initrd_range:
    add edx, SIZEOF_HVM_MEMMAP_ENTRY
    mov edi, dword ptr [edx + HVM_MEMMAP_ENTRY_ADDR]
    add edi, dword ptr [edx + HVM_MEMMAP_ENTRY_SIZE]
    dec edi                             # the last byte of the range
    cmp eax, edi
    ja initrd_range
    cmp dword ptr [edx + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne initrd_bad_place
    cmp eax, dword ptr [edx + HVM_MEMMAP_ENTRY_ADDR]
    jb initrd_bad_place
    cmp ecx, edi
    ja initrd_bad_place

# QEMU puts the initrd where RAM ends, whatever the kernel needs.
    mov eax, FW_CFG_READ_KERNEL_SIZE
    mov edi, FW_CFG_WORD_PADDR
    call fw_cfg_read_word
    push eax
    mov eax, FW_CFG_READ_KERNEL_ADDR
    call fw_cfg_read_word
    pop ecx
    add ecx, eax                        # where the kernel ends
    jc initrd_over_kernel
    mov edx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR]
    cmp edx, ecx
    jae initrd_free
    add edx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    cmp edx, eax
    ja initrd_over_kernel
initrd_free:

    mov eax, FW_CFG_READ_INITRD_DATA
    mov ecx, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE]
    mov edi, dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR]
    call ebp
    xor eax, eax                        # the upper halves, no command line, reserved
    mov dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR + 4], eax
    mov dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_SIZE + 4], eax
    mov edi, MODLIST_PADDR + HVM_MODLIST_ENTRY_CMDLINE_PADDR
    mov ecx, (SIZEOF_HVM_MODLIST_ENTRY - HVM_MODLIST_ENTRY_CMDLINE_PADDR) / 4
    rep stosd
    mov edx, 1
initrd_done:
