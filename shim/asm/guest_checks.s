# The checks: each looks at one clause. What cannot be looked at has failed.
#
# In:       the recorded state and the survey; ebx = start_info, or zeroes in its place if there is none with the magic
# Out:      ZF set: good
# Clobbers: eax, ecx, edx, esi, edi, flags

# Runs them all in the order of the table, a line each. Clobbers everything but esp.
run_checks:
    mov ebx, dword ptr [STATE + STATE_START_INFO]
    test ebx, ebx
    jz 1f
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    je 2f
1:  mov ebx, offset no_start_info       # or some other structure, of which nothing counts
2:  mov ebp, offset check_table
run_check:
    mov eax, dword ptr [ebp]
    test eax, eax
    jz 2f
    call eax
    sete al                             # the printing below destroys the flags
    push eax
    mov esi, offset text_check
    call put_string
    lea esi, [ebp + 4]                  # its name
    call put_string
    mov ebp, esi                        # the next check stands behind the name
    pop eax
    mov esi, offset text_ok
    test al, al
    jnz 1f
    inc dword ptr [STATE + STATE_FAILED]
    mov esi, offset text_fail
1:  call put_string
    mov al, CHAR_NEWLINE
    call put_char
    jmp run_check
2:  ret

# The last line. Clobbers: eax, ecx, edx, esi, edi, flags.
put_result:
    mov esi, offset text_result
    call put_string
    mov esi, offset text_ok
    cmp dword ptr [STATE + STATE_FAILED], 0
    je 1f
    mov esi, offset text_fail
    call put_string
    mov al, CHAR_SPACE
    call put_char
    mov eax, dword ptr [STATE + STATE_FAILED]
    call put_decimal
    jmp 2f
1:  call put_string
2:  mov al, CHAR_NEWLINE
    jmp put_char

check_good:
    cmp eax, eax
    ret
check_bad:
    test esp, esp                       # never 0
    ret

check_cr0:
    mov eax, dword ptr [STATE + STATE_CR0]
    and eax, ~CR0_ET                    # hard-wired
    cmp eax, CR0_PE
    ret

check_cr4:
    cmp dword ptr [STATE + STATE_CR4], 0
    ret

check_eflags:
    test dword ptr [STATE + STATE_EFLAGS], EFLAGS_VM | EFLAGS_IF | EFLAGS_TF
    ret

# A guest that cannot be moved lies where it is linked, and one whose entry is the instruction before the image has come by it.
check_eip:
    test dword ptr [shape + SHAPE_FLAGS], SHAPE_ENTRY_STD
    jz 1f
    test dword ptr [STATE + STATE_EFLAGS], EFLAGS_DF
    jz check_bad
1:  test dword ptr [shape + SHAPE_FLAGS], SHAPE_RELOCATABLE
    jnz check_good
    cmp dword ptr [STATE + STATE_DISPLACEMENT], 0
    ret

check_placement:                        # as its PHYS32_RELOC note asks for
    test dword ptr [shape + SHAPE_FLAGS], SHAPE_RELOCATABLE
    jz check_good
    mov edx, dword ptr [STATE + STATE_DISPLACEMENT]
    mov eax, dword ptr [shape + SHAPE_FIRST]
    add eax, edx
    cmp eax, dword ptr [shape + SHAPE_MIN]
    jb check_bad
    mov ecx, dword ptr [shape + SHAPE_ALIGN]
    dec ecx
    test eax, ecx
    jnz check_bad
    add edx, dword ptr [shape + SHAPE_LAST]
    cmp edx, eax
    jb check_bad                        # it wraps
    cmp edx, dword ptr [shape + SHAPE_MAX]
    ja check_bad
    jmp check_good

check_image:                            # the code itself
    cmp dword ptr [STATE + STATE_IMAGE_SUM], 0
    ret

check_load_data:                        # the bytes that are in the file
    mov esi, dword ptr [shape + SHAPE_REGIONS]
    mov ecx, dword ptr [shape + SHAPE_REGION_COUNT]
1:  mov eax, dword ptr [esi + REGION_FOUND_HASH]
    cmp eax, dword ptr [esi + REGION_HASH]
    jne check_bad
    add esi, SIZEOF_REGION
    dec ecx
    jnz 1b
    ret

check_load_bss:                         # and the zeros behind them
    mov esi, dword ptr [shape + SHAPE_REGIONS]
    mov ecx, dword ptr [shape + SHAPE_REGION_COUNT]
1:  mov eax, dword ptr [esi + REGION_FOUND_ZEROS]
    add eax, dword ptr [esi + REGION_FILESZ]
    cmp eax, dword ptr [esi + REGION_MEMSZ]
    jne check_bad
    add esi, SIZEOF_REGION
    dec ecx
    jnz 1b
    ret

check_segments:
    mov eax, GUEST_MARK
    cmp dword ptr [STATE + STATE_MARK_CS], eax
    jne 1f
    cmp dword ptr [STATE + STATE_MARK_ES], eax
    jne 1f
    cmp dword ptr [STATE + STATE_MARK_SS], eax
1:  ret

check_tr:
    test dword ptr [STATE + STATE_TR], 0xffff & ~SELECTOR_RPL # a null selector may have any RPL
    jz check_bad
    jmp check_good

check_mtrr:
    cmp dword ptr [STATE + STATE_HAS_MTRR], 0
    je 1f
    cmp dword ptr [STATE + STATE_MTRR_DEF_TYPE + 4], 0
    jne 1f
    cmp dword ptr [STATE + STATE_MTRR_DEF_TYPE], MTRR_DEF_TYPE_VALUE
1:  ret

check_ebx:
    cmp dword ptr [STATE + STATE_START_INFO], 0
    je check_bad
    jmp check_good

check_magic:
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    ret

check_version:
    cmp dword ptr [ebx + HVM_START_INFO_VERSION], HVM_START_INFO_VERSION_VALUE
    jb check_bad
    jmp check_good

check_below_1g:
    mov eax, dword ptr [STATE + STATE_START_INFO]
    test eax, eax
    jz check_bad
    cmp eax, BOOT_STRUCTURES_END - SIZEOF_HVM_START_INFO
    ja check_bad
    jmp check_good

check_memmap:                           # that it is there and can be walked
    cmp dword ptr [STATE + STATE_MEMMAP_COUNT], 0
    je check_bad
    jmp check_good

check_memmap_entries:
    mov eax, dword ptr [ebx + HVM_START_INFO_MEMMAP_ENTRIES]
    dec eax                             # 1..most in one comparison: 0 becomes the largest number
    cmp eax, MEMMAP_MAX_ENTRIES - 1
    ja check_bad
    jmp check_good

check_memmap_sorted:
    mov ecx, dword ptr [STATE + STATE_MEMMAP_COUNT]
    test ecx, ecx
    jz check_bad
    mov esi, dword ptr [STATE + STATE_MEMMAP]
    xor eax, eax                        # edx:eax = where the entry before ends
    xor edx, edx
1:  cmp dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4], edx
    jb check_bad
    ja 2f
    cmp dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR], eax
    jb check_bad
2:  mov eax, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR]
    mov edx, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4]
    add eax, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE]
    adc edx, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE + 4]
    jc check_bad
    add esi, SIZEOF_HVM_MEMMAP_ENTRY
    dec ecx
    jnz 1b
    ret                                 # ZF of the dec

check_memmap_ram:
    mov ecx, dword ptr [STATE + STATE_MEMMAP_COUNT]
    test ecx, ecx
    jz check_bad
    mov esi, dword ptr [STATE + STATE_MEMMAP]
1:  cmp dword ptr [esi + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    je check_good
    add esi, SIZEOF_HVM_MEMMAP_ENTRY
    dec ecx
    jnz 1b
    jmp check_bad

check_start_info_ram:
    mov ecx, dword ptr [STATE + STATE_MEMMAP_COUNT]
    test ecx, ecx
    jz check_bad
    mov esi, dword ptr [STATE + STATE_MEMMAP]
    lea edi, [ebx + SIZEOF_HVM_START_INFO]
1:  cmp dword ptr [esi + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne 2f
    cmp dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR + 4], 0
    jne 2f
    mov eax, dword ptr [esi + HVM_MEMMAP_ENTRY_ADDR]
    cmp eax, ebx
    ja 2f
    xor edx, edx
    add eax, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE]
    adc edx, dword ptr [esi + HVM_MEMMAP_ENTRY_SIZE + 4]
    jnz check_good                      # it goes on above 4 GiB
    cmp eax, edi
    jae check_good
2:  add esi, SIZEOF_HVM_MEMMAP_ENTRY
    dec ecx
    jnz 1b
    jmp check_bad

check_modules:
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], 0
    je check_bad
    mov ecx, dword ptr [ebx + HVM_START_INFO_NR_MODULES]
    test ecx, ecx
    jnz 1f
    mov eax, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    or eax, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR + 4]
    ret                                 # no list without modules
1:  cmp dword ptr [STATE + STATE_MODLIST_COUNT], ecx
    jne check_bad                       # no list, or one that is too long to be walked
    mov edx, ecx
    mov esi, dword ptr [STATE + STATE_MODLIST]
2:  call bound_module
    jc check_bad
    add esi, SIZEOF_HVM_MODLIST_ENTRY
    dec edx
    jnz 2b
    ret

check_reserved:                         # of start_info, the memory map and the module list
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], 0
    je check_bad
    mov eax, dword ptr [ebx + HVM_START_INFO_RESERVED]
    mov ecx, dword ptr [STATE + STATE_MEMMAP_COUNT]
    mov esi, dword ptr [STATE + STATE_MEMMAP]
    jecxz 2f
1:  or eax, dword ptr [esi + HVM_MEMMAP_ENTRY_RESERVED]
    add esi, SIZEOF_HVM_MEMMAP_ENTRY
    dec ecx
    jnz 1b
2:  mov ecx, dword ptr [STATE + STATE_MODLIST_COUNT]
    mov esi, dword ptr [STATE + STATE_MODLIST]
    jecxz 4f
3:  or eax, dword ptr [esi + HVM_MODLIST_ENTRY_RESERVED]
    or eax, dword ptr [esi + HVM_MODLIST_ENTRY_RESERVED + 4]
    add esi, SIZEOF_HVM_MODLIST_ENTRY
    dec ecx
    jnz 3b
4:  test eax, eax
    ret
