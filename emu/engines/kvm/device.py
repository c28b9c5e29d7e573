"""The device /dev/kvm, and the ioctls that are made from there on."""

import os
import sys
from ctypes import Structure, c_uint64
from typing import Final

from pvhboot.shim.errors import BootError, UnavailableError

from . import uapi

if sys.platform == "linux":
    import fcntl

_MACHINE: Final = "x86_64"


class Ioctls:
    """Makes them, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def call(self, fd: int, request: int, argument: int | Structure | c_uint64, what: str) -> int:
        """One other than KVM_RUN, taken up again after a signal; BootError says that KVM cannot do `what`, and why."""
        while True:
            self.made += 1
            try:
                return int(fcntl.ioctl(fd, request, argument))
            except InterruptedError:
                continue
            except OSError as error:
                raise BootError(f"KVM cannot {what}: {error.strerror}") from None

    def run(self, fd: int) -> None:
        """KVM_RUN; OSError for what it says."""
        self.made += 1
        fcntl.ioctl(fd, uapi.KVM_RUN, 0)


def open_device(ioctls: Ioctls | None = None) -> int:
    """A file descriptor of /dev/kvm, for the caller to close. UnavailableError says what is missing and how to get it."""
    device = uapi.KVM_DEVICE
    if sys.platform != "linux":
        raise UnavailableError(f"the kvm engine needs Linux and this is {sys.platform}: use --engine unicorn")
    if (machine := os.uname().machine) != _MACHINE:
        raise UnavailableError(f"the kvm engine needs an {_MACHINE} host and this is {machine}: use --engine unicorn")
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnavailableError(f"{device} does not exist: load the kvm module, or use --engine unicorn") from None
    except PermissionError:
        raise UnavailableError(f"no permission to open {device}: join the group kvm, or use --engine unicorn") from None
    except OSError as error:
        raise UnavailableError(f"cannot open {device}: {error.strerror}; use --engine unicorn") from None
    try:
        _check_abilities(fd, ioctls or Ioctls())
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_abilities(fd: int, ioctls: Ioctls) -> None:
    version = ioctls.call(fd, uapi.KVM_GET_API_VERSION, 0, f"tell its version ({uapi.KVM_DEVICE})")
    if version != uapi.KVM_API_VERSION:
        raise UnavailableError(f"{uapi.KVM_DEVICE} has API version {version}: this engine speaks {uapi.KVM_API_VERSION}")
    capabilities = uapi.REQUIRED_CAPABILITIES.items()
    check = uapi.KVM_CHECK_EXTENSION
    missing = [name for number, name in capabilities if not ioctls.call(fd, check, number, f"check {name}")]
    if missing:
        raise UnavailableError(f"this host's KVM lacks {', '.join(missing)}: use --engine unicorn")
