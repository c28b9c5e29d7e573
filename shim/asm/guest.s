# The conformance guest: records the state it is entered in, surveys, reports, checks and leaves.
#
# In:       what the PVH ABI promises at the entry; nothing of it is relied on before it is recorded, but for a flat ds
# Out:      does not come back: DEBUG_EXIT_PORT gets 0, the number of failed checks, or one of the GUEST_* values
# Clobbers: everything, but no memory outside of its own segments (guest_reloc.s and guest_freebsd.s say what they add)
#
# The flags come last, because to read them takes a stack. Everything before is mov, str, lea and jecxz, which leave them
# alone. Memory is written through ds and, once it is proven, ss; never through es.

.code32
guest_image:
guest_entry:
    mov dword ptr [STATE + STATE_EAX], eax
    mov dword ptr [STATE + STATE_ESP], esp
    mov eax, offset guest_image

# In: eax = where the image begins, itself and esp recorded. Everything is found from there, until it is relocated.
guest_record:
    mov dword ptr [eax + STATE_OFFSET + STATE_EBX], ebx
    mov dword ptr [eax + STATE_OFFSET + STATE_ECX], ecx
    mov dword ptr [eax + STATE_OFFSET + STATE_EDX], edx
    mov dword ptr [eax + STATE_OFFSET + STATE_ESI], esi
    mov dword ptr [eax + STATE_OFFSET + STATE_EDI], edi
    mov dword ptr [eax + STATE_OFFSET + STATE_EBP], ebp
    mov ecx, cr0
    mov dword ptr [eax + STATE_OFFSET + STATE_CR0], ecx
    mov ecx, cr4
    mov dword ptr [eax + STATE_OFFSET + STATE_CR4], ecx
    mov ecx, cs
    mov dword ptr [eax + STATE_OFFSET + STATE_CS], ecx
    mov ecx, ds
    mov dword ptr [eax + STATE_OFFSET + STATE_DS], ecx
    mov ecx, es
    mov dword ptr [eax + STATE_OFFSET + STATE_ES], ecx
    mov ecx, ss
    mov dword ptr [eax + STATE_OFFSET + STATE_SS], ecx
    mov ecx, fs
    mov dword ptr [eax + STATE_OFFSET + STATE_FS], ecx
    mov ecx, gs
    mov dword ptr [eax + STATE_OFFSET + STATE_GS], ecx
    str cx
    movzx ecx, cx
    mov dword ptr [eax + STATE_OFFSET + STATE_TR], ecx

# What ds writes, the others must read: the same base, and a limit that reaches here.
    mov dword ptr [eax + STATE_OFFSET + STATE_MARK], GUEST_MARK
    mov ecx, dword ptr cs:[eax + STATE_OFFSET + STATE_MARK]
    mov dword ptr [eax + STATE_OFFSET + STATE_MARK_CS], ecx
    mov ecx, dword ptr es:[eax + STATE_OFFSET + STATE_MARK]
    mov dword ptr [eax + STATE_OFFSET + STATE_MARK_ES], ecx
    mov ecx, dword ptr ss:[eax + STATE_OFFSET + STATE_MARK]
    mov dword ptr [eax + STATE_OFFSET + STATE_MARK_SS], ecx
    lea ecx, [ecx - GUEST_MARK]
    jecxz guest_stack
    mov al, GUEST_NO_STACK              # a push would go astray
    jmp guest_leave

guest_stack:
    lea esp, [eax + STACK_TOP_OFFSET]
    pushfd
    pop dword ptr [eax + STATE_OFFSET + STATE_EFLAGS]
    cli                                 # should they have been on: there is no IDT
    cld
    mov edi, eax
    call guest_here                     # the address that the CPU counts, against the one that was linked
guest_here:
    pop ecx
    sub ecx, guest_here - guest_image
    mov dword ptr [edi + STATE_OFFSET + STATE_BASE], ecx
    mov edx, ecx
    sub edx, dword ptr [edi + shape - guest_image + SHAPE_LINK]
    mov dword ptr [edi + STATE_OFFSET + STATE_DISPLACEMENT], edx
    call sum_image
    call relocate

    mov eax, dword ptr [shape + SHAPE_ENTRY]
    add eax, dword ptr [STATE + STATE_DISPLACEMENT]
    mov dword ptr [STATE + STATE_EIP], eax
    call survey
    call survey_loads
    call serial_init
    call report
    call run_checks
    test dword ptr [shape + SHAPE_FLAGS], SHAPE_FREEBSD
    jz guest_done
    call freebsd
guest_done:
    call put_result
    call serial_drain
    mov al, byte ptr [STATE + STATE_FAILED] # there are fewer checks than the least of the GUEST_* values

# In: al = the value to leave with.
guest_leave:
    mov edx, DEBUG_EXIT_PORT
    out dx, al
    cli
guest_halt:                             # nobody ended the machine
    hlt
    jmp guest_halt                      # a non-maskable interrupt ends hlt

# Where the ELF header points in guests that have another PVH entry: whoever comes here has not read the note.
guest_elf_entry:
    mov al, GUEST_ELF_ENTRY
    jmp guest_leave
