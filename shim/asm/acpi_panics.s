# Where acpi.s goes when something is wrong.
#
# In:       anything
# Out:      does not come back
# Clobbers: everything

acpi_bad_script:
    PANIC ACPI_SCRIPT
acpi_bad_file:
    PANIC ACPI_FILE
acpi_no_room:
    PANIC ACPI_ROOM
