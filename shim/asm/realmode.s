# Real mode to flat 32-bit protected mode.
#
# In:       the state after reset, any IP in the last 64 KiB
# Out:      at protected_mode: CS flat, 32-bit; CR0 holds PE and nothing else
# Clobbers: eax, GDTR
#
# CS is still based at ffff0000, so an offset into the last 64 KiB reaches this ROM through a cs: override, and nothing
# has to be shadowed below 1 MiB. CR0 is written whole, not or-ed: reset leaves CD and NW set, and the caches stay off
# until somebody clears them; the ABI wants every bit but PE clear.

.code16
real_mode:
.if MARKS
    mov al, MARK_FIRMWARE_START
    out MARK_FIRMWARE_PORT, al
.endif
    lgdtd cs:[rom_gdtr - RESET_CS_BASE] # the 32-bit form: the base has more than 24 bits
    mov eax, CR0_PE
    mov cr0, eax                        # protected mode; CS keeps its old hidden part...
    data32 ljmp SEL_CODE32, protected_mode # ...until this far jump loads a new one
