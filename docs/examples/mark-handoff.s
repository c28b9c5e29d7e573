# A custom stage: tells a marker port that the kernel is about to take over, for `pvhboot timeline` and the scripts that perf runs.
#
#   pvhboot build --stage before-handoff=docs/examples/mark-handoff.s -o marked.bin
#   pvhboot timeline --firmware marked.bin
#
# Clobbers: eax

    mov al, MARK_LINUX_PVH
    out MARK_LINUX_PORT, al
    ret
