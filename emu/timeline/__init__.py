"""When a boot came where: marks on the way from the start of the VMM to the guest's init, and how they are shown."""
