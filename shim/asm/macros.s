# Macros, for all phases.

# Progress on the POST port and the debug console, in a verbose build only: each byte is an exit to the host. Clobbers: nothing.
.macro POST name
.if VERBOSE
    pushad
    mov esi, offset post_\name
    mov edi, offset 99f
    jmp tell
99: popad
.endif
.endm

# A number of 32 bits from fw_cfg, with ebp = reader. Out: edi = place. Clobbers: eax, ecx, edx.
.macro FW_CFG_NUMBER item, place
    mov eax, FW_CFG_READ_\item
    mov ecx, FW_CFG_NUMBER_BYTES
    mov edi, \place
    call ebp
.endm

# Where the machine's record (machine_records.s) has a field: what is found out at run time, or known.
.macro MACHINE register, field
.if DETECTS
    mov \register, dword ptr [MACHINE_POINTER]
    add \register, \field
.else
    mov \register, offset machine + \field
.endif
.endm

# Stops with a named panic. Does not come back.
.macro PANIC name
    mov esi, offset panic_\name
    jmp panic
.endm
