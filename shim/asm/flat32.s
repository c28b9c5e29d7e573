# Flat data segments and a stack.
#
# In:       protected mode, CS flat, the GDT in the ROM
# Out:      ds, es, ss flat; esp at the top of the firmware's stack; string instructions go upwards
# Clobbers: eax

.code32
protected_mode:
    mov eax, SEL_DATA32
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, STACK_TOP
    cld
    POST PROTECTED_MODE
