# Eight bytes of the sum, from so many before esi on. Clobbers: al.
.macro SUM_EIGHT before
    add al, byte ptr [esi - \before]
    add al, byte ptr [esi - \before + 1]
    add al, byte ptr [esi - \before + 2]
    add al, byte ptr [esi - \before + 3]
    add al, byte ptr [esi - \before + 4]
    add al, byte ptr [esi - \before + 5]
    add al, byte ptr [esi - \before + 6]
    add al, byte ptr [esi - \before + 7]
.endm

# The sum of bytes. Sums of wider words would have to be taken apart again, since carries run from byte to byte: that takes as
# many instructions. The loop is entered in its middle, so that what is left is a multiple of its 64 bytes.
#
# In:       eax = physical address, ecx = bytes
# Out:      al = their sum, modulo 256
# Clobbers: eax, ecx, edx
sum_bytes:
    push esi
    mov edx, ecx
    shr edx, 6
    and ecx, 63
    lea esi, [eax + ecx]
    neg ecx
    lea ecx, [ecx + ecx * 2 + sum_next] # each add has three bytes
    xor eax, eax
    jmp ecx
sum_loop:
    SUM_EIGHT 64
    SUM_EIGHT 56
    SUM_EIGHT 48
    SUM_EIGHT 40
    SUM_EIGHT 32
    SUM_EIGHT 24
    SUM_EIGHT 16
    SUM_EIGHT 8
sum_next:
    add esi, 64
    dec edx
    jns sum_loop
    pop esi
    ret
