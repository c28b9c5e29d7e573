# What lies behind a custom stage: a stage that forgets its ret ends here, and not in the padding.
#
# In:       anything
# Out:      does not come back
# Clobbers: everything

    PANIC STAGE_END
