"""What several subcommands need: the plan from the arguments, and files written whole or not at all."""

import argparse
import os
import tempfile

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan, Module, make_plan
from pvhboot.loader.sizes import parse_memory
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import machine
from pvhboot.shim.stock import GUEST_BITS, default_guest

BUILTIN_GUEST = "conformance guest"


def open_kernel(path: str | None) -> Kernel:
    """The kernel of that name; None: the conformance guest."""
    if path is None:
        return Kernel.from_bytes(default_guest(GUEST_BITS[0]), BUILTIN_GUEST)
    return Kernel.open(path)


def plan_from(arguments: argparse.Namespace, kernel: Kernel, firmware: bytes) -> BootPlan:
    """The plan for --initrd, --module, --append, --memory and --machine."""
    modules = [Module(arguments.initrd)] if arguments.initrd is not None else []
    for text in arguments.module:
        path, comma, cmdline = text.partition(",")
        modules.append(Module(path, cmdline if comma else None))
    return make_plan(
        machine(arguments.machine),
        firmware,
        kernel,
        memory=parse_memory(arguments.memory),
        modules=modules,
        cmdline=arguments.append,
    )


def write_files(files: dict[str, bytes]) -> None:
    """Writes all files or none: each goes to a temporary name first, and all are renamed at the end."""
    written: list[tuple[str, str]] = []
    try:
        for path, data in files.items():
            if os.path.isdir(path):
                raise BootError(f"{path}: is a directory: name a file")
            try:
                descriptor, temporary = tempfile.mkstemp(prefix=".pvhboot-", dir=os.path.dirname(path) or ".")
                written.append((temporary, path))
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(temporary, 0o666 & ~umask)
            except OSError as error:
                raise BootError(f"{path}: cannot write: {error.strerror}") from None
        for temporary, path in written:
            os.replace(temporary, path)
        written.clear()
    finally:
        for temporary, _ in written:
            if os.path.exists(temporary):
                os.unlink(temporary)
