# Macros, for all phases.

# Progress on the POST port, in a verbose build only: each write is an exit to the host. Clobbers: al.
.macro POST code
.if VERBOSE
    mov al, \code
    out POST_PORT, al
.endif
.endm

# Stops with a named panic. Does not come back.
.macro PANIC name
    mov esi, offset panic_\name
    jmp panic
.endm
