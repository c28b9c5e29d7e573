"""The arguments of the command `pvhboot`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from pvhboot.loader.modules import GUESTS, LINUX
from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.machines import FIRMWARES, MACHINES
from pvhboot.shim.version import VERSION

from .complaint import complain
from .engines.names import ENGINES, KVM, UNICORN

BAD_INPUT: Final = 2
_PROG: Final = "pvhboot"
_CHECKED_WIDTH: Final = 80  # columns in which no help is shown, only arguments are found well-formed
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
_BENCH: Final = (
    "Boots a kernel under QEMU with pvhboot's firmware, qboot and SeaBIOS, as vmlinux and as bzImage, and on pvhboot's own "
    "VMM, each in turn and again, and says when each came where: medians, and what repeats exactly."
)
TIMEOUT_SECONDS: Final = 120.0  # of a run
GDB_PORT = 1234  # as QEMU's -s has it
_TEST_SECONDS = 60.0
_TRACE = (
    "Boots, and tells every instruction with its source line, the registers that it changed, the memory and the devices that "
    "it touched: as text, or as JSON Lines for `diff` and for scripts."
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does. Asks how wide the terminal is only for help: argparse does
    with every argument, and imports all of shutil for it."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how, formatter_class=partial(argparse.HelpFormatter, width=_CHECKED_WIDTH))

    def format_help(self) -> str:
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        self.exit(BAD_INPUT)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """As parse_args, but for what is too much it names the help of the subcommand, not the command's."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and (known := _commands().get(words[0])) is not None:
        parser: argparse.ArgumentParser = _Parser(prog=f"{_PROG} {words[0]}", description=known.description)
        known.add(parser)
        parser.set_defaults(command=words.pop(0))
    else:
        parser = _whole_parser()
    arguments, rest = parser.parse_known_args(words)
    if rest:
        complain(f"unrecognized arguments: {' '.join(rest)}; see {_PROG} {arguments.command} --help")
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


class _Command(NamedTuple):
    """A subcommand: what adds its arguments, what it does, in a phrase, and in sentences (of more than that phrase)."""

    add: Callable[[argparse.ArgumentParser], None]
    does: str
    more: str = ""

    @property
    def description(self) -> str:
        return self.more or f"{self.does[0].upper()}{self.does[1:]}."


def _commands() -> dict[str, _Command]:
    return {
        "boot": _Command(_add_boot, "boot a kernel and check its handoff"),
        "compare": _Command(_add_compare, "boot on several engines and say whether they agree"),
        "timeline": _Command(_add_timeline, "boot, and say when it came where"),
        "bench": _Command(_add_bench, "measure boots of several firmwares and kernels in turn", _BENCH),
        "trace": _Command(_add_trace, "boot, and tell every instruction with what it did", _TRACE),
        "diff": _Command(_add_diff, "compare two traces to the first difference"),
        "vary": _Command(_add_vary, "boot again and again with one thing changed, and say who notices", _VARY),
        "build": _Command(_add_build, "write a firmware image"),
        "plan": _Command(_add_plan, "show where a boot would put everything"),
        "inspect": _Command(_add_inspect, "say what a file is, and what each loader makes of it"),
        "coverage": _Command(_add_coverage, "say what of a firmware was executed, in boots with --coverage"),
        "record": _Command(_add_record, "write down what a QEMU machine tells its firmware"),
        "guests": _Command(_add_guests, "write the conformance guests"),
        "extract": _Command(_add_extract, "take the ELF file out of a vmlinuz or a compressed kernel"),
        "note": _Command(_add_note, "give a kernel a well-formed PHYS32_ENTRY note", _NOTE),
        "initrd": _Command(_add_initrd, "make an initramfs from directories and archives", _INITRD),
    }


def _whole_parser() -> argparse.ArgumentParser:
    """With all subcommands: for help, and for what does not begin with one. To build them all takes as long as a boot."""
    parser = _Parser(prog=_PROG, description="Makes the firmware between reset vector and PVH kernel, and proves the handoff.")
    parser.add_argument("--version", action="version", version=f"{_PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _commands().items():
        command.add(commands.add_parser(name, help=command.does, description=command.description))
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
    parser.add_argument(
        "--no-cache", action="store_true", help="neither use nor fill the cache of unpacked kernels (docs/speed.md)"
    )


def _add_kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="a PVH kernel (default: the built-in conformance guest)")


def _add_firmware(parser: argparse.ArgumentParser) -> None:
    """The ROM, and the host that it asks."""
    parser.add_argument("--no-dma", action="store_true", help="a fw_cfg without its DMA interface (QEMU's machines)")
    parser.add_argument("--firmware", metavar="FILE", help="a ROM image to run instead of pvhboot's own")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--manifest", metavar="FILE", help="what `build --manifest` wrote of that ROM: its labels and lines")


_UNTIL = "handoff, exit (of the guest), or console:TEXT (COM1 has printed it); default: handoff, exit without KERNEL"


def _add_run(parser: argparse.ArgumentParser, engines: Iterable[str], until: str = _UNTIL) -> None:
    """What to boot, on what, and how far."""
    _add_kernel(parser)
    _add_what_to_boot(parser)
    parser.add_argument("--engine", choices=tuple(engines), default=UNICORN, help="default: %(default)s")
    _add_firmware(parser)
    _add_manifest(parser)
    parser.add_argument(
        "--recording", metavar="FILE", help="what `pvhboot record` wrote: ACPI tables and PCI of another machine (unicorn, kvm)"
    )
    parser.add_argument("--until", metavar="WHERE", help=until)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help=f"default: {TIMEOUT_SECONDS:g}")
    parser.add_argument("--max-instructions", metavar="N", type=int, help="at most N guest instructions (unicorn)")
    parser.add_argument("--max-exits", metavar="N", type=int, help="at most N device accesses")


def _add_qemu(parser: argparse.ArgumentParser) -> None:
    """Of the engine qemu."""
    parser.add_argument("--accel", choices=("tcg", "kvm"), help="of the engine qemu (default: tcg)")
    parser.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="a further argument for QEMU, as in --qemu-arg=-smp; can be repeated",
    )


def _add_boot(parser: argparse.ArgumentParser) -> None:
    _add_run(parser, ENGINES)
    _add_qemu(parser)
    parser.add_argument(
        "--gdb",
        metavar="PORT",
        nargs="?",
        const=GDB_PORT,
        type=_port,
        help=f"wait for gdb at a port of 127.0.0.1 (default: {GDB_PORT}; 0: any), which then drives the CPU (unicorn, kvm)",
    )
    parser.add_argument(
        "--console",
        action="store_true",
        help="this terminal is COM1: keys go to the guest, Ctrl-A X leaves; no --timeout unless it is given (unicorn, kvm)",
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
    parser.add_argument("--stats", action="store_true", help="tell what it took: the time of each phase, and what was counted")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the clauses that are met, too")


def _add_timeline(parser: argparse.ArgumentParser) -> None:
    _add_run(
        parser,
        ENGINES,
        "handoff, kernel-64bit, start_kernel, console (the first byte on COM1), console:TEXT, init, exit (of the guest), or "
        "what a marker port tells, as linux_start_user; default: the last one that can be seen",
    )
    parser.add_argument(
        "--place",
        metavar="MARK=ADDR",
        action="append",
        default=[],
        help="where start_kernel, kernel-64bit or protected-mode is, by its linear address: it is not searched for then (the "
        "last by a dry run of the firmware, which counts instructions, too); can be repeated",
    )
    _add_qemu(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="timeline", choices=("timeline",), help="when each boot comes where")
    parser.add_argument("kernel", metavar="KERNEL", help="a PVH kernel; of a bzImage (vmlinuz) both roads are measured")
    parser.add_argument("--vmlinux", metavar="FILE", help="the kernel that is in the bzImage (default: it is unpacked)")
    parser.add_argument("--initrd", metavar="FILE", help="for all of them")
    parser.add_argument(
        "--append",
        metavar="CMDLINE",
        help="the kernel's command line, to which nokaslr is added (default: console=ttyS0 earlyprintk=ttyS0)",
    )
    parser.add_argument(
        "--until",
        metavar="MARK",
        help="as of `timeline` (default: console:Linux version, if the command line has a console on COM1)",
    )
    parser.add_argument("--runs", metavar="N", type=int, default=5, help="of each row, in turn (default: %(default)s)")
    parser.add_argument("--accel", choices=("tcg", "kvm", "both"), default="both", help="default: %(default)s")
    parser.add_argument(
        "--machine",
        choices=[name for name, spec in MACHINES.items() if spec.source == FW_CFG],
        default="q35",
        help="of QEMU's (default: %(default)s)",
    )
    parser.add_argument("--memory", metavar="SIZE", help=f"RAM (default: {DEFAULT_MEMORY})")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help="of each boot (default: %(default)s)")
    parser.add_argument("--qboot", metavar="FILE", help="qboot's ROM (default: QEMU's qboot.rom)")
    parser.add_argument("--seabios", metavar="FILE", help="SeaBIOS's ROM (default: the one that QEMU has for the machine)")
    parser.add_argument(
        "--qemu-arg",
        metavar="ARG",
        action="append",
        default=[],
        help="a further argument for each QEMU, as in --qemu-arg=-cpu --qemu-arg=host; can be repeated",
    )
    parser.add_argument("--no-cache", action="store_true", help="neither use nor fill the cache of unpacked kernels")
    parser.add_argument("-o", "--output", metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    from .effects import EFFECTS

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
    from .effects import EFFECTS

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
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=TIMEOUT_SECONDS, help="for each (default: %(default)s)"
    )
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
    from pvhboot.shim.stage import SLOTS

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
