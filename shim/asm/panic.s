# A panic: its code on the POST port, its words on the debug console, and the end.
#
# In:       esi = the record: code (1 byte), length of the text (1 byte), text
# Out:      does not come back
# Clobbers: everything

panic:
    cld
    lodsb
    out POST_PORT, al
    lodsb
    movzx ecx, al
    mov dx, DEBUGCON_PORT
    rep outsb
    cli
panic_halt:
    hlt
    jmp panic_halt                      # a non-maskable interrupt ends hlt
