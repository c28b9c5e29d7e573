# COM1, polled, and the printing of strings, numbers and templates.
#
# A transmitter that never gets ready is given up once and for all, so that no line waits for it again.

# 115200 8N1, FIFOs on, no interrupts. Clobbers: eax, edx.
serial_init:
    mov edx, COM1_PORT + UART_IER
    xor eax, eax
    out dx, al
    mov edx, COM1_PORT + UART_LCR
    mov al, UART_LCR_DLAB
    out dx, al
    mov edx, COM1_PORT + UART_DLL
    mov al, UART_DIVISOR_115200 & 0xff
    out dx, al
    mov edx, COM1_PORT + UART_DLM
    mov al, UART_DIVISOR_115200 >> 8
    out dx, al
    mov edx, COM1_PORT + UART_LCR
    mov al, UART_LCR_8N1
    out dx, al
    mov edx, COM1_PORT + UART_FCR
    mov al, UART_FCR_ENABLE | UART_FCR_CLEAR_RX | UART_FCR_CLEAR_TX
    out dx, al
    mov edx, COM1_PORT + UART_MCR
    mov al, UART_MCR_DTR | UART_MCR_RTS
    out dx, al
    ret

# Waits until the last bit is out, or gives up. Clobbers: eax, ecx, edx, flags.
serial_drain:
    mov ah, UART_LSR_TEMT
    jmp serial_wait

# Waits for the line status.
#
# In:       ah = the bit to wait for
# Out:      ZF clear if it is set, ZF set if it was given up
# Clobbers: al, ecx, edx, flags
serial_wait:
    mov edx, COM1_PORT + UART_LSR
    mov ecx, GUEST_SERIAL_POLLS
1:  in al, dx
    test al, ah
    jnz 2f
    dec ecx
    jnz 1b
2:  ret

# In: al = the character. Clobbers: flags.
put_char:
    cmp dword ptr [STATE + STATE_SERIAL_DEAD], 0
    jne 3f
    push eax
    push ecx
    push edx
    push eax
    mov ah, UART_LSR_THRE
    call serial_wait
    pop eax
    jz 1f
    mov edx, COM1_PORT + UART_THR
    out dx, al
    jmp 2f
1:  inc dword ptr [STATE + STATE_SERIAL_DEAD]
2:  pop edx
    pop ecx
    pop eax
3:  ret

# In: esi = a string of the guest's own. Out: esi behind its NUL. Clobbers: flags.
put_string:
    push eax
1:  lodsb
    test al, al
    jz 2f
    call put_char
    jmp 1b
2:  pop eax
    ret

# A string of somebody else, in quotes, or none, or unreachable: at most GUEST_MAX_STRING bytes, and none above 4 GiB.
#
# In:       edi:esi = its address
# Out:      printed
# Clobbers: eax, ecx, esi, flags
put_quoted:
    test edi, edi
    jnz put_unreachable
    test esi, esi
    jz put_none
    mov al, CHAR_QUOTE
    call put_char
    mov ecx, GUEST_MAX_STRING
1:  lodsb
    test al, al
    jz 4f
    cmp al, CHAR_SPACE
    jb 2f
    cmp al, '~'
    jbe 3f
2:  mov al, '?'                         # not ASCII, or does not print
3:  call put_char
    test esi, esi
    jz 4f                               # the address wrapped
    dec ecx
    jnz 1b
4:  mov al, CHAR_QUOTE
    jmp put_char
put_none:
    mov esi, offset text_none
    jmp put_string
put_unreachable:
    mov esi, offset text_unreachable
    jmp put_string

# In: eax = the number. Clobbers: eax, ecx, edx, edi, flags.
put_decimal:
    xor ecx, ecx
    mov edi, 10
1:  xor edx, edx
    div edi
    push edx
    inc ecx
    test eax, eax
    jnz 1b
2:  pop eax
    add al, '0'
    call put_char
    dec ecx
    jnz 2b
    ret

# In: edi = address of a number, ecx = its bytes. Clobbers: eax, ecx, flags.
put_hex:
    mov al, '0'
    call put_char
    mov al, 'x'
    call put_char
1:  movzx eax, byte ptr [edi + ecx - 1]
    push eax
    shr eax, 4
    call put_digit
    pop eax
    and eax, 0xf
    call put_digit
    dec ecx
    jnz 1b
    ret
put_digit:
    mov al, byte ptr [eax + hex_digits]
    jmp put_char

# A line with the fields of a structure.
#
# In:       esi = the template (guest_data.s says how it is made), ebp = the structure
# Out:      printed
# Clobbers: eax, ecx, edx, esi, edi, flags
put_template:
    call put_string
    lodsb
    movzx ecx, al
    jecxz 2f
    lodsb
    movzx edi, al
    add edi, ebp
    cmp ecx, FIELD_DECIMAL
    je 1f
    call put_hex
    jmp put_template
1:  mov eax, dword ptr [edi]
    call put_decimal
    jmp put_template
2:  ret
