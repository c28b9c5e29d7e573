# Where params.s and modules.s go when something is wrong.
#
# In:       anything
# Out:      does not come back
# Clobbers: everything

params_no_magic:
    PANIC PARAMS_MAGIC
params_bad_version:
    PANIC PARAMS_VERSION
params_empty:
    PANIC NO_PARAMS
params_no_entry:
    PANIC NO_ENTRY
params_bad_e820:
    PANIC E820_COUNT
params_bad_modules:
    PANIC MODULE_COUNT
params_bad_size:
    PANIC PARAMS_SIZE
params_bad_string:
    PANIC STRING_END
modlist_bad_string:
    PANIC STRING_OFFSET
