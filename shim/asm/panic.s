# A panic: its code on the POST port, its words on the debug console, and the end.
#
# In:       esi = the record: code (1 byte), length of the text (1 byte), text
# Out:      does not come back
# Clobbers: everything

params_no_magic:
    PANIC PARAMS_MAGIC
params_bad_version:
    PANIC PARAMS_VERSION
params_empty:
    PANIC NO_PARAMS
params_no_entry:
    PANIC NO_ENTRY
params_bad_e820:
    PANIC E820_COUNT
params_bad_modules:
    PANIC MODULE_COUNT
params_bad_size:
    PANIC PARAMS_SIZE
params_bad_string:
    PANIC STRING_END
modlist_bad_string:
    PANIC STRING_OFFSET

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
