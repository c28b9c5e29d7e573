"""What several subcommands need: the plan from the arguments, and files written whole or not at all."""

import argparse
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import LINUX, Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_address, parse_memory, parse_reserved
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import ROM_MAX, MachineSpec, machine
from pvhboot.shim.stock import GUEST_BITS, default_guest

from ..progress import shown_progress

BUILTIN_GUEST = "conformance guest"


def open_kernel(path: str | None) -> Kernel:
    """The kernel of that name; None: the conformance guest."""
    if path is None:
        return Kernel.from_bytes(default_guest(GUEST_BITS[0]), BUILTIN_GUEST)
    with shown_progress(f"unpacking {path}") as progress:
        return Kernel.open(path, progress)


def read_firmware(path: str) -> Blob:
    """A ROM from a file: nothing is known of it but its bytes."""
    return Blob(read_file(path, "firmware", ROM_MAX), {}, (), {})


def plan_from(
    arguments: argparse.Namespace,
    kernel: Kernel,
    firmware: bytes,
    *,
    host_reserved: Callable[[MachineSpec, int], Sequence[E820Entry]] = lambda _spec, _memory: (),
    dma: bool = True,
    memory: int | None = None,
) -> BootPlan:
    """The plan for --initrd, --module, --append, --base, --reserve, --guest, --memory (`memory` without) and --machine.
    `host_reserved` is told machine and memory; the rest as in make_plan."""
    spec = machine(arguments.machine)
    if not dma and spec.source != FW_CFG:
        raise BootError(f"--no-dma is about fw_cfg, which the machine {spec.name} does not have")
    if arguments.memory is not None or memory is None:
        memory = parse_memory(DEFAULT_MEMORY if arguments.memory is None else arguments.memory)
    modules = [Module(arguments.initrd)] if arguments.initrd is not None else []
    for text in arguments.module:
        path, comma, cmdline = text.partition(",")
        modules.append(Module(path, cmdline if comma else None))
    return make_plan(
        spec,
        firmware,
        kernel,
        memory=memory,
        modules=modules,
        cmdline=arguments.append,
        base=None if arguments.base is None else parse_address(arguments.base, "--base"),
        reserved=[parse_reserved(text) for text in arguments.reserve],
        guest=arguments.guest or LINUX,
        host_reserved=host_reserved(spec, memory),
        dma=dma,
    )


Data = bytes | Callable[[IO[bytes]], None]  # what a file is to hold, or what writes it, piece by piece


def write_files(files: Sequence[tuple[str, Data]], inputs: Sequence[str] = ()) -> None:
    """Writes all files or none: each goes to a temporary name beside it first, and all are renamed at the end.

    BootError if one cannot be written, is no regular file, is named twice, or is one of the `inputs`.
    """
    read = [os.path.realpath(path) for path in inputs]
    targets = [os.path.realpath(path) for path, _ in files]
    temporaries: list[str] = []
    try:
        for (path, data), target in zip(files, targets, strict=True):
            with _writing(path):
                _require_target(path, target)
                if targets.count(target) > 1:
                    raise BootError(f"{path}: is to be written twice")
                if target in read:
                    raise BootError(f"{path}: is to be read and written: name another output")
                descriptor, temporary = tempfile.mkstemp(prefix=".pvhboot-", dir=os.path.dirname(target))
                temporaries.append(temporary)
                with os.fdopen(descriptor, "wb") as file:
                    if isinstance(data, bytes):
                        file.write(data)
                    else:
                        data(file)
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(temporary, 0o666 & ~umask)
        for (path, _), target in zip(files, targets, strict=True):
            with _writing(path):
                os.replace(temporaries[0], target)
                del temporaries[0]
    finally:
        for temporary in temporaries:
            os.unlink(temporary)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BootError(f"{path or 'an output without a name'}: cannot write: {error.strerror}") from None


def _require_target(path: str, target: str) -> None:
    """A new name in a directory, or a regular file; raises BootError, or OSError for a name that cannot be."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise BootError(f"{path}: is a directory or a device: name a regular file")
