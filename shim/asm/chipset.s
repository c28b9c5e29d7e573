# A PC's chipset: power management and, on q35, the window on configuration space get their addresses, and the F segment and
# the upper memory in front of it become RAM.
#
# In:       flat 32-bit
# Out:      the chipset programmed, all of the F segment and of upper memory free; without a chipset there is none of both
# Clobbers: eax, ecx, edx, esi
#
# All of it before the first look at fw_cfg's files: QEMU makes the ACPI tables from what these registers hold by then. The
# rest that a PC's firmware used to do, Linux does for itself: no bus is scanned here.

    POST CHIPSET
.if DETECTS
# Which machine is this? The host bridge says. The last record is that of a machine without one.
    mov eax, HOST_BRIDGE
    mov edx, PCI_CONFIG_ADDRESS
    out dx, eax
    mov edx, PCI_CONFIG_DATA
    in eax, dx
    mov esi, offset machine
    mov ecx, MACHINE_RECORDS - 1
chipset_which:
    cmp eax, dword ptr [esi + MACHINE_HOST_ID]
    je chipset_known
    add esi, SIZEOF_MACHINE
    dec ecx
    jnz chipset_which
chipset_known:
    mov dword ptr [MACHINE_POINTER], esi
.endif
    MACHINE esi, MACHINE_UPPER_END
    lodsd
    mov dword ptr [UPPER_END], eax
    mov dword ptr [UPPER_START], UPPER_MEMORY
    lodsd
    mov dword ptr [FSEG_END], eax
    mov dword ptr [FSEG_START], F_SEGMENT
    call config_stores
