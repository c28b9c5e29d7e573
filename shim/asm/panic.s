# A panic: told, and the end. It needs no stack.
#
# In:       esi = the record
# Out:      does not come back
# Clobbers: everything

panic:
    cld
    mov edi, offset panic_end
# A code on the POST port, and its words on the debug console.
#
# In:       esi = the record: code (1 byte), length of the text (1 byte), text; edi = where to go on
# Out:      told
# Clobbers: eax, ecx, edx, esi
tell:
    lodsb
    out POST_PORT, al
    lodsb
    movzx ecx, al
    mov dx, DEBUGCON_PORT
    rep outsb
    jmp edi
panic_end:
    cli
panic_halt:
    hlt
    jmp panic_halt                      # a non-maskable interrupt ends hlt
