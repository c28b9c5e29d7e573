"""What several subcommands need: the plan from the arguments, and files written whole or not at all."""

import argparse
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Final

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.limits import check_firmware
from pvhboot.loader.modules import LINUX, Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.recording import Recording, read_recording
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_address, parse_memory, parse_reserved
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.blob import Blob, blob_from_json
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import ROM_MAX, MachineSpec, machine
from pvhboot.shim.stock import GUEST_BITS, default_blob, default_guest

from ..engines.base import STATE_REGISTERS, Limits, Until
from ..engines.names import QEMU
from ..progress import shown_progress
from ..reasons import CONSOLE, EXIT, HANDOFF

BUILTIN_GUEST = "conformance guest"
_MANIFEST_MAX: Final = 16 << 20  # bytes
_INPUTS: Final = ("kernel", "initrd", "firmware", "recording", "replay_io")


def open_kernel(path: str | None) -> Kernel:
    """The kernel of that name; None: the conformance guest."""
    if path is None:
        return Kernel.from_bytes(default_guest(GUEST_BITS[0]), BUILTIN_GUEST)
    with shown_progress(f"unpacking {path}") as progress:
        return Kernel.open(path, progress)


def read_firmware(path: str, manifest: str | None = None) -> Blob:
    """A ROM from a file, of which nothing is known but its bytes and its name; with a manifest, all that `pvhboot build` knew
    of it, though a few lines of it were patched since. BootError if that is no such manifest, or another ROM's."""
    data = read_file(path, "firmware", ROM_MAX)
    check_firmware(data, f"{path}: ")
    if manifest is None:
        return Blob(data, {}, (), {"file": os.path.basename(path)})
    from ..owners import firmware_memory

    text = read_file(manifest, "manifest", _MANIFEST_MAX)
    try:
        blob = blob_from_json(data, text.decode())
        firmware_memory(blob.manifest), blob.manifest["spec"]["acpi"]  # what else is looked at
        if blob.locate(blob.symbols["reset_vector"]) is None:
            raise ValueError("nothing is said of the reset vector")
    except BootError as error:
        raise BootError(f"{manifest}: {error}: {path} is not the ROM that it was written with") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BootError(f"{manifest}: no manifest of a firmware: `pvhboot build --manifest` writes one") from None
    return blob


def firmware_from(arguments: argparse.Namespace) -> Blob:
    """--firmware with --manifest, or pvhboot's own for --machine."""
    if arguments.firmware is not None:
        return read_firmware(arguments.firmware, arguments.manifest)
    if arguments.manifest is not None:
        raise BootError("--manifest is about the ROM of --firmware: name that, too")
    return default_blob(machine(arguments.machine))


def recording_from(arguments: argparse.Namespace) -> Recording | None:
    """--recording; BootError if it does not fit --engine and --machine."""
    if arguments.recording is None:
        return None
    if arguments.engine == QEMU:
        raise BootError("--recording is for the engines unicorn and kvm: QEMU tells its firmware what it has itself")
    recording = read_recording(arguments.recording)
    if recording.machine != arguments.machine:
        raise BootError(f"{arguments.recording}: a recording of {recording.machine}: give --machine {recording.machine}")
    return recording


def until_from(arguments: argparse.Namespace) -> Until:
    """--until; without it the handoff, or the exit of the built-in guest."""
    text: str | None = arguments.until
    if text is None:
        return Until(HANDOFF if arguments.kernel is not None else EXIT)
    if text in (HANDOFF, EXIT):
        return Until(text)
    kind, _, wanted = text.partition(":")
    if kind == CONSOLE and wanted:
        return Until(CONSOLE, wanted)
    raise BootError(f"cannot read --until {text!r}: write handoff, exit or console:TEXT")


def limits_from(arguments: argparse.Namespace) -> Limits:
    """--max-instructions, --max-exits, --timeout."""
    for name, value in (
        ("--timeout", arguments.timeout),
        ("--max-instructions", arguments.max_instructions),
        ("--max-exits", arguments.max_exits),
    ):
        if value is not None and not value > 0:
            raise BootError(f"{name} {value}: give a number above 0")
    return Limits(arguments.max_instructions, arguments.max_exits, arguments.timeout)


def plan_from(
    arguments: argparse.Namespace,
    kernel: Kernel,
    firmware: bytes,
    *,
    host_reserved: Callable[[MachineSpec, int], Sequence[E820Entry]] = lambda _spec, _memory: (),
    dma: bool = True,
    memory: int | None = None,
    cmdline: str | None = None,
) -> BootPlan:
    """The plan for --initrd, --module, --append (`cmdline` without), --base, --reserve, --guest, --memory (`memory` without)
    and --machine. `host_reserved` is told machine and memory; the rest as in make_plan."""
    spec = machine(arguments.machine)
    if not dma and spec.source != FW_CFG:
        raise BootError(f"--no-dma is about fw_cfg, which the machine {spec.name} does not have")
    if arguments.memory is not None or memory is None:
        memory = parse_memory(DEFAULT_MEMORY if arguments.memory is None else arguments.memory)
    modules = [Module(arguments.initrd)] if arguments.initrd is not None else []
    for text in arguments.module:
        path, comma, words = text.partition(",")
        modules.append(Module(path, words if comma else None))
    return make_plan(
        spec,
        firmware,
        kernel,
        memory=memory,
        modules=modules,
        cmdline=cmdline if arguments.append is None else arguments.append,
        base=None if arguments.base is None else parse_address(arguments.base, "--base"),
        reserved=[parse_reserved(text) for text in arguments.reserve],
        guest=arguments.guest or LINUX,
        host_reserved=host_reserved(spec, memory),
        dma=dma,
    )


def require_registers(names: Sequence[str], option: str) -> None:
    """BootError for a name that no register of a trace has."""
    for name in names:
        if name not in STATE_REGISTERS:
            raise BootError(f"{option} {name}: no such register; there is {', '.join(STATE_REGISTERS)}")


def inputs_of(arguments: argparse.Namespace) -> list[str]:
    """The files that the arguments have a command read, so that it does not write over one."""
    given = vars(arguments)
    names = ("manifest", *_INPUTS) if given.get("firmware") is not None else _INPUTS  # else that is what `build` writes
    named = [given[name] for name in names if given.get(name) is not None]
    return named + [text.partition(",")[0] for text in arguments.module]


Data = bytes | Callable[[IO[bytes]], None]  # what a file is to hold, or what writes it, piece by piece


def require_outputs(paths: Sequence[str], inputs: Sequence[str] = ()) -> list[str]:
    """Where the files lie that are to be written: for who knows their names long before what is to be in them. BootError if one
    is no regular file, is named twice, or is one of the `inputs`."""
    read = [os.path.realpath(path) for path in inputs]
    targets = [os.path.realpath(path) for path in paths]
    for path, target in zip(paths, targets, strict=True):
        with _writing(path):
            _require_target(path, target)
        if targets.count(target) > 1:
            raise BootError(f"{path}: is to be written twice")
        if target in read:
            raise BootError(f"{path}: is to be read and written: name another output")
    return targets


def write_files(files: Sequence[tuple[str, Data]], inputs: Sequence[str] = ()) -> None:
    """Writes all files or none: each goes to a temporary name beside it first, and all are renamed at the end.

    BootError if one cannot be written, or as of `require_outputs`.
    """
    targets = require_outputs([path for path, _ in files], inputs)
    temporaries: list[str] = []
    try:
        for (path, data), target in zip(files, targets, strict=True):
            with _writing(path):
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
    directory = os.path.dirname(target)
    if not path or not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not os.access(directory, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise BootError(f"{path}: is a directory or a device: name a regular file")
