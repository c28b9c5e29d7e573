# The handoff of the Linux boot protocol, at the kernel's 32-bit entry: what a PVH kernel would find behind start_info goes into
# boot_params.
#
# In:       as a PVH kernel is entered: ebx = start_info; the setup header in boot_params, LINUX_ENTRY
# Out:      at the kernel's 32-bit entry: esi = boot_params; ebp, edi, ebx = 0
# Clobbers: everything but esp
#
# The code and data segments have the selectors that the protocol asks for already.

linux_handoff:
    mov ebp, BOOT_PARAMS_PADDR
    mov esi, dword ptr [ebx + HVM_START_INFO_MEMMAP_PADDR]
    lea edi, [ebp + BOOT_E820_TABLE]
    mov ecx, dword ptr [ebx + HVM_START_INFO_MEMMAP_ENTRIES]
    mov byte ptr [ebp + BOOT_E820_ENTRIES], cl
linux_e820:
    movsd                               # an e820 entry is a map entry
    movsd
    movsd
    movsd
    movsd
    lodsd                               # without its reserved field
    dec ecx
    jnz linux_e820
    mov eax, dword ptr [ebx + HVM_START_INFO_CMDLINE_PADDR]
    test eax, eax
    jnz linux_cmdline
    lea eax, [ebp + SIZEOF_BOOT_PARAMS - 1] # none: an empty one, as 0 would mean an old protocol
linux_cmdline:
    mov dword ptr [ebp + BOOT_CMD_LINE_PTR], eax
    mov eax, dword ptr [ebx + HVM_START_INFO_RSDP_PADDR]
    mov dword ptr [ebp + BOOT_ACPI_RSDP_ADDR], eax
    xor edi, edi
    mov dword ptr [ebp + BOOT_RAMDISK_IMAGE], edi
    mov dword ptr [ebp + BOOT_RAMDISK_SIZE], edi
    mov esi, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    test esi, esi
    jz linux_enter
    mov eax, dword ptr [esi + HVM_MODLIST_ENTRY_PADDR]
    mov dword ptr [ebp + BOOT_RAMDISK_IMAGE], eax
    mov eax, dword ptr [esi + HVM_MODLIST_ENTRY_SIZE]
    mov dword ptr [ebp + BOOT_RAMDISK_SIZE], eax
linux_enter:
    mov esi, ebp
    xor ebp, ebp
    xor ebx, ebx
    jmp dword ptr [LINUX_ENTRY]
