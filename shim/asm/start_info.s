# hvm_start_info.
#
# In:       ebx = entries of the memory map, edx = modules, esi = the kernel's command line (0: none); all of them in place
# Out:      start_info at START_INFO_PADDR
# Clobbers: eax, edi

    POST START_INFO
    mov edi, START_INFO_PADDR
    xor eax, eax                        # "not present", and every upper half
    mov dword ptr [edi + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    mov dword ptr [edi + HVM_START_INFO_VERSION], HVM_START_INFO_VERSION_VALUE
    mov dword ptr [edi + HVM_START_INFO_FLAGS], eax
    mov dword ptr [edi + HVM_START_INFO_NR_MODULES], edx
    mov dword ptr [edi + HVM_START_INFO_MODLIST_PADDR], eax
    mov dword ptr [edi + HVM_START_INFO_MODLIST_PADDR + 4], eax
    mov dword ptr [edi + HVM_START_INFO_CMDLINE_PADDR], esi
    mov dword ptr [edi + HVM_START_INFO_CMDLINE_PADDR + 4], eax
    mov dword ptr [edi + HVM_START_INFO_RSDP_PADDR], eax
    mov dword ptr [edi + HVM_START_INFO_RSDP_PADDR + 4], eax
    mov dword ptr [edi + HVM_START_INFO_MEMMAP_PADDR], MEMMAP_PADDR
    mov dword ptr [edi + HVM_START_INFO_MEMMAP_PADDR + 4], eax
    mov dword ptr [edi + HVM_START_INFO_MEMMAP_ENTRIES], ebx
    mov dword ptr [edi + HVM_START_INFO_RESERVED], eax
    test edx, edx                       # FreeBSD halts on a list without modules: the address stays 0 then
    jz start_info_done
    mov dword ptr [edi + HVM_START_INFO_MODLIST_PADDR], MODLIST_PADDR
start_info_done:
.if ACPI
    mov eax, dword ptr [RSDP_PADDR]
    mov dword ptr [edi + HVM_START_INFO_RSDP_PADDR], eax
.endif
