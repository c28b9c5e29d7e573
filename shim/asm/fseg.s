# Memory in the F segment, from its end downwards.
#
# In:       ecx = bytes
# Out:      CF clear: edi = physical address, a multiple of 16; CF set: there is no room, or no F segment on this machine
# Clobbers: nothing else
fseg_take:
    mov edi, dword ptr [FSEG_END]
    sub edi, ecx
    jc 1f
    and edi, -16
    cmp edi, F_SEGMENT
    jc 1f
    mov dword ptr [FSEG_END], edi
1:  ret
