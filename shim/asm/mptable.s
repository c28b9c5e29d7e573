# The MP table, for a machine without ACPI: its processors, as they answer, and where the interrupts go. On a PC the PCI
# interrupts are routed too.
#
# In:       ebp = fw_cfg reader; ebx = entries of the memory map, edx = modules, esi = command line
# Out:      the table where an operating system looks for it; ebx = entries of the map; edx, esi as they were
# Clobbers: eax, ecx, edi
#
# A machine without PCI and with one processor has the table in its ROM (mp_tables.py). A PC gets it in the F segment; elsewhere
# it lies in RAM, at the end of base memory, which then is no RAM to the guest.

# On a machine that is found out at run time: jumps if there is no F segment to write to.
.macro NO_F_SEGMENT target
.if MP_RAM
    cmp dword ptr [FSEG_END], 0
    je \target
.endif
.endm

    POST MP_TABLE
.if ACPI
    cmp dword ptr [RSDP_PADDR], 0
    jne mp_none
.endif
    push edx
    FW_CFG_NUMBER NB_CPUS, FW_CFG_WORD_PADDR
    pop edx
.if CHIPSET
    NO_F_SEGMENT mp_no_pci
    push edx
    push esi
    call pci_route
    pop esi
    pop edx
.endif
.if MP_RAM
.if CHIPSET
    jmp mp_processors
mp_no_pci:
.endif
    cmp dword ptr [FW_CFG_WORD_PADDR], 1
    jbe mp_none
    mov eax, dword ptr [KERNEL_ADDR_PADDR] # QEMU has put it there without asking
    cmp eax, MP_RAM_END
    jae mp_processors
    add eax, dword ptr [KERNEL_SIZE_PADDR]
    cmp eax, MP_PADDR
    ja kernel_bad_place
.endif
mp_processors:
    push ebx
    push edx
    push esi
    call cpus_find

    MACHINE edx, 0
    mov ebx, dword ptr [edx + MACHINE_MP_TAIL_ENTRIES]
    add ebx, eax                        # entries of the table
.if CHIPSET
    NO_F_SEGMENT mp_in_ram
# What it takes in the F segment, pointer included. That may be too much: then there is no table.
    imul ecx, eax, SIZEOF_MP_PROCESSOR
    add ecx, dword ptr [edx + MACHINE_MP_TAIL_BYTES]
    add ecx, SIZEOF_MP_FLOATING + SIZEOF_MP_TABLE + PCI_INTX * SIZEOF_MP_INTERRUPT
    add ebx, PCI_INTX
    call fseg_take
    jc mp_done
    mov esi, edi                        # the pointer
    add edi, SIZEOF_MP_FLOATING
.endif
.if MP_RAM
.if CHIPSET
    jmp mp_write
mp_in_ram:
.endif
    mov esi, MP_BASE_MEMORY
    mov edi, MP_PADDR
.endif
mp_write:
    push esi
    push edi
    mov esi, offset mp_head
    mov ecx, SIZEOF_MP_TABLE / 4
    rep movsd
    mov eax, dword ptr [esp]
    mov word ptr [eax + MP_TABLE_ENTRIES], bx

# The processors by their APIC ids, which are what they are.
    push edx
    mov eax, CPUID_FEATURES_LEAF
    cpuid
    mov dword ptr [CPU_SIGNATURE], eax
    mov dword ptr [CPU_FEATURES], edx
    shr ebx, CPUID_1_EBX_APIC_ID_SHIFT  # the one that runs this
    pop edx
    mov esi, dword ptr [CPU_FOUND]      # no more than there is room for: one may answer late
    xor ecx, ecx
mp_processor:
    cmp byte ptr [CPU_PRESENT + ecx], 0
    je mp_processor_next
    dec esi
    js mp_tail
    mov eax, ecx
    shl eax, 8
    cmp ecx, ebx
    jne mp_processor_other
    or eax, MP_PROCESSOR_BOOTSTRAP << 24
mp_processor_other:
    or eax, MP_PROCESSOR_ENABLED << 24 | LOCAL_APIC_VERSION << 16 | MP_PROCESSOR
    stosd
    mov eax, dword ptr [CPU_SIGNATURE]
    stosd
    mov eax, dword ptr [CPU_FEATURES]
    stosd
    xor eax, eax
    stosd
    stosd
mp_processor_next:
    inc ecx
    cmp ecx, APIC_IDS
    jne mp_processor

# The entries of a table are in the order of their types: PCI's interrupts come before the local ones, the last of the tail.
mp_tail:
    mov esi, dword ptr [edx + MACHINE_MP_TAIL]
    mov ecx, dword ptr [edx + MACHINE_MP_TAIL_BYTES]
    sub ecx, MP_LOCAL_BYTES
    rep movsb
    push esi
.if CHIPSET
    NO_F_SEGMENT mp_local
mp_intx:                                # all that a bus can have: ecx = slot * 4 + pin
    mov eax, MP_PCI_FLAGS << 16 | MP_IO_INTERRUPT
    stosd
    call pci_pirq
    movzx eax, byte ptr [edx + esi + MACHINE_PINS]
    shl eax, 24
    mov ah, cl
    stosd
    inc ecx
    cmp ecx, PCI_INTX
    jne mp_intx
mp_local:
.endif
    pop esi
    mov ecx, MP_LOCAL_BYTES / 4
    rep movsd

    pop edx                             # the table, edi = its end
    pop esi                             # the pointer
    sub edi, edx
    mov word ptr [edx + MP_TABLE_LENGTH], di
    mov eax, edx
    mov ecx, edi
    mov edi, edx
    call sum_bytes
    sub byte ptr [edi + MP_TABLE_CHECKSUM], al
    mov dword ptr [esi + MP_FLOATING_SIGNATURE], MP_FLOATING_SIGNATURE_VALUE
    mov dword ptr [esi + MP_FLOATING_TABLE], edi
    mov dword ptr [esi + MP_FLOATING_LENGTH], MP_SPEC_1_4 << 8 | SIZEOF_MP_FLOATING / MP_PARAGRAPH # and checksum, and features
    mov dword ptr [esi + MP_FLOATING_FEATURES + 1], 0
    mov eax, esi
    mov ecx, SIZEOF_MP_FLOATING
    call sum_bytes
    sub byte ptr [esi + MP_FLOATING_CHECKSUM], al

.if MP_RAM
.if CHIPSET
    cmp dword ptr [FSEG_END], 0
    jne mp_done
.endif
# In RAM: the memory map's first range ends there, and goes on behind.
    mov ebx, dword ptr [esp + 8]        # entries of the memory map
    cmp ebx, MEMMAP_MAX_ENTRIES - 2
    ja e820_bad_count
    mov edx, dword ptr [MEMMAP_PADDR + HVM_MEMMAP_ENTRY_SIZE]
    mov dword ptr [MEMMAP_PADDR + HVM_MEMMAP_ENTRY_SIZE], MP_PADDR
    sub edx, MP_RAM_END
    mov eax, MP_RAM_END
    mov edi, MEMMAP_PADDR + SIZEOF_HVM_MEMMAP_ENTRY
    push MEMMAP_TYPE_RAM
    call memmap_insert
    mov edx, MP_RAM_END - MP_PADDR
    mov eax, MP_PADDR
    push MEMMAP_TYPE_RESERVED
    call memmap_insert
    pop ecx
    pop ecx
    mov dword ptr [esp + 8], ebx
.endif
mp_done:
    pop esi
    pop edx
    pop ebx
mp_none:
