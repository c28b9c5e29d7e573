"""What several subcommands make of their arguments: firmware, plan, end, limits."""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pvhboot.loader.cache import Cache, user_directory
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import LINUX, Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_address, parse_memory, parse_reserved
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MachineSpec, machine
from pvhboot.shim.stock import default_blob

from ..arguments.common import TIMEOUT_SECONDS
from ..engines.base import STATE_REGISTERS, Engine, Limits, Until
from ..engines.names import QEMU
from ..inputs import read_firmware
from ..reasons import CONSOLE, EXIT, HANDOFF, LEFT

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

_INPUTS: Final = ("kernel", "initrd", "firmware", "recording", "replay_io")


def firmware_from(arguments: argparse.Namespace) -> Blob:
    """--firmware with --manifest, or pvhboot's own for --machine."""
    if arguments.firmware is not None:
        return read_firmware(arguments.firmware, arguments.manifest)
    if arguments.manifest is not None:
        raise BootError("--manifest is about the ROM of --firmware: name that, too")
    return default_blob(machine(arguments.machine))


def cache_from(arguments: argparse.Namespace) -> Cache | None:
    """This user's cache of kernels, unless there is none, or --no-cache."""
    directory = user_directory()
    return None if arguments.no_cache or directory is None else Cache(directory)


def recording_from(arguments: argparse.Namespace) -> "Recording | None":
    """--recording; BootError if it does not fit --engine and --machine."""
    if arguments.recording is None:
        return None
    if arguments.engine == QEMU:
        raise BootError("--recording is for the engines unicorn and kvm: QEMU tells its firmware what it has itself")
    from pvhboot.loader.recording import read_recording

    recording = read_recording(arguments.recording)
    if recording.machine != arguments.machine:
        raise BootError(f"{arguments.recording}: a recording of {recording.machine}: give --machine {recording.machine}")
    return recording


def until_from(arguments: argparse.Namespace) -> Until:
    """--until; without it the handoff, or the exit of the built-in guest, or with --console when somebody has left."""
    text: str | None = arguments.until
    if text is None and vars(arguments).get("console"):
        return Until(LEFT)
    if text is None:
        return Until(HANDOFF if arguments.kernel is not None else EXIT)
    if text in (HANDOFF, EXIT):
        return Until(text)
    kind, _, wanted = text.partition(":")
    if kind == CONSOLE and wanted:
        return Until(CONSOLE, wanted)
    raise BootError(f"cannot read --until {text!r}: write handoff, exit or console:TEXT")


def has_interrupts(arguments: argparse.Namespace, until: str) -> bool:
    """Whether the board has interrupts in a run to `until`, a word of `reasons` or a mark: what goes on behind the handoff, or
    at the --console, is an operating system, which waits for them."""
    return bool(vars(arguments).get("console")) or (arguments.kernel is not None and until != HANDOFF)


def limits_from(arguments: argparse.Namespace) -> Limits:
    """--max-instructions, --max-exits, --timeout, of which --console needs none."""
    for name, value in (
        ("--timeout", arguments.timeout),
        ("--max-instructions", arguments.max_instructions),
        ("--max-exits", arguments.max_exits),
    ):
        if value is not None and not value > 0:
            raise BootError(f"{name} {value}: give a number above 0")
    seconds = arguments.timeout
    if seconds is None:
        seconds = float("inf") if vars(arguments).get("console") else TIMEOUT_SECONDS
    return Limits(arguments.max_instructions, arguments.max_exits, seconds)


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


def plan_on(
    arguments: argparse.Namespace, kernel: Kernel, firmware: bytes, engine: Engine, recording: "Recording | None"
) -> BootPlan:
    """The plan for a run on an engine: with what that reserves, without --no-dma's DMA, and with a recording's memory."""
    memory = None if recording is None else recording.memory
    return plan_from(arguments, kernel, firmware, host_reserved=engine.host_reserved, dma=not arguments.no_dma, memory=memory)


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
