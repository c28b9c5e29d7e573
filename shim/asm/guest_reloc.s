# The entry of a guest that can be loaded anywhere, and what it does to its own image.
#
# PVH gives no stack, and without one there is no telling where this runs. As Linux does, the guest takes the first dword of
# start_info for one push; unlike Linux, it puts back what was there. The debug registers keep what is overwritten meanwhile.
#
# In:       as for guest_entry; ebx = start_info, in RAM that ds and ss reach
# Out:      goes on at guest_record
# Clobbers: eax, esp (both recorded), dr0 to dr3
guest_entry_reloc:
    mov dr0, esp
    mov dr1, eax
    mov eax, dword ptr [ebx]
    mov dr2, eax
    lea esp, [ebx + 4]
    call reloc_here
reloc_here:
    pop eax
    lea eax, [eax - (reloc_here - guest_image)]
    mov dr3, ecx
    mov ecx, dr2
    mov dword ptr [ebx], ecx
    mov ecx, dr0
    mov dword ptr [eax + STATE_OFFSET + STATE_ESP], ecx
    mov ecx, dr1
    mov dword ptr [eax + STATE_OFFSET + STATE_EAX], ecx
    mov ecx, dr3
    jmp guest_record

# The sum of the image's dwords up to the state: 0, as it was linked.
#
# In:       edi = the image
# Out:      STATE_IMAGE_SUM
# Clobbers: eax, ecx, esi, flags
sum_image:
    xor eax, eax
    mov esi, edi
    mov ecx, STATE_OFFSET / 4
1:  add eax, dword ptr [esi]
    add esi, 4
    dec ecx
    jnz 1b
    mov dword ptr [edi + STATE_OFFSET + STATE_IMAGE_SUM], eax
    ret

# Adds the displacement to the addresses that the image contains: its table has their offsets, 16 bits each.
#
# In:       edi = the image, edx = the displacement
# Out:      what follows may use absolute addresses
# Clobbers: eax, ecx, esi, flags
relocate:
    mov ecx, dword ptr [edi + shape - guest_image + SHAPE_RELOCATION_COUNT]
    mov esi, dword ptr [edi + shape - guest_image + SHAPE_RELOCATIONS]
    add esi, edx
    jecxz 2f
1:  movzx eax, word ptr [esi]
    add dword ptr [edi + eax], edx
    add esi, 2
    dec ecx
    jnz 1b
2:  ret
