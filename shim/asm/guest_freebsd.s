# FreeBSD's rules: start_info walked as FreeBSD/amd64 does, with a halt where FreeBSD would halt or go astray.
#
# Sources: FreeBSD sys/x86/xen/pv.c (hammer_time_xen, xen_pvh_parse_preload_data, pvh_parse_memmap), sys/kern/subr_module.c
# (preload_search_by_type), sys/amd64/amd64/xen-locore.S (the early page tables: the first GiB and no more).
#
# In:       the recorded state and the survey; the checks have been made
# Out:      printed; comes back, or leaves by freebsd_halt
# Clobbers: everything but esp, and FREEBSD_FREE_BYTES of memory from the first free page on
freebsd:
    mov ebx, dword ptr [STATE + STATE_START_INFO]
    mov esi, offset halt_start_info
    test ebx, ebx
    jz freebsd_halt
    lea eax, [ebx + SIZEOF_HVM_START_INFO]
    cmp eax, BOOT_STRUCTURES_END
    ja freebsd_halt
    mov esi, offset halt_magic
    cmp dword ptr [ebx + HVM_START_INFO_MAGIC], XEN_HVM_START_MAGIC_VALUE
    jne freebsd_halt
    mov ebp, dword ptr [shape + SHAPE_LAST] # the first free page so far, not yet rounded up
    inc ebp
    call freebsd_after

    mov edi, offset halt_memmap
    mov esi, dword ptr [ebx + HVM_START_INFO_MEMMAP_PADDR]
    mov edx, dword ptr [ebx + HVM_START_INFO_MEMMAP_PADDR + 4]
    imul ecx, dword ptr [ebx + HVM_START_INFO_MEMMAP_ENTRIES], SIZEOF_HVM_MEMMAP_ENTRY
    jc freebsd_halt_edi
    cmp dword ptr [ebx + HVM_START_INFO_VERSION], 0
    je freebsd_halt_edi
    call freebsd_mapped
    add eax, ecx
    call freebsd_after

    mov edi, offset halt_modlist
    mov esi, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    mov edx, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR + 4]
    mov ecx, dword ptr [ebx + HVM_START_INFO_NR_MODULES]
    mov eax, esi
    or eax, edx
    jz freebsd_free                     # without modules
    test ecx, ecx
    jz freebsd_halt_edi
    mov edi, offset halt_modlist_place
    imul ecx, ecx, SIZEOF_HVM_MODLIST_ENTRY
    jc freebsd_halt_edi
    call freebsd_mapped
    mov edi, offset halt_module
1:  push esi
    push ecx
    mov ecx, dword ptr [esi + HVM_MODLIST_ENTRY_SIZE]
    mov eax, dword ptr [esi + HVM_MODLIST_ENTRY_SIZE + 4]
    mov edx, dword ptr [esi + HVM_MODLIST_ENTRY_PADDR + 4]
    or edx, eax
    mov esi, dword ptr [esi + HVM_MODLIST_ENTRY_PADDR]
    call freebsd_mapped
    add eax, ecx
    call freebsd_after
    pop ecx
    pop esi
    add esi, SIZEOF_HVM_MODLIST_ENTRY
    sub ecx, SIZEOF_HVM_MODLIST_ENTRY
    jnz 1b

# The memory behind all of that has to be there: FreeBSD builds its environment and its page tables in it.
freebsd_free:
    add ebp, PAGE_SIZE - 1
    and ebp, -PAGE_SIZE
    mov dword ptr [STATE + STATE_PHYSFREE], ebp
    mov esi, offset halt_free
    cmp ebp, BOOT_STRUCTURES_END - FREEBSD_FREE_BYTES
    ja freebsd_halt
    call freebsd_is_ram
    jc freebsd_halt
    mov esi, offset halt_in_free        # what FreeBSD reads only afterwards, and does not step around
    mov eax, dword ptr [ebx + HVM_START_INFO_CMDLINE_PADDR]
    call freebsd_in_free
    jc freebsd_halt
    mov eax, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    call freebsd_in_free
    jc freebsd_halt
    test eax, eax
    jz 1f
    mov eax, dword ptr [eax + HVM_MODLIST_ENTRY_CMDLINE_PADDR]
    call freebsd_in_free
    jc freebsd_halt
1:  mov esi, offset halt_store
    mov ecx, FREEBSD_FREE_BYTES / PAGE_SIZE
    mov edi, ebp
2:  mov dword ptr [edi], edi            # every page another value, so that none is another's double
    add edi, PAGE_SIZE
    dec ecx
    jnz 2b
    mov ecx, FREEBSD_FREE_BYTES / PAGE_SIZE
3:  sub edi, PAGE_SIZE
    cmp dword ptr [edi], edi
    jne freebsd_halt
    mov dword ptr [edi], 0
    dec ecx
    jnz 3b
    push ebp
    mov ebp, STATE
    mov esi, offset line_physfree
    call put_template
    pop ebp

    mov esi, dword ptr [ebx + HVM_START_INFO_MODLIST_PADDR]
    test esi, esi
    jnz freebsd_metadata
    mov esi, offset line_no_metadata
    jmp put_string

# Module 0 is what FreeBSD's loader has left: itself, or behind a header that says where. Others are found through it.
freebsd_metadata:
    mov edi, offset halt_null
    mov eax, dword ptr [esi + HVM_MODLIST_ENTRY_CMDLINE_PADDR]
    or eax, dword ptr [esi + HVM_MODLIST_ENTRY_CMDLINE_PADDR + 4]
    jz freebsd_halt_edi
    mov edi, offset halt_cmdline
    push esi
    mov edx, dword ptr [esi + HVM_MODLIST_ENTRY_CMDLINE_PADDR + 4]
    mov esi, dword ptr [esi + HVM_MODLIST_ENTRY_CMDLINE_PADDR]
    mov ecx, 1
    call freebsd_mapped
    mov edi, offset freebsd_header
    call same_string
    pop esi
    mov ebp, dword ptr [esi + HVM_MODLIST_ENTRY_PADDR]
    mov ecx, dword ptr [esi + HVM_MODLIST_ENTRY_SIZE]
    jne 1f
    mov edi, offset halt_header
    cmp ecx, SIZEOF_XEN_HEADER
    jb freebsd_halt_edi
    test dword ptr [ebp + XEN_HEADER_FLAGS], XENHEADER_HAS_MODULEP_OFFSET
    jz freebsd_halt_edi
    mov eax, dword ptr [ebp + XEN_HEADER_MODULEP_OFFSET]
    cmp dword ptr [ebp + XEN_HEADER_MODULEP_OFFSET + 4], 0
    jne freebsd_halt_edi
    cmp ecx, eax
    jbe freebsd_halt_edi
    add ebp, eax
    sub ecx, eax
1:  mov dword ptr [STATE + STATE_METADATA], ebp

# Records of a type and a length, their data behind them, each padded to 8 bytes; one with neither is the end.
    mov edi, offset halt_metadata
2:  cmp ecx, SIZEOF_MODINFO
    jb freebsd_halt_edi                 # FreeBSD walks on, wherever that leads
    mov eax, dword ptr [ebp + MODINFO_LENGTH]
    mov edx, eax
    or edx, dword ptr [ebp + MODINFO_KIND]
    jz freebsd_halt_edi
    cmp dword ptr [ebp + MODINFO_KIND], MODINFO_TYPE
    jne 3f
    push eax
    push edi
    lea esi, [ebp + SIZEOF_MODINFO]
    mov edi, offset freebsd_kernel
    call same_string
    je 4f
    mov edi, offset freebsd_kernel64
    call same_string
    je 4f
    pop edi
    pop eax
3:  cmp eax, ecx
    ja freebsd_halt_edi
    add eax, SIZEOF_MODINFO + MODINFO_ALIGN - 1
    and eax, -MODINFO_ALIGN
    add ebp, eax
    sub ecx, eax
    jae 2b
    jmp freebsd_halt_edi
4:  pop edi
    pop eax
    mov ebp, STATE
    mov esi, offset line_metadata
    jmp put_template

# Takes `eax`, the first address behind something, into account. In: ebp = the highest so far. Out: ebp. Clobbers: flags.
freebsd_after:
    cmp eax, ebp
    jbe 1f
    mov ebp, eax
1:  ret

# Halts unless something lies in the first GiB, and not at 0.
#
# In:       edx:esi = its address, ecx = its bytes, edi = the reason
# Out:      eax = esi
# Clobbers: flags
freebsd_mapped:
    mov eax, esi
    test edx, edx
    jnz freebsd_halt_edi
    test eax, eax
    jz freebsd_halt_edi
    add eax, ecx
    jc freebsd_halt_edi
    cmp eax, BOOT_STRUCTURES_END
    ja freebsd_halt_edi
    mov eax, esi
    ret

# In: ebp = the first free page. Out: CF set unless it and those behind it are RAM by the memory map. Clobbers: eax, ecx, edx, edi.
freebsd_is_ram:
    mov ecx, dword ptr [STATE + STATE_MEMMAP_COUNT]
    mov edi, dword ptr [STATE + STATE_MEMMAP]
    jecxz 3f
1:  cmp dword ptr [edi + HVM_MEMMAP_ENTRY_TYPE], MEMMAP_TYPE_RAM
    jne 2f
    cmp dword ptr [edi + HVM_MEMMAP_ENTRY_ADDR + 4], 0
    jne 2f
    mov eax, ebp
    sub eax, dword ptr [edi + HVM_MEMMAP_ENTRY_ADDR]
    jb 2f
    add eax, FREEBSD_FREE_BYTES
    cmp dword ptr [edi + HVM_MEMMAP_ENTRY_SIZE + 4], 0
    jne 4f
    cmp eax, dword ptr [edi + HVM_MEMMAP_ENTRY_SIZE]
    jbe 4f
2:  add edi, SIZEOF_HVM_MEMMAP_ENTRY
    dec ecx
    jnz 1b
3:  stc
    ret
4:  clc
    ret

# In: eax = an address, ebp = the first free page. Out: CF set if it lies in what FreeBSD takes. Clobbers: edx.
freebsd_in_free:
    mov edx, eax
    sub edx, ebp
    cmp edx, FREEBSD_FREE_BYTES
    ret

# In: esi, edi = strings. Out: ZF set if they are the same. Clobbers: flags.
same_string:
    push esi
    push edi
    push eax
1:  mov al, byte ptr [esi]
    cmp al, byte ptr [edi]
    jne 2f
    inc esi
    inc edi
    test al, al
    jnz 1b
2:  pop eax
    pop edi
    pop esi
    ret

freebsd_halt_edi:
    mov esi, edi
# In: esi = the reason.
freebsd_halt:
    push esi
    mov esi, offset text_freebsd_halt
    call put_string
    pop esi
    call put_string
    mov al, CHAR_NEWLINE
    call put_char
    call serial_drain
    mov al, GUEST_FREEBSD_HALT
    jmp guest_leave

freebsd_header:
    .asciz "header"
freebsd_kernel:
    .asciz "elf kernel"
freebsd_kernel64:
    .asciz "elf64 kernel"
text_freebsd_halt:
    .asciz "freebsd halt: "
line_physfree:
    .asciz "freebsd physfree="
    .byte FIELD_HEX32, STATE_PHYSFREE
    .asciz " is RAM\n"
    .byte FIELD_END
line_metadata:
    .asciz "freebsd metadata="
    .byte FIELD_HEX32, STATE_METADATA
    .asciz "\n"
    .byte FIELD_END
line_no_metadata:
    .asciz "freebsd metadata none\n"
halt_start_info:
    .asciz "start_info is not in the first GiB"
halt_magic:
    .asciz "start_info has another magic"
halt_memmap:
    .asciz "no memory map in the first GiB"
halt_modlist:
    .asciz "modlist_paddr is set, nr_modules is 0"
halt_modlist_place:
    .asciz "the module list is not in the first GiB"
halt_module:
    .asciz "a module is not in the first GiB"
halt_free:
    .asciz "no RAM behind kernel, start_info, memory map and modules"
halt_in_free:
    .asciz "a command line or the module list lies in the first free pages"
halt_store:
    .asciz "the first free pages do not hold what is stored"
halt_null:
    .asciz "module 0 has no command line"
halt_cmdline:
    .asciz "the command line of module 0 is not in the first GiB"
halt_header:
    .asciz "module 0 is a header that does not say where the metadata is"
halt_metadata:
    .asciz "module 0 is no metadata of FreeBSD's loader"
