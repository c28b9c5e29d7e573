"""What each subcommand takes that makes files, or tells of them."""

import argparse
from collections.abc import Mapping
from typing import Final

from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.machines import FIRMWARES

from .common import FW_CFG_MACHINES, Command, add_what_to_boot

_INITRD: Final = (
    "Makes an initramfs for Linux. A directory becomes a newc archive, owned by root, reproducible; the suffix of the output "
    "says how it is compressed: .gz, .bz2, .xz, .lzma, .lz4, .zst, or not at all: .cpio, .img, none. An existing archive, "
    "compressed or not, is checked and goes in as it is. Several follow one another in the order given; a later file replaces "
    "an earlier one."
)
_NOTE: Final = (
    "Writes a copy of an ELF kernel with one PHYS32_ENTRY note that every loader of PVH kernels reads alike. Nothing is moved: "
    "the notes go to the end of the file. Without --entry, an old note that some loader misreads is written anew."
)


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
    add_what_to_boot(parser, FIRMWARES)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", metavar="KERNEL", help="a PVH kernel")
    add_what_to_boot(parser)
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
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the recording to write")
    parser.add_argument("--machine", choices=FW_CFG_MACHINES, required=True)
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


FILES: Final[Mapping[str, Command]] = {
    "build": Command(_add_build, "write a firmware image"),
    "plan": Command(_add_plan, "show where a boot would put everything"),
    "inspect": Command(_add_inspect, "say what a file is, and what each loader makes of it"),
    "coverage": Command(_add_coverage, "say what of a firmware was executed, in boots with --coverage"),
    "record": Command(_add_record, "write down what a QEMU machine tells its firmware"),
    "guests": Command(_add_guests, "write the conformance guests"),
    "extract": Command(_add_extract, "take the ELF file out of a vmlinuz or a compressed kernel"),
    "note": Command(_add_note, "give a kernel a well-formed PHYS32_ENTRY note", _NOTE),
    "initrd": Command(_add_initrd, "make an initramfs from directories and archives", _INITRD),
}
