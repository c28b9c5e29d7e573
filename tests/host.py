"""What this host can do."""

import os


def kvm_problem() -> str | None:
    """Why KVM cannot be used here; None if it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return None
