"""What each subcommand takes that shows a boot to somebody who learns."""

import argparse
from collections.abc import Mapping
from typing import Final

from ..engines.names import KVM, UNICORN
from .common import Command, add_run

_EXPLAIN: Final = (
    "Boots up to the kernel's first instructions, and tells it as a story in chapters: the source lines that ran, what they "
    "changed, why, and where the specification says so. At most 200000 instructions are told, unless --max-instructions says "
    "otherwise."
)
_REPORT: Final = (
    "Boots, and writes it as one HTML file that needs nothing else: each step with its source line, registers, descriptors, "
    "memory and devices, and at the top what the check says."
)
_LAB: Final = (
    "Firmwares that are broken, each by one classic mistake, to be found and mended: `lab list`, `lab new 3 DIR`, edit the "
    "source in DIR, `lab check DIR`."
)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    add_run(parser, (UNICORN, KVM), None)
    parser.add_argument(
        "--chapter",
        metavar="NAME",
        action="append",
        default=[],
        help="only this chapter, by its name or number; can be repeated",
    )
    parser.add_argument("--list", action="store_true", help="only list the chapters")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="default: on a terminal, unless NO_COLOR is set"
    )
    parser.add_argument("--json", action="store_true", help="print the chapters as JSON")


def _add_report(parser: argparse.ArgumentParser) -> None:
    add_run(parser, (UNICORN, KVM))
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the page to write, as in boot.html")


def _add_lab(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    listed = steps.add_parser("list", help="list the exercises")
    listed.add_argument("--json", action="store_true", help="print them as JSON")
    new = steps.add_parser("new", help="write the sources of a broken firmware")
    new.add_argument("exercise", metavar="EXERCISE", help="its number or its name")
    new.add_argument("directory", metavar="DIR", help="where to write them; made if it is missing")
    check = steps.add_parser("check", help="build and boot what is in a directory, and say the first thing that is wrong")
    check.add_argument("directory", metavar="DIR", help="what `lab new` wrote")
    check.add_argument("--engine", choices=(UNICORN, KVM), default=UNICORN, help="default: %(default)s")
    check.add_argument("--json", action="store_true", help="print it as JSON")
    hint = steps.add_parser("hint", help="say a little more each time")
    hint.add_argument("directory", metavar="DIR", help="what `lab new` wrote")
    solve = steps.add_parser("solve", help="say what is wrong, why, and how to mend it")
    solve.add_argument("directory", metavar="DIR", help="what `lab new` wrote")
    solve.add_argument("--apply", action="store_true", help="also mend the source in DIR")


LESSONS: Final[Mapping[str, Command]] = {
    "explain": Command(_add_explain, "tell a boot as a story, chapter by chapter", _EXPLAIN),
    "report": Command(_add_report, "write a boot as a page to be stepped through", _REPORT),
    "lab": Command(_add_lab, "give exercises: firmwares that are broken, to be mended", _LAB),
}
