"""What this host can do, and how to do less."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GUESTS = Path(os.environ.get("PVHBOOT_TEST_GUESTS", Path(__file__).parent / "guests"))
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def guest_problem(name: str) -> str | None:
    """Why that real guest cannot be used here; None if it can."""
    return None if (GUESTS / name).is_file() else f"{name} is not there: tests/fetch-guests brings it"


def kvm_problem() -> str | None:
    """Why KVM cannot be used here; None if it can."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return None


QEMU = "qemu-system-x86_64"


def qemu_problem(accel: str = "tcg") -> str | None:
    """Why QEMU cannot be used here with that accelerator; None if it can."""
    if shutil.which(QEMU) is None:
        return f"no {QEMU}"
    return kvm_problem() if accel == "kvm" else None


@contextmanager
def without_privilege() -> Iterator[None]:
    """File permissions mean nothing to root: while this lasts, they do (the two capabilities behind that are off)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice, for 64 capabilities
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] &= ~(1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH)
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0
