# The processors of the machine.
#
# In:       FW_CFG_WORD_PADDR = how many there are, as the host says
# Out:      CPU_FOUND = eax = how many APIC ids have answered, this one included; a byte of CPU_PRESENT by APIC id
# Clobbers: ecx, edx, esi, edi
#
# Each is started and tells its APIC id: how a host counts them, and where it leaves gaps, is its own business. They then wait,
# in the ROM, for an operating system's INIT. Fewer than promised are not waited for for ever.
cpus_find:
    push ebx
    mov edi, CPU_PRESENT
    mov ecx, APIC_IDS / 4 + 1           # and CPU_COUNT, behind
    xor eax, eax
    rep stosd
    mov eax, CPUID_FEATURES_LEAF
    cpuid
    shr ebx, CPUID_1_EBX_APIC_ID_SHIFT
    mov byte ptr [CPU_PRESENT + ebx], 1
    inc dword ptr [CPU_COUNT]
    mov edx, dword ptr [FW_CFG_WORD_PADDR]
    cmp edx, 1
    jbe cpus_found
    mov esi, offset ap_start
    mov edi, AP_PADDR
    mov ecx, ap_end - ap_start
    rep movsb
    or dword ptr [APIC_SVR], APIC_SVR_ENABLE
    mov dword ptr [APIC_ICR], APIC_ICR_ALL_BUT_SELF | APIC_ICR_ASSERT | APIC_ICR_INIT
    mov dword ptr [APIC_ICR], APIC_ICR_ALL_BUT_SELF | APIC_ICR_ASSERT | APIC_ICR_STARTUP | AP_PADDR >> 12
    mov ecx, CPU_POLLS
cpus_wait:
    pause
    cmp dword ptr [CPU_COUNT], edx
    jae cpus_found
    dec ecx
    jnz cpus_wait
cpus_found:
    mov eax, CPU_PRESENT
    mov ecx, APIC_IDS
    call sum_bytes
    movzx eax, al
    mov dword ptr [CPU_FOUND], eax
    pop ebx
    ret

# Where a started processor begins, as a copy at AP_PADDR: real mode, CS based there, IP 0.
.code16
ap_start:
    lgdtd cs:[ap_gdtr - ap_start]
    mov eax, CR0_PE
    mov cr0, eax
    data32 ljmp SEL_CODE32, ap_protected
ap_gdtr:
    .word GDT_SIZE - 1
    .long rom_gdt
ap_end:

.code32
ap_protected:
    mov eax, SEL_DATA32
    mov ds, eax
    mov eax, CPUID_FEATURES_LEAF
    cpuid
    shr ebx, CPUID_1_EBX_APIC_ID_SHIFT
    mov byte ptr [CPU_PRESENT + ebx], 1
    lock inc dword ptr [CPU_COUNT]
ap_wait:
    hlt
    jmp ap_wait
