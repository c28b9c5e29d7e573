"""What subcommands have in common: what one is, and the arguments that several take."""

import argparse
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from pvhboot.loader.modules import GUESTS, LINUX
from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.machines import FIRMWARES, MACHINES

from ..engines.names import ACCELERATORS, TCG, UNICORN

TIMEOUT_SECONDS: Final = 120.0  # of a run
FW_CFG_MACHINES: Final = tuple(name for name, spec in MACHINES.items() if spec.source == FW_CFG)  # QEMU's
_UNTIL = "handoff, exit (of the guest), or console:TEXT (COM1 has printed it); default: handoff, exit without KERNEL"


class Command(NamedTuple):
    """A subcommand: what adds its arguments, what it does, in a phrase, and in sentences (of more than that phrase)."""

    add: Callable[[argparse.ArgumentParser], None]
    does: str
    more: str = ""

    @property
    def description(self) -> str:
        """The sentences."""
        return self.more or f"{self.does[0].upper()}{self.does[1:]}."


def _machine_name(text: str) -> str:
    """A machine to boot on: of what is none, but has a firmware, it is said how to use that."""
    if text not in MACHINES and text in FIRMWARES:
        raise argparse.ArgumentTypeError(
            f"{text} is a firmware for several machines: build it, and boot --machine q35 --firmware FILE"
        )
    return text


def add_what_to_boot(parser: argparse.ArgumentParser, machines: Iterable[str] = MACHINES) -> None:
    """All that a plan is made of, but for the kernel and the ROM."""
    parser.add_argument("--initrd", metavar="FILE", help="the first module")
    parser.add_argument(
        "--module",
        metavar="FILE[,CMDLINE]",
        action="append",
        default=[],
        help="a further module, with its command line behind the first comma; can be repeated",
    )
    parser.add_argument("--append", metavar="CMDLINE", help="the kernel's command line")
    parser.add_argument(
        "--guest",
        choices=GUESTS,
        help=f"whose rules modules follow: high in RAM, or behind the kernel, each with a command line (default: {LINUX})",
    )
    parser.add_argument(
        "--base",
        metavar="ADDR",
        help="where to load a relocatable kernel, e.g. 0x2000000 or 32M (default: where it is linked, or else where it fits)",
    )
    parser.add_argument(
        "--reserve",
        metavar="SIZE@ADDR",
        action="append",
        default=[],
        help="RAM that the memory map calls reserved and nothing is put into, e.g. 16M@0x2000000; can be repeated",
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help=f"RAM, e.g. 96M or 5G; a plain number is MiB (default: {DEFAULT_MEMORY})"
    )
    parser.add_argument(
        "--machine",
        type=_machine_name if machines is MACHINES else str,
        choices=tuple(machines),
        default="bare",
        help="default: %(default)s",
    )
    add_no_cache(parser)


def add_no_cache(parser: argparse.ArgumentParser) -> None:
    """Of what opens kernels."""
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="neither use nor fill the cache of unpacked kernels: $XDG_CACHE_HOME/pvhboot/kernels, or "
        "~/.cache/pvhboot/kernels (docs/speed.md)",
    )


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """The kernel, which need not be given."""
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="a PVH kernel (default: the built-in conformance guest)")


def add_firmware(parser: argparse.ArgumentParser) -> None:
    """The ROM, and the host that it asks."""
    parser.add_argument("--no-dma", action="store_true", help="a fw_cfg without its DMA interface (QEMU's machines)")
    parser.add_argument("--firmware", metavar="FILE", help="a ROM image to run instead of pvhboot's own")


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """What is known of the ROM."""
    parser.add_argument("--manifest", metavar="FILE", help="what `build --manifest` wrote of that ROM: its labels and lines")


def add_run(
    parser: argparse.ArgumentParser, engines: Iterable[str], until: str | None = _UNTIL, *, several: bool = False
) -> None:
    """What to boot, on what (on `several` engines: a list, None without), and how far (`until` None: nobody is asked)."""
    add_kernel(parser)
    add_what_to_boot(parser)
    if several:
        parser.add_argument(
            "--engine",
            choices=tuple(engines),
            action="append",
            help=f"can be repeated: one after the other (default: {UNICORN})",
        )
    else:
        parser.add_argument("--engine", choices=tuple(engines), default=UNICORN, help="default: %(default)s")
    add_firmware(parser)
    add_manifest(parser)
    parser.add_argument(
        "--recording", metavar="FILE", help="what `pvhboot record` wrote: ACPI tables and PCI of another machine (unicorn, kvm)"
    )
    if until is not None:
        parser.add_argument("--until", metavar="WHERE", help=until)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help=f"default: {TIMEOUT_SECONDS:g}")
    parser.add_argument("--max-instructions", metavar="N", type=int, help="at most N guest instructions (unicorn)")
    parser.add_argument("--max-exits", metavar="N", type=int, help="at most N device accesses")


def add_qemu(parser: argparse.ArgumentParser) -> None:
    """Of the engine qemu."""
    parser.add_argument("--accel", choices=ACCELERATORS, help=f"of the engine qemu (default: {TCG})")
    parser.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="a further argument for QEMU, as in --qemu-arg=-smp; can be repeated",
    )
