# Module list and command lines, from the parameter block into RAM.
#
# In:       ebp = parameter block, esi = its first module
# Out:      both in place; esi = the kernel's command line (0: none), edx = modules, ebx = entries of the memory map
# Clobbers: eax, ecx, edi

    POST MODULES
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
    xor esi, esi
    test ebx, ebx
    jz strings_done
    mov esi, STRINGS_PADDR
strings_done:
    mov edx, dword ptr [ebp + PARAMS_HEADER_MODULES]
    mov ebx, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]
