# SMBIOS: the tables and the anchor that leads to them, in the F segment, where an operating system looks for it.
#
# In:       ebp = fw_cfg reader, the first piece of the directory at TRANSFER_PADDR; edx = modules, esi = command line
# Out:      tables and anchor in place, where fw_cfg has them and the F segment has room; edx, esi as they were
# Clobbers: eax, ecx, edi
#
# A host without SMBIOS, or with an anchor of a kind that is not known, is a machine without: nobody needs it to boot.

    POST SMBIOS
    push edx
    push esi
    mov esi, offset smbios_tables_name
    call file_find
    jc smbios_done
    test ecx, ecx
    jz smbios_done
    call fseg_take
    jc smbios_done
    bswap ecx
    call ebp
    push edi
    mov esi, offset smbios_anchor_name
    call file_find
    pop esi                             # the tables
    jc smbios_done
    cmp ecx, SIZEOF_SMBIOS_30
    jb smbios_done
    call fseg_take
    jc smbios_done
    push ecx
    bswap ecx
    call ebp
    pop ecx
    cmp dword ptr [edi], SMBIOS_21_ANCHOR_VALUE
    je smbios_21
    cmp dword ptr [edi], SMBIOS_30_ANCHOR_VALUE
    jne smbios_done
    mov dword ptr [edi + SMBIOS_30_TABLE_ADDRESS], esi
    mov dword ptr [edi + SMBIOS_30_TABLE_ADDRESS + 4], 0
    mov eax, edi
    mov ecx, SIZEOF_SMBIOS_30
    call sum_bytes
    sub byte ptr [edi + SMBIOS_30_CHECKSUM], al
    jmp smbios_done
smbios_21:
    cmp ecx, SIZEOF_SMBIOS_21
    jb smbios_done
    mov dword ptr [edi + SMBIOS_21_TABLE_ADDRESS], esi
    lea eax, [edi + SMBIOS_21_DMI_ANCHOR]
    mov ecx, SIZEOF_SMBIOS_21 - SMBIOS_21_DMI_ANCHOR
    call sum_bytes
    sub byte ptr [edi + SMBIOS_21_DMI_CHECKSUM], al # the first part adds up as before
    mov eax, edi
    mov ecx, SIZEOF_SMBIOS_21
    call sum_bytes
    sub byte ptr [edi + SMBIOS_21_CHECKSUM], al
smbios_done:
    pop esi
    pop edx
