# What the guest's own program headers say, looked up in memory: bytes of the file, then zeros, at the physical address.
#
# In:       the shape, and its regions: one for each PT_LOAD, in the file's order
# Out:      in each region what was found; addresses are those where it was looked
# Clobbers: everything but esp
survey_loads:
    mov ebp, dword ptr [shape + SHAPE_REGIONS]
    mov ebx, dword ptr [shape + SHAPE_REGION_COUNT]
1:  mov eax, dword ptr [STATE + STATE_DISPLACEMENT]
    add dword ptr [ebp + REGION_PADDR], eax # below 4 GiB, or not displaced
    mov esi, dword ptr [ebp + REGION_PADDR]
    cmp dword ptr [ebp + REGION_PADDR + 4], 0
    je 2f
    call open_window
2:  mov ecx, dword ptr [ebp + REGION_FILESZ]
    cmp dword ptr [ebp + REGION_IS_IMAGE], 0
    jne 3f
    push esi
    call hash_bytes
    mov dword ptr [ebp + REGION_FOUND_HASH], eax
    pop esi
3:  add esi, dword ptr [ebp + REGION_FILESZ]
    mov ecx, dword ptr [ebp + REGION_MEMSZ]
    sub ecx, dword ptr [ebp + REGION_FILESZ]
    call count_zeros
    mov dword ptr [ebp + REGION_FOUND_ZEROS], eax
    cmp dword ptr [ebp + REGION_PADDR + 4], 0
    je 4f
    call close_window
4:  add ebp, SIZEOF_REGION
    dec ebx
    jnz 1b
    ret

# FNV-1a, 32 bits.
#
# In:       esi = address, ecx = bytes
# Out:      eax = the hash
# Clobbers: ecx, edx, esi, flags
hash_bytes:
    mov eax, FNV_OFFSET_BASIS
    jecxz 2f
1:  movzx edx, byte ptr [esi]
    xor eax, edx
    imul eax, eax, FNV_PRIME
    inc esi
    dec ecx
    jnz 1b
2:  ret

# In:       esi = address, ecx = bytes
# Out:      eax = how many of them are zeros, up to the first that is not
# Clobbers: ecx, esi, flags
count_zeros:
    mov eax, esi
1:  cmp ecx, 4
    jb 2f
    cmp dword ptr [esi], 0
    jne 2f
    add esi, 4
    sub ecx, 4
    jmp 1b
2:  jecxz 3f
    cmp byte ptr [esi], 0
    jne 3f
    inc esi
    dec ecx
    jmp 2b
3:  sub esi, eax
    mov eax, esi
    ret

# 4-level paging with two pages of 2 MiB: the one that the image lies in, mapped to itself, and beside it a window to the one
# above 4 GiB that holds the region. The code stays as it is: with long mode enabled, 32-bit segments mean compatibility mode. The
# tables are in the image's bss, which has been looked at by then.
#
# In:       ebp = the region
# Out:      esi = the region's linear address; paging on
# Clobbers: eax, ecx, edx, edi, flags
open_window:
    mov edi, dword ptr [shape + SHAPE_PAGE_TABLES] # level 4, level 3, level 2, a page each
    lea eax, [edi + PAGE_SIZE + PTE_PRESENT + PTE_WRITABLE]
    mov dword ptr [edi], eax
    mov dword ptr [edi + 4], 0
    mov eax, dword ptr [STATE + STATE_BASE]
    mov edx, eax
    shr edx, PDPT_SHIFT
    lea ecx, [edi + 2 * PAGE_SIZE + PTE_PRESENT + PTE_WRITABLE]
    mov dword ptr [edi + edx * 8 + PAGE_SIZE], ecx
    mov dword ptr [edi + edx * 8 + PAGE_SIZE + 4], 0
    and eax, -LARGE_PAGE
    mov edx, eax
    shr edx, LARGE_PAGE_SHIFT
    and edx, TABLE_ENTRIES - 1
    lea ecx, [eax + PTE_PRESENT + PTE_WRITABLE + PTE_LARGE]
    mov dword ptr [edi + edx * 8 + 2 * PAGE_SIZE], ecx
    mov dword ptr [edi + edx * 8 + 2 * PAGE_SIZE + 4], 0
    xor edx, 1
    mov ecx, dword ptr [ebp + REGION_PADDR]
    mov esi, ecx
    and ecx, -LARGE_PAGE
    or ecx, PTE_PRESENT | PTE_WRITABLE | PTE_LARGE
    mov dword ptr [edi + edx * 8 + 2 * PAGE_SIZE], ecx
    mov ecx, dword ptr [ebp + REGION_PADDR + 4]
    mov dword ptr [edi + edx * 8 + 2 * PAGE_SIZE + 4], ecx
    and esi, LARGE_PAGE - 1
    xor eax, LARGE_PAGE
    add esi, eax

    mov cr3, edi
    mov eax, dword ptr [STATE + STATE_CR4]
    or eax, CR4_PAE
    mov cr4, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME
    wrmsr
    mov eax, dword ptr [STATE + STATE_CR0]
    or eax, CR0_PG
    mov cr0, eax
    jmp 1f
1:  ret

# Back to what the guest was entered with. Clobbers: eax, ecx, edx, flags.
close_window:
    mov eax, dword ptr [STATE + STATE_CR0]
    mov cr0, eax
    jmp 1f
1:  mov ecx, MSR_EFER
    rdmsr
    and eax, ~EFER_LME
    wrmsr
    mov eax, dword ptr [STATE + STATE_CR4]
    mov cr4, eax
    ret
