# Module list, command lines and hvm_start_info, in RAM.
#
# In:       ebp = parameter block, esi = its first module, the memory map in place
# Out:      start_info at START_INFO_PADDR, all that it points to in place
# Clobbers: eax, ecx, edx, ebx, esi, edi

    POST POST_START_INFO
    mov edx, dword ptr [ebp + PARAMS_HEADER_MODULES]
    mov ebx, dword ptr [ebp + PARAMS_HEADER_STRINGS_SIZE]
    mov edi, MODLIST_PADDR
    test edx, edx
    jz modlist_done
modlist_entry:
    mov ecx, PARAMS_MODULE_CMDLINE / 4  # paddr and size stand in both, in this order
    rep movsd
    lodsd                               # the offset of its string; 0: it has none
    test eax, eax
    jz modlist_cmdline
    cmp eax, ebx
    jae modlist_bad_string
    add eax, STRINGS_PADDR
modlist_cmdline:
    stosd
    lodsd                               # over the reserved field of the block
    xor eax, eax
    stosd                               # cmdline_paddr, upper half
    stosd                               # reserved
    stosd
    dec edx
    jnz modlist_entry
modlist_done:

    mov ecx, ebx                        # the strings, terminators included
    mov edi, STRINGS_PADDR
    rep movsb

    mov edi, START_INFO_PADDR           # all fields 0 first: "not present", and every upper half
    xor eax, eax
    mov ecx, SIZEOF_HVM_START_INFO / 4
    rep stosd
    mov edi, START_INFO_PADDR
    mov dword ptr [edi + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    mov dword ptr [edi + HVM_START_INFO_VERSION], HVM_START_INFO_VERSION_VALUE
    mov dword ptr [edi + HVM_START_INFO_MEMMAP_PADDR], MEMMAP_PADDR
    mov eax, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]
    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], eax
    mov eax, dword ptr [ebp + PARAMS_HEADER_MODULES]
    test eax, eax                       # FreeBSD halts on a list without modules: the address stays 0 then
    jz start_info_cmdline
    mov dword ptr [edi + HVM_START_INFO_NR_MODULES], eax
    mov dword ptr [edi + HVM_START_INFO_MODLIST_PADDR], MODLIST_PADDR
start_info_cmdline:
    test ebx, ebx
    jz start_info_done
    mov dword ptr [edi + HVM_START_INFO_CMDLINE_PADDR], STRINGS_PADDR
start_info_done:
