# The report: the guest's own segments, registers, start_info and what it points to, one item a line.
#
# In:       the recorded state and the survey
# Out:      printed
# Clobbers: everything but esp

report:
    mov ebp, STATE
    mov esi, offset line_hello
    call put_string
    mov eax, GUEST_FORMAT
    call put_decimal
    mov esi, offset text_elf
    call put_string
    mov eax, dword ptr [shape + SHAPE_BITS]
    call put_decimal
    mov al, CHAR_SPACE
    call put_char
    mov esi, dword ptr [shape + SHAPE_NAME]
    call put_string
    mov esi, offset line_image
    call put_template
    call report_loads
    mov ebp, STATE
    mov esi, offset line_state
    call put_template
    mov esi, offset line_no_mtrr
    cmp dword ptr [STATE + STATE_HAS_MTRR], 0
    je 1f
    mov esi, offset line_mtrr
1:  call put_template

    mov ebp, dword ptr [STATE + STATE_START_INFO]
    test ebp, ebp
    jnz 1f
    mov esi, offset line_no_start_info
    jmp put_string
1:  mov esi, offset line_start_info
    call put_template
    call report_memmap
    call report_modules
    mov ebp, dword ptr [STATE + STATE_START_INFO]
    cmp dword ptr [ebp + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    je 1f
    ret                                 # its other addresses mean nothing
1:  mov esi, offset text_cmdline
    call put_string
    mov esi, dword ptr [ebp + HVM_START_INFO_CMDLINE_PADDR]
    mov edi, dword ptr [ebp + HVM_START_INFO_CMDLINE_PADDR + 4]
    call put_quoted
    mov al, CHAR_NEWLINE
    jmp put_char

report_loads:
    mov ebp, dword ptr [shape + SHAPE_REGIONS]
    xor eax, eax
1:  mov dword ptr [STATE + STATE_NUMBER], eax
    mov esi, offset text_load
    call put_string
    call put_decimal
    mov esi, offset line_load
    call put_template
    cmp dword ptr [ebp + REGION_IS_IMAGE], 0
    jne 2f
    mov esi, offset line_load_hash
    call put_template
2:  mov esi, offset line_load_zeros
    call put_template
    add ebp, SIZEOF_REGION
    mov eax, dword ptr [STATE + STATE_NUMBER]
    inc eax
    cmp eax, dword ptr [shape + SHAPE_REGION_COUNT]
    jb 1b
    ret

report_memmap:
    mov ebp, dword ptr [STATE + STATE_MEMMAP]
    xor eax, eax
1:  cmp eax, dword ptr [STATE + STATE_MEMMAP_COUNT]
    jae 2f
    mov dword ptr [STATE + STATE_NUMBER], eax
    mov esi, offset text_memmap
    call put_string
    call put_decimal
    mov esi, offset line_memmap
    call put_template
    add ebp, SIZEOF_HVM_MEMMAP_ENTRY
    mov eax, dword ptr [STATE + STATE_NUMBER]
    inc eax
    jmp 1b
2:  ret

report_modules:
    mov ebp, dword ptr [STATE + STATE_MODLIST]
    xor eax, eax
1:  cmp eax, dword ptr [STATE + STATE_MODLIST_COUNT]
    jae 2f
    mov dword ptr [STATE + STATE_NUMBER], eax
    mov esi, offset text_module
    call put_string
    call put_decimal
    mov esi, offset line_module
    call put_template
    call sum_module
    push ebp
    mov ebp, STATE
    mov esi, offset line_sum
    call put_template
    pop ebp
    mov esi, dword ptr [ebp + HVM_MODLIST_ENTRY_CMDLINE_PADDR]
    mov edi, dword ptr [ebp + HVM_MODLIST_ENTRY_CMDLINE_PADDR + 4]
    call put_quoted
    mov al, CHAR_NEWLINE
    call put_char
    add ebp, SIZEOF_HVM_MODLIST_ENTRY
    mov eax, dword ptr [STATE + STATE_NUMBER]
    inc eax
    jmp 1b
2:  ret

# The sum of a module's first dwords: shows that it lies where its entry says.
#
# In:       ebp = its entry
# Out:      STATE_MODULE_SUM, 0 if it cannot be read
# Clobbers: eax, ecx, edx, esi, flags
sum_module:
    xor edx, edx
    mov esi, ebp
    call bound_module
    shr ecx, 2
    jz 2f
    mov esi, dword ptr [ebp + HVM_MODLIST_ENTRY_PADDR]
1:  lodsd
    add edx, eax
    dec ecx
    jnz 1b
2:  mov dword ptr [STATE + STATE_MODULE_SUM], edx
    ret
