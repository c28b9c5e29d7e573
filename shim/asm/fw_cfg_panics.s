# Where the phases that ask fw_cfg go when something is wrong.
#
# In:       anything
# Out:      does not come back
# Clobbers: everything

no_fw_cfg:
    PANIC NO_FW_CFG
fw_cfg_dma_failed:
    PANIC FW_CFG_DMA
e820_bad_directory:
    PANIC FW_CFG_FILES
e820_no_file:
    PANIC NO_E820
e820_bad_count:
    PANIC E820_COUNT
e820_bad_low:
    PANIC E820_LOW
e820_overlap:
    PANIC E820_OVERLAP
kernel_missing:
    PANIC NO_KERNEL
kernel_old:
    PANIC BOOT_PROTOCOL
setup_data_bad:
    PANIC SETUP_DATA
kernel_bad_place:
    PANIC KERNEL_RAM
kernel_bad_entry:
    PANIC KERNEL_ENTRY
cmdline_too_long:
    PANIC CMDLINE_SIZE
cmdline_bad_end:
    PANIC STRING_END
initrd_bad_place:
    PANIC INITRD_RAM
initrd_over_kernel:
    PANIC INITRD_KERNEL
