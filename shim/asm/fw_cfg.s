# QEMU's fw_cfg: is it there, and does it have DMA?
#
# In:       flat 32-bit, a stack
# Out:      ebp = the routine that reads an item (fw_cfg_read.s)
# Clobbers: eax, ecx, edx, edi
#
# A DMA register that is there says so when it is read, so that one access tells it from a port where nobody answers.

    POST PARAMS
    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_ADDRESS], 0 # all that is read lies below 4 GiB
    mov ebp, offset fw_cfg_read_dma
    mov edx, FW_CFG_DMA_PORT
    in eax, dx
    cmp eax, FW_CFG_DMA_SIGNATURE_VALUE
    je fw_cfg_found
    mov ebp, offset fw_cfg_read_pio
    FW_CFG_NUMBER SIGNATURE, FW_CFG_WORD_PADDR
    cmp dword ptr [edi], FW_CFG_SIGNATURE_VALUE
    jne no_fw_cfg
fw_cfg_found:
