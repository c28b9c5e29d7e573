"""The command `pvhboot`: reads the arguments; what a subcommand does is in commands/, imported when it is called."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import NoReturn

from pvhboot.loader.modules import GUESTS, LINUX
from pvhboot.loader.printable import one_line
from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import FIRMWARES, MACHINES
from pvhboot.shim.stage import SLOTS
from pvhboot.shim.version import VERSION

from .session import ENGINES

BAD_INPUT = 2
_INITRD = (
    "Makes an initramfs for Linux. A directory becomes a newc archive, owned by root, reproducible; the suffix of the output "
    "says how it is compressed: .gz, .bz2, .xz, .lzma, .lz4, .zst, or not at all: .cpio, .img, none. An existing archive, "
    "compressed or not, is checked and goes in as it is. Several follow one another in the order given; a later file replaces "
    "an earlier one."
)
_NOTE = (
    "Writes a copy of an ELF kernel with one PHYS32_ENTRY note that every loader of PVH kernels reads alike. Nothing is moved: "
    "the notes go to the end of the file. Without --entry, an old note that some loader misreads is written anew."
)
_NO_DMA = "a fw_cfg without its DMA interface (QEMU's machines)"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; its exit status, 2 for bad input (one line on standard error)."""
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):  # a guest prints what it likes, whatever this terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = import_module(f".commands.{arguments.command}", __package__).run
    try:
        status = command(arguments)
        sys.stdout.flush()
    except BootError as error:
        _complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        _complain("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has gone: say nothing, also not when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _complain(f"cannot write the output: {error.strerror}")
        return BAD_INPUT
    return status


def _complain(message: str) -> None:
    """One line on standard error, whatever is in a path or an argument that the message repeats."""
    print(f"pvhboot: {one_line(message)}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see {self.prog} --help")
        self.exit(BAD_INPUT)


def _machine_name(text: str) -> str:
    """A machine to boot on: of what is none, but has a firmware, it is said how to use that."""
    if text not in MACHINES and text in FIRMWARES:
        raise argparse.ArgumentTypeError(
            f"{text} is a firmware for several machines: build it, and boot --machine q35 --firmware FILE"
        )
    return text


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pvhboot", description="Makes the firmware between reset vector and PVH kernel, and proves the handoff."
    )
    parser.add_argument("--version", action="version", version=f"pvhboot {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, does: str, description: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, help=does, description=description or f"{does[0].upper()}{does[1:]}.")

    _add_boot(command("boot", "boot a kernel and check its handoff"))
    _add_compare(command("compare", "boot on several engines and say whether they agree"))
    _add_build(command("build", "write a firmware image"))
    _add_plan(command("plan", "show where a boot would put everything"))
    _add_inspect(command("inspect", "say what a file is, and what each loader makes of it"))
    _add_record(command("record", "write down what a QEMU machine tells its firmware"))
    _add_guests(command("guests", "write the conformance guests"))
    _add_extract(command("extract", "take the ELF file out of a vmlinuz or a compressed kernel"))
    _add_note(command("note", "give a kernel a well-formed PHYS32_ENTRY note", description=_NOTE))
    _add_initrd(command("initrd", "make an initramfs from directories and archives", description=_INITRD))
    return parser


def _add_what_to_boot(parser: argparse.ArgumentParser, machines: Iterable[str] = MACHINES) -> None:
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


def _add_boot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="a PVH kernel (default: the built-in conformance guest)")
    _add_what_to_boot(parser)
    parser.add_argument("--engine", choices=ENGINES, default="unicorn", help="default: %(default)s")
    parser.add_argument("--accel", choices=("tcg", "kvm"), help="of the engine qemu (default: tcg)")
    parser.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="a further argument for QEMU, as in --qemu-arg=-smp; can be repeated",
    )
    parser.add_argument("--no-dma", action="store_true", help=_NO_DMA)
    parser.add_argument("--firmware", metavar="FILE", help="a ROM image to run instead of pvhboot's own")
    parser.add_argument(
        "--recording", metavar="FILE", help="what `pvhboot record` wrote: ACPI tables and PCI of another machine (unicorn, kvm)"
    )
    parser.add_argument(
        "--until",
        metavar="WHERE",
        help="handoff, exit (of the guest), or console:TEXT (COM1 has printed it); default: handoff, exit without KERNEL",
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=120.0, help="default: %(default)s")
    parser.add_argument("--max-instructions", metavar="N", type=int, help="at most N guest instructions (unicorn)")
    parser.add_argument("--max-exits", metavar="N", type=int, help="at most N device accesses")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the clauses that are met, too")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="a PVH kernel (default: the built-in conformance guest)")
    _add_what_to_boot(parser)
    parser.add_argument(
        "--engine", choices=ENGINES, action="append", help="one to compare; repeat it (default: all that this host has)"
    )
    parser.add_argument("--no-dma", action="store_true", help=_NO_DMA)
    parser.add_argument("--firmware", metavar="FILE", help="a ROM image to run instead of pvhboot's own")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=120.0, help="for each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the ROM image to write")
    parser.add_argument("--size", metavar="SIZE", default="64K", help="of the ROM, a multiple of 64K (default: %(default)s)")
    parser.add_argument(
        "--verbose", action="store_true", help="tell each phase on the POST port and the debug console; each byte costs an exit"
    )
    parser.add_argument(
        "--marks", action="store_true", help="mark start and handoff on ports 0xf5 and 0xf4, for scripts that measure it"
    )
    parser.add_argument(
        "--stage", metavar="SLOT=FILE", action="append", default=[], help=f"insert assembly at a slot: {', '.join(SLOTS)}"
    )
    parser.add_argument("--elf", metavar="FILE", help="also write an ELF file with symbols, for gdb")
    parser.add_argument("--listing", metavar="FILE", help="also write a listing: address, bytes, source line")
    parser.add_argument("--manifest", metavar="FILE", help="also write a JSON manifest")
    parser.add_argument("--kernel", metavar="KERNEL", help="bake a boot of this kernel into the ROM's parameter block")
    _add_what_to_boot(parser, FIRMWARES)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="a PVH kernel")
    _add_what_to_boot(parser)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="any file: a kernel, plain, compressed or in a vmlinuz, or none")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_record(parser: argparse.ArgumentParser) -> None:
    machines = [name for name, spec in MACHINES.items() if spec.source == FW_CFG]
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the recording to write")
    parser.add_argument("--machine", choices=machines, required=True)
    parser.add_argument("--smp", metavar="N", type=int, default=1, help="CPUs (default: %(default)s)")
    parser.add_argument("--memory", metavar="SIZE", default=DEFAULT_MEMORY, help="RAM (default: %(default)s)")
    parser.add_argument(
        "--qemu-arg", metavar="ARG", action="append", default=[], help="a further argument for QEMU; can be repeated"
    )


def _add_guests(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="*", metavar="NAME", help="a guest (default: all)")
    parser.add_argument("-o", "--output", metavar="DIR", help="where to write them and guests.json; made if it is missing")
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON instead of the list")


def _add_extract(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="a bzImage, or a kernel that is compressed")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the ELF file to write, as in vmlinux")


def _add_note(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="an ELF file, not compressed")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the kernel to write")
    parser.add_argument(
        "--entry",
        metavar="ADDR|SYMBOL",
        help="where the kernel takes over, in 32-bit mode without paging: a physical address (0x100000, 1M) or a symbol",
    )


def _add_initrd(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="+", help="a directory, or an archive that Linux would unpack")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the initramfs to write, as in initrd.cpio.zst")
    parser.add_argument(
        "--device",
        metavar="PATH=c:MAJOR:MINOR[:MODE]",
        action="append",
        default=[],
        help="a device node (b: a block device; MODE is octal, 0600 without), in the last directory's archive; can be repeated",
    )
