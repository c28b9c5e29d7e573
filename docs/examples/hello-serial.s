# A custom stage: prints a line on COM1 just before the kernel takes over.
#
#   pvhboot build --stage before-handoff=docs/examples/hello-serial.s -o hello.bin
#   pvhboot boot --firmware hello.bin
#
# In:       flat 32-bit protected mode, a stack, start_info complete
# Out:      as it was
# Clobbers: eax, ecx, edx, esi, flags

.equ COM1, 0x3f8
.equ LSR, COM1 + 5                      # the line status register...
.equ LSR_READY, 0x20                    # ...and its bit for "room for a byte"
.equ PATIENCE, 10000                    # polls for a byte: a stage must not hang where no UART is

    mov esi, offset hello_text
hello_byte:
    lodsb
    test al, al
    jz hello_done
    mov ah, al
    mov ecx, PATIENCE
hello_wait:
    mov dx, LSR
    in al, dx
    test al, LSR_READY
    jnz hello_send
    loop hello_wait
hello_send:
    mov al, ah
    mov dx, COM1
    out dx, al
    jmp hello_byte
hello_done:
    ret

hello_text:
    .asciz "hello from the firmware\r\n"
