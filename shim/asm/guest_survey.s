# The survey: what can be read without a fault or an endless walk. Report and checks rely on it and nothing else.
#
# In:       the recorded state
# Out:      STATE_START_INFO (0: none), lists with bounded counts (0: not to be walked), the MTRRs; ebx as recorded
# Clobbers: eax, ecx, edx, esi, edi, flags

survey:
    xor eax, eax
    mov dword ptr [STATE + STATE_START_INFO], eax
    mov dword ptr [STATE + STATE_MEMMAP_COUNT], eax
    mov dword ptr [STATE + STATE_MODLIST_COUNT], eax
    mov dword ptr [STATE + STATE_HAS_MTRR], eax
    mov dword ptr [STATE + STATE_FAILED], eax
    mov dword ptr [STATE + STATE_SERIAL_DEAD], eax

    cpuid                               # leaf 0: the highest leaf
    cmp eax, CPUID_FEATURES_LEAF
    jb survey_start_info
    mov eax, CPUID_FEATURES_LEAF
    cpuid
    test edx, CPUID_1_EDX_MTRR
    jz survey_start_info
    mov ecx, MSR_MTRR_DEF_TYPE
    rdmsr
    mov dword ptr [STATE + STATE_MTRR_DEF_TYPE], eax
    mov dword ptr [STATE + STATE_MTRR_DEF_TYPE + 4], edx
    inc dword ptr [STATE + STATE_HAS_MTRR]

survey_start_info:
    mov ebx, dword ptr [STATE + STATE_EBX]
    test ebx, ebx
    jz survey_done
    cmp ebx, -SIZEOF_HVM_START_INFO     # it ends below 4 GiB
    ja survey_done
    mov dword ptr [STATE + STATE_START_INFO], ebx
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    jne survey_done                     # some other structure: its addresses mean nothing

    mov esi, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    mov edi, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR + 4]
    mov ecx, dword ptr [ebx + HVM_START_INFO_NR_MODULES]
    mov eax, GUEST_MAX_MODULES
    mov edx, SIZEOF_HVM_MODLIST_ENTRY
    call bound_list
    mov dword ptr [STATE + STATE_MODLIST], esi
    mov dword ptr [STATE + STATE_MODLIST_COUNT], ecx

    cmp dword ptr [ebx + HVM_START_INFO_VERSION], 0
    je survey_done                      # version 0 ends before the memory map
    mov esi, dword ptr [ebx + HVM_START_INFO_MEMMAP_PADDR]
    mov edi, dword ptr [ebx + HVM_START_INFO_MEMMAP_PADDR + 4]
    mov ecx, dword ptr [ebx + HVM_START_INFO_MEMMAP_ENTRIES]
    mov eax, MEMMAP_MAX_ENTRIES
    mov edx, SIZEOF_HVM_MEMMAP_ENTRY
    call bound_list
    mov dword ptr [STATE + STATE_MEMMAP], esi
    mov dword ptr [STATE + STATE_MEMMAP_COUNT], ecx
survey_done:
    ret

# How many entries of a list can be read.
#
# In:       edi:esi = its address, ecx = its count, eax = the most that are walked, edx = bytes of an entry
# Out:      ecx = the count, cut to eax; 0 if the list lies at 0 or does not end below 4 GiB
# Clobbers: edx, flags
bound_list:
    cmp ecx, eax
    jbe 1f
    mov ecx, eax
1:  test edi, edi
    jnz 2f
    test esi, esi
    jz 2f
    imul edx, ecx
    add edx, esi
    jnc 3f
2:  xor ecx, ecx
3:  ret

# How many bytes of a module are summed.
#
# In:       esi = its entry
# Out:      ecx = bytes, a multiple of 4; CF set if it lies at 0 or these bytes do not end below 4 GiB, and ecx = 0 then
# Clobbers: eax, flags
bound_module:
    mov ecx, GUEST_SUM_BYTES
    cmp dword ptr [esi + HVM_MODLIST_ENTRY_SIZE + 4], 0
    jne 1f
    cmp dword ptr [esi + HVM_MODLIST_ENTRY_SIZE], ecx
    jae 1f
    mov ecx, dword ptr [esi + HVM_MODLIST_ENTRY_SIZE]
    and ecx, -4
1:  cmp dword ptr [esi + HVM_MODLIST_ENTRY_PADDR + 4], 0
    jne 2f
    mov eax, dword ptr [esi + HVM_MODLIST_ENTRY_PADDR]
    test eax, eax
    jz 2f
    add eax, ecx
    jc 2f
    ret
2:  xor ecx, ecx
    stc
    ret
