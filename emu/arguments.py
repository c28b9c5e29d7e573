"""The arguments of the command `pvhboot`."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from pvhboot.loader.modules import GUESTS, LINUX
from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.machines import FIRMWARES, MACHINES
from pvhboot.shim.stage import SLOTS
from pvhboot.shim.version import VERSION

from .complaint import complain
from .effects import EFFECTS
from .engines.names import ENGINES, KVM, UNICORN

BAD_INPUT: Final = 2
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
_VARY = (
    "Boots under Unicorn, then again and again with one thing changed: an answer of the host (--faults), or an instruction of "
    "the firmware (--mutants). Says what each led to, and lists what nobody noticed."
)
GDB_PORT = 1234  # as QEMU's -s has it
_TEST_SECONDS = 60.0
_TRACE = (
    "Boots, and tells every instruction with its source line, the registers that it changed, the memory and the devices that "
    "it touched: as text, or as JSON Lines for `diff` and for scripts."
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        self.exit(BAD_INPUT)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As parse_args, but for what is too much it names the help of the subcommand, not the command's."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        complain(f"unrecognized arguments: {' '.join(rest)}; see {parser.prog} {arguments.command} --help")
        parser.exit(BAD_INPUT)
    return arguments


def _machine_name(text: str) -> str:
    """A machine to boot on: of what is none, but has a firmware, it is said how to use that."""
    if text not in MACHINES and text in FIRMWARES:
        raise argparse.ArgumentTypeError(
            f"{text} is a firmware for several machines: build it, and boot --machine q35 --firmware FILE"
        )
    return text


def _port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port: write 0 to 65535, and KERNEL before --gdb")
    return int(text)


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
    _add_trace(command("trace", "boot, and tell every instruction with what it did", description=_TRACE))
    _add_diff(command("diff", "compare two traces to the first difference"))
    _add_vary(command("vary", "boot again and again with one thing changed, and say who notices", description=_VARY))
    _add_build(command("build", "write a firmware image"))
    _add_plan(command("plan", "show where a boot would put everything"))
    _add_inspect(command("inspect", "say what a file is, and what each loader makes of it"))
    _add_coverage(command("coverage", "say what of a firmware was executed, in boots with --coverage"))
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


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="a PVH kernel (default: the built-in conformance guest)")


def _add_firmware(parser: argparse.ArgumentParser) -> None:
    """The ROM, and the host that it asks."""
    parser.add_argument("--no-dma", action="store_true", help="a fw_cfg without its DMA interface (QEMU's machines)")
    parser.add_argument("--firmware", metavar="FILE", help="a ROM image to run instead of pvhboot's own")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", metavar="FILE", help="what `build --manifest` wrote of that ROM: its labels and lines")


def _add_run(parser: argparse.ArgumentParser, engines: Iterable[str]) -> None:
    """What to boot, on what, and how far."""
    _add_kernel(parser)
    _add_what_to_boot(parser)
    parser.add_argument("--engine", choices=tuple(engines), default=UNICORN, help="default: %(default)s")
    _add_firmware(parser)
    _add_manifest(parser)
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


def _add_boot(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, ENGINES)
    parser.add_argument("--accel", choices=("tcg", "kvm"), help="of the engine qemu (default: tcg)")
    parser.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="a further argument for QEMU, as in --qemu-arg=-smp; can be repeated",
    )
    parser.add_argument(
        "--gdb",
        metavar="PORT",
        nargs="?",
        const=GDB_PORT,
        type=_port,
        help=f"wait for gdb at a port of 127.0.0.1 (default: {GDB_PORT}; 0: any), which then drives the CPU (unicorn, kvm)",
    )
    parser.add_argument(
        "--record-io", metavar="FILE", help="write each access to a device up to the handoff, and what it did, as a transcript"
    )
    parser.add_argument(
        "--replay-io", metavar="FILE", help="have a transcript answer the firmware, in place of devices (unicorn, kvm)"
    )
    parser.add_argument(
        "--replay-order",
        choices=("strict", "tolerant"),
        help="strict: each access is the transcript's next (the default); tolerant: as each device has it, and known answers "
        "again",
    )
    parser.add_argument("--coverage", metavar="FILE", help="add what of the firmware is executed to a file for `coverage`")
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="tell of each load, store and jump of the firmware that is wrong, and of what devices do for it (unicorn)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the clauses that are met, too")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, (UNICORN, KVM))
    parser.add_argument("-o", "--output", metavar="FILE", help="write the trace to a file, as JSON Lines")
    parser.add_argument("--text", action="store_true", help="with --output: as text")
    parser.add_argument("--json", action="store_true", help="without --output: print JSON Lines, not text")
    place = "a label, a kernel's symbol or a linear address, as 0xfffffff0"
    parser.add_argument("--from", dest="begin", metavar="PLACE", help=f"begin at the first instruction there: {place}")
    parser.add_argument("--to", dest="end", metavar="PLACE", help="end trace and run in front of the instruction there")
    parser.add_argument("--limit", metavar="N", type=int, help="end trace and run after N instructions have been told")
    parser.add_argument(
        "--only", choices=EFFECTS, action="append", default=[], help="tell what does this; can be repeated, as the next three"
    )
    parser.add_argument("--mode", type=int, choices=(16, 32, 64), action="append", default=[], help="tell code of this mode")
    parser.add_argument("--symbol", metavar="NAME", action="append", default=[], help="tell what lies behind this label")
    parser.add_argument(
        "--changes", metavar="REGISTER", action="append", default=[], help="tell what changes this one, as eax, cr0, cs_base"
    )


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="FIRST", help="what `trace -o` wrote")
    parser.add_argument("second", metavar="SECOND", help="another")
    parser.add_argument(
        "--only",
        choices=EFFECTS,
        action="append",
        default=[],
        help="compare these accesses in their order, whatever instructions make them; can be repeated",
    )
    parser.add_argument(
        "--ignore", metavar="REGISTER", action="append", default=[], help="do not compare this register; can be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    _add_kernel(parser)
    _add_what_to_boot(parser)
    parser.add_argument(
        "--engine", choices=ENGINES, action="append", help="one to compare; repeat it (default: all that this host has)"
    )
    _add_firmware(parser)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=120.0, help="for each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def _add_vary(parser: argparse.ArgumentParser) -> None:
    _add_kernel(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--faults", action="store_true", help="change what the host does")
    what.add_argument("--mutants", action="store_true", help="change the instructions of the firmware that the boot executes")
    parser.add_argument(
        "--only",
        metavar="KIND[,KIND]",
        action="append",
        default=[],
        help="of faults: dma, read, write, item, and, if named, ram, register; of mutants: drop, invert, always, constant, "
        "displacement, register; can be repeated",
    )
    _add_what_to_boot(parser)
    parser.add_argument("--dirty", action="store_true", help="RAM below 640 KiB holds anything after power on, not zeros")
    _add_firmware(parser)
    _add_manifest(parser)
    parser.add_argument("--recording", metavar="FILE", help="what `pvhboot record` wrote of another machine")
    parser.add_argument(
        "--test",
        metavar="COMMAND",
        help="of mutants: let this command judge, by its exit status; it finds the ROM's path in PVHBOOT_FIRMWARE",
    )
    parser.add_argument(
        "--test-timeout", metavar="SECONDS", type=float, help=f"for each (default: {_TEST_SECONDS:g}); over it is failed"
    )
    parser.add_argument("--sample", metavar="N", type=int, help="try N of them, chosen by chance")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of that chance (default: %(default)s)")
    parser.add_argument("--jobs", metavar="N", type=int, help="processes (default: as many as there are CPUs)")
    parser.add_argument("--json", action="store_true", help="print every change and what it led to as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="list what was noticed, too")
    parser.set_defaults(engine=UNICORN, usual_test_timeout=_TEST_SECONDS)


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
    parser.add_argument("--elf", metavar="FILE", help="also write an ELF file with symbols and source lines, for gdb")
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


def _add_coverage(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="+", help="what `boot --coverage` or `pytest --pvh-cov` wrote; summed")
    parser.add_argument("--missing", action="store_true", help="list what is not covered, with its source")
    parser.add_argument("--lcov", metavar="FILE", help="also write an lcov tracefile; beside it, ROMs without source as text")
    parser.add_argument(
        "--source-root",
        metavar="DIR",
        action="append",
        default=[],
        help="where source files are, for --lcov; can be repeated (default: the firmware's own, where they are installed)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="also write the sum")
    parser.add_argument("--fail-under", metavar="PERCENT", type=float, help="exit with 1 if less is covered")
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
