"""Which engines this host has."""

import os

from pvhboot.shim.errors import UnavailableError

from ..engines.names import KVM, QEMU


def engine_problem(name: str) -> str | None:
    """Why an engine cannot be used here; None if it can."""
    try:
        if name == KVM:
            from ..engines.kvm.device import open_device

            os.close(open_device())
        elif name == QEMU:
            from ..engines.qemu.command import find_program

            find_program()
    except UnavailableError as error:
        return str(error)
    return None
