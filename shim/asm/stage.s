# The custom stage before the handoff: present only in a build that has one.
#
# In:       flat 32-bit, a stack, start_info complete
# Out:      as it was, but for what the stage declares
# Clobbers: what the stage declares

    POST STAGE
    call stage_before_handoff
