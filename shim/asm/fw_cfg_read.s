# Reading fw_cfg: the routines that the phases call, by ebp or by name. Each says below where it differs.
#
# In:       eax = FW_CFG_READ_*, the control word, and ecx = bytes, both as the descriptor has them, big-endian; edi = where to
#           put them
# Out:      the bytes in place, edi as it was: zeros beyond the end of an item, and for an item that is not there
# Clobbers: eax, ecx, edx

# By DMA: one write starts the transfer, and QEMU has done it when the write returns. The selection of the item travels in
# the descriptor.
#
# In:       eax, ecx, edi as above
# Clobbers: eax, ecx, edx
fw_cfg_read_dma:
    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_CONTROL], eax
    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_LENGTH], ecx
    mov eax, edi
    bswap eax
    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_ADDRESS + 4], eax
    mov eax, FW_CFG_DMA_PADDR_SWAPPED   # the register is big-endian too
    mov edx, FW_CFG_DMA_LOW_PORT
    out dx, eax
    cmp dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_CONTROL], 0
    jne fw_cfg_dma_wait
    ret

# The interface allows a host that takes its time (QEMU does not); not one that takes for ever, nor one that says no. Each look
# is an exit to the host, about a microsecond at the least.
fw_cfg_dma_wait:
    mov ecx, FW_CFG_DMA_POLLS
    mov edx, FW_CFG_DMA_PORT
1:  in eax, dx
    mov eax, dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_CONTROL]
    test eax, eax
    jz 2f
    bswap eax
    test al, FW_CFG_DMA_CTL_ERROR
    jnz fw_cfg_dma_failed
    dec ecx
    jnz 1b
    jmp fw_cfg_dma_failed
2:  ret

# By port, where there is no DMA: a byte at a time.
#
# In:       eax, ecx, edi as above
# Clobbers: eax, ecx, edx
fw_cfg_read_pio:
    bswap eax
    bswap ecx
    test al, FW_CFG_DMA_CTL_SELECT
    jz 1f                               # on with the item that is being read
    shr eax, FW_CFG_DMA_CTL_KEY_SHIFT
    mov edx, FW_CFG_PORT
    out dx, ax
1:  mov edx, FW_CFG_DATA_PORT
    push edi
    rep insb
    pop edi
    ret
