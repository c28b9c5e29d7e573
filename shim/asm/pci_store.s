# Stores to configuration space, as a list in the ROM has them.
#
# In:       esi = how many, and behind that so many pairs of address and value, of 32 bits
# Out:      done
# Clobbers: eax, ecx, edx, esi
config_stores:
    lodsd
    mov ecx, eax
1:  dec ecx
    js 2f
    lodsd
    mov edx, PCI_CONFIG_ADDRESS
    out dx, eax
    lodsd
    mov edx, PCI_CONFIG_DATA
    out dx, eax
    jmp 1b
2:  ret
