# The parameter block of the machine `bare`: found, bounded, proven to add up. docs/params.md has its layout.
#
# In:       flat 32-bit
# Out:      ebp = the block's header, esi = its first e820 entry
# Clobbers: eax, ecx, edx
#
# Every count is bounded before it is multiplied, so that no sum can wrap, and the parts must add up to the size:
# from here on the block can be walked without another look at its end.

    POST PARAMS
    mov ebp, PARAMS_PADDR
    cmp dword ptr [ebp + PARAMS_HEADER_MAGIC], PARAMS_MAGIC
    jne params_no_magic
    cmp dword ptr [ebp + PARAMS_HEADER_VERSION], PARAMS_VERSION
    jne params_bad_version
    cmp dword ptr [ebp + PARAMS_HEADER_SIZE], 0
    je params_empty
    cmp dword ptr [ebp + PARAMS_HEADER_ENTRY], 0
    je params_no_entry

    mov eax, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]
    lea ecx, [eax - 1]                  # 1..max in one comparison: 0 becomes the largest number
    cmp ecx, PARAMS_MAX_E820 - 1
    ja params_bad_e820
    mov edx, dword ptr [ebp + PARAMS_HEADER_MODULES]
    cmp edx, PARAMS_MAX_MODULES
    ja params_bad_modules
    mov ecx, dword ptr [ebp + PARAMS_HEADER_STRINGS_SIZE]
    cmp ecx, PARAMS_MAX_SIZE
    ja params_bad_size

    imul eax, eax, SIZEOF_E820_ENTRY
    imul edx, edx, SIZEOF_PARAMS_MODULE
    lea esi, [eax + edx + SIZEOF_PARAMS_HEADER]
    add esi, ecx
    cmp esi, dword ptr [ebp + PARAMS_HEADER_SIZE]
    jne params_bad_size
    cmp esi, PARAMS_MAX_SIZE
    ja params_bad_size

    jecxz params_accepted               # no strings, so no terminator
    cmp byte ptr [ebp + esi - 1], 0     # they end the block
    jne params_bad_string
params_accepted:
    lea esi, [ebp + SIZEOF_PARAMS_HEADER]
