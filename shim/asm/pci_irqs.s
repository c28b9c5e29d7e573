# PCI interrupts on a PC without ACPI: the PIRQs get IRQs, level triggered, and each function of bus 0 that has a pin is told its
# IRQ. What lies behind bridges is the operating system's, as are their bus numbers.
#
# In:       the machine's record
# Out:      all routed
# Clobbers: eax, ecx, edx, esi, edi
pci_route:
    push ebx
    MACHINE esi, MACHINE_ROUTE_COUNT
    call config_stores
    mov edx, ELCR_HIGH_PORT
    mov al, ELCR_HIGH_VALUE
    out dx, al
    MACHINE edx, 0
    mov ebx, edx
    mov edi, CONFIG_INTERRUPTS          # of function 0 in slot 0
pci_function:
    mov eax, edi
    call config_load
    cmp eax, -1
    je pci_absent
    dec ah                              # the pin
    cmp ah, 3
    ja pci_no_pin                       # none
    mov ecx, edi
    shr ecx, CONFIG_SLOT_SHIFT - 2
    and ecx, -4                         # slot * 4; the bits above do not reach cl
    movzx ecx, cl
    add cl, ah
    push eax
    mov edx, ebx
    call pci_pirq
    and esi, 3
    movzx esi, byte ptr [pirq_irqs + esi]
    pop eax
    inc ah
    mov edx, esi
    mov al, dl
    mov edx, PCI_CONFIG_DATA            # the address is still that register's
    out dx, eax
pci_no_pin:
    test edi, CONFIG_FUNCTION_MASK
    jnz pci_next
    lea eax, [edi + CONFIG_HEADER - CONFIG_INTERRUPTS]
    call config_load
    test eax, CONFIG_MULTI_FUNCTION
    jnz pci_next
    jmp pci_next_slot
pci_absent:
    test edi, CONFIG_FUNCTION_MASK
    jnz pci_next
pci_next_slot:
    add edi, CONFIG_SLOT_STEP - CONFIG_FUNCTION_STEP
pci_next:
    add edi, CONFIG_FUNCTION_STEP
    cmp edi, CONFIG_INTERRUPTS + PCI_SLOTS * CONFIG_SLOT_STEP
    jb pci_function
    pop ebx
    ret

# A register of configuration space.
#
# In:       eax = its address
# Out:      eax = its 32 bits
# Clobbers: edx
config_load:
    mov edx, PCI_CONFIG_ADDRESS
    out dx, eax
    mov edx, PCI_CONFIG_DATA
    in eax, dx
    ret

# Which PIRQ a pin of a slot on bus 0 is.
#
# In:       ecx = slot * 4 + pin, INTA# is 0; edx = the machine's record
# Out:      esi = the PIRQ's number
# Clobbers: eax
pci_pirq:
    mov eax, ecx
    shr eax, 2
    movzx esi, byte ptr [edx + eax + MACHINE_PIRQS]
    lea eax, [esi + ecx]
    and eax, 3
    and esi, -4
    or esi, eax
    ret
