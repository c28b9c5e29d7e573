# The conformance guest: records the state it is entered in, surveys, reports, checks and leaves.
#
# In:       what the PVH ABI promises at the entry; nothing of it is relied on before it is recorded, but for a flat ds
# Out:      does not come back: DEBUG_EXIT_PORT gets 0, the number of failed checks, or GUEST_NO_STACK
# Clobbers: everything, but no memory outside of its own segment
#
# The flags come last, because to read them takes a stack. Everything before is mov, str, lea and jecxz, which leave them
# alone. Memory is written through ds and, once it is proven, ss; never through es.

.code32
guest_entry:
    mov dword ptr [STATE + STATE_EAX], eax
    mov dword ptr [STATE + STATE_EBX], ebx
    mov dword ptr [STATE + STATE_ECX], ecx
    mov dword ptr [STATE + STATE_EDX], edx
    mov dword ptr [STATE + STATE_ESI], esi
    mov dword ptr [STATE + STATE_EDI], edi
    mov dword ptr [STATE + STATE_EBP], ebp
    mov dword ptr [STATE + STATE_ESP], esp
    mov eax, cr0
    mov dword ptr [STATE + STATE_CR0], eax
    mov eax, cr4
    mov dword ptr [STATE + STATE_CR4], eax
    mov eax, cs
    mov dword ptr [STATE + STATE_CS], eax
    mov eax, ds
    mov dword ptr [STATE + STATE_DS], eax
    mov eax, es
    mov dword ptr [STATE + STATE_ES], eax
    mov eax, ss
    mov dword ptr [STATE + STATE_SS], eax
    mov eax, fs
    mov dword ptr [STATE + STATE_FS], eax
    mov eax, gs
    mov dword ptr [STATE + STATE_GS], eax
    str ax
    movzx eax, ax
    mov dword ptr [STATE + STATE_TR], eax

# What ds writes, the others must read: the same base, and a limit that reaches here.
    mov dword ptr [STATE + STATE_MARK], GUEST_MARK
    mov eax, dword ptr cs:[STATE + STATE_MARK]
    mov dword ptr [STATE + STATE_MARK_CS], eax
    mov eax, dword ptr es:[STATE + STATE_MARK]
    mov dword ptr [STATE + STATE_MARK_ES], eax
    mov ecx, dword ptr ss:[STATE + STATE_MARK]
    mov dword ptr [STATE + STATE_MARK_SS], ecx
    lea ecx, [ecx - GUEST_MARK]
    jecxz guest_stack
    mov al, GUEST_NO_STACK              # a push would go astray
    jmp guest_leave

guest_stack:
    mov esp, GUEST_STACK_TOP
    pushfd
    pop dword ptr [STATE + STATE_EFLAGS]
    cli                                 # should they have been on: there is no IDT
    cld
    call guest_here                     # the offset that the CPU counts, against the address that was linked
guest_here:
    pop eax
    sub eax, offset guest_here
    add eax, offset guest_entry
    mov dword ptr [STATE + STATE_EIP], eax

    call survey
    call serial_init
    call report
    call run_checks
    call serial_drain
    mov al, byte ptr [STATE + STATE_FAILED] # there are fewer checks than GUEST_NO_STACK

# In: al = the value to leave with.
guest_leave:
    mov edx, DEBUG_EXIT_PORT
    out dx, al
    cli
guest_halt:                             # nobody ended the machine
    hlt
    jmp guest_halt                      # a non-maskable interrupt ends hlt
