# The handoff: the rest of the machine state that the PVH ABI asks for, and the jump.
#
# In:       flat 32-bit, start_info complete
# Out:      at the kernel's entry: ebx = start_info, TR loaded, memory write-back by default
# Clobbers: everything but ebp, esp
#
# CR4 and EFLAGS (but for the arithmetic flags) are still those of the reset, and right.

    POST HANDOFF
    mov esi, offset rom_gdt             # ltr sets the busy bit of the TSS descriptor: it must lie in RAM
    mov edi, GDT_PADDR
    mov ecx, GDT_SIZE / 4
    rep movsd
    lgdt [ram_gdtr]
    mov eax, SEL_TSS
    ltr ax

    mov eax, CPUID_FEATURES_LEAF
    cpuid
    test edx, CPUID_1_EDX_MTRR
    jz handoff_mtrr_done
    mov ecx, MSR_MTRR_DEF_TYPE          # memory is uncached after reset: make write-back the default type
    mov eax, MTRR_DEF_TYPE_VALUE
    xor edx, edx
    wrmsr
handoff_mtrr_done:

.if MARKS
    mov al, MARK_LINUX_PVH
.if FROM_FW_CFG
    cmp dword ptr [ENTRY_POINTER], offset linux_handoff
    jne handoff_mark
    mov al, MARK_LINUX_FW_CFG
handoff_mark:
.endif
    out MARK_LINUX_PORT, al
.endif
    mov ebx, START_INFO_PADDR
handoff:
    jmp dword ptr [ENTRY_POINTER]
