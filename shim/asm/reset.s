# The reset vector: where every x86 CPU since the 80386 starts, 16 bytes below 4 GiB.
#
# In:       the state after reset: real mode, CS f000 with its hidden base at ffff0000, IP fff0, interrupts off
# Out:      at real_mode, nothing changed
# Clobbers: nothing

.code16
reset_vector:
    jmp real_mode                       # 16 bytes are no place to work in

.balign 8, 0
rom_mark:                               # the last bytes of the ROM: by them it is known
    .quad ROM_MARK_VALUE
