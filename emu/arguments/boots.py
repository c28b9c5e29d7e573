"""What each subcommand takes that boots, or looks at what boots told."""

import argparse
from collections.abc import Mapping
from typing import Final

from pvhboot.loader.sizes import DEFAULT_MEMORY

from ..engines.names import ACCELERATORS, BOTH, ENGINES, KVM, UNICORN
from .common import (
    FW_CFG_MACHINES,
    TIMEOUT_SECONDS,
    Command,
    add_firmware,
    add_kernel,
    add_manifest,
    add_no_cache,
    add_qemu,
    add_run,
    add_what_to_boot,
)

_GDB_PORT: Final = 1234  # as QEMU's -s has it
_TEST_SECONDS: Final = 60.0
_VARY: Final = (
    "Boots under Unicorn, then again and again with one thing changed: an answer of the host (--faults), or an instruction of "
    "the firmware (--mutants). Says what each led to, and lists what nobody noticed."
)
_BENCH: Final = (
    "Boots a kernel under QEMU with pvhboot's firmware, qboot and SeaBIOS, as vmlinux and as bzImage, and on pvhboot's own "
    "VMM, each in turn and again, and says when each came where: medians, and what repeats exactly."
)
_TRACE: Final = (
    "Boots, and tells every instruction with its source line, the registers that it changed, the memory and the devices that "
    "it touched: as text, or as JSON Lines for `diff` and for scripts."
)


def _port(text: str) -> int:
    """A TCP port."""
    if not text.isdecimal() or int(text) >= 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is no port: write 0 to 65535, and KERNEL before --gdb")
    return int(text)


def _measured(text: str) -> str:
    """What a bench measures."""
    if text != "timeline":
        raise argparse.ArgumentTypeError(f"{text!r} cannot be measured: write pvhboot bench timeline KERNEL")
    return text


def _add_boot(parser: argparse.ArgumentParser) -> None:
    add_run(parser, ENGINES)
    add_qemu(parser)
    parser.add_argument(
        "--gdb",
        metavar="PORT",
        nargs="?",
        const=_GDB_PORT,
        type=_port,
        help=f"wait for gdb at a port of 127.0.0.1 (default: {_GDB_PORT}; 0: any), which then drives the CPU (unicorn, kvm)",
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
    add_run(
        parser,
        ENGINES,
        "handoff, kernel-64bit, start_kernel, console (the first byte on COM1), console:TEXT, init, exit (of the guest), or "
        "what a marker port tells, as linux_start_user; default: the last one that can be seen",
        several=True,
    )
    parser.add_argument(
        "--place",
        metavar="MARK=ADDR",
        action="append",
        default=[],
        help="where start_kernel, kernel-64bit or protected-mode is, by its linear address: it is not searched for then (the "
        "last by a dry run of the firmware, which counts instructions, too); can be repeated",
    )
    add_qemu(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="timeline", type=_measured, help="when each boot comes where")
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
    parser.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        default=[],
        help='only the rows with this text in their names, as in --only qboot --only "pvhboot + vmlinux"; can be repeated',
    )
    parser.add_argument("--runs", metavar="N", type=int, default=5, help="of each row, in turn (default: %(default)s)")
    parser.add_argument("--accel", choices=(*ACCELERATORS, BOTH), default=BOTH, help="default: %(default)s")
    parser.add_argument(
        "--machine",
        choices=FW_CFG_MACHINES,
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
    add_no_cache(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="also draw it, as SVG")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    from ..effects import EFFECTS

    add_run(parser, (UNICORN, KVM))
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
    from ..effects import EFFECTS

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
    add_kernel(parser)
    add_what_to_boot(parser)
    parser.add_argument(
        "--engine", choices=ENGINES, action="append", help="one to compare; repeat it (default: all that this host has)"
    )
    add_firmware(parser)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=TIMEOUT_SECONDS, help="for each (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def _add_vary(parser: argparse.ArgumentParser) -> None:
    add_kernel(parser)
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
    add_what_to_boot(parser)
    parser.add_argument("--dirty", action="store_true", help="RAM below 640 KiB holds anything after power on, not zeros")
    add_firmware(parser)
    add_manifest(parser)
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


BOOTS: Final[Mapping[str, Command]] = {
    "boot": Command(_add_boot, "boot a kernel and check its handoff"),
    "compare": Command(_add_compare, "boot on several engines and say whether they agree"),
    "timeline": Command(_add_timeline, "boot, and say when it came where"),
    "bench": Command(_add_bench, "measure boots of several firmwares and kernels in turn", _BENCH),
    "trace": Command(_add_trace, "boot, and tell every instruction with what it did", _TRACE),
    "diff": Command(_add_diff, "compare two traces to the first difference"),
    "vary": Command(_add_vary, "boot again and again with one thing changed, and say who notices", _VARY),
}
