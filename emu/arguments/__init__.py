"""The arguments of the command `pvhboot`: here what parses them, and what each subcommand takes beside it."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NoReturn

from pvhboot.shim.version import VERSION

from ..complaint import complain
from .boots import BOOTS
from .common import Command

BAD_INPUT: Final = 2
_PROG: Final = "pvhboot"
_CHECKED_WIDTH: Final = 80  # columns in which no help is shown, only arguments are found well-formed


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
    if words and (known := _known(words[0])) is not None:
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


def _known(name: str) -> Command | None:
    """The subcommand of that name."""
    if (command := BOOTS.get(name)) is not None:
        return command
    from .files import FILES
    from .lessons import LESSONS

    return FILES.get(name) or LESSONS.get(name)


def _whole_parser() -> argparse.ArgumentParser:
    """With all subcommands: for help, and for what does not begin with one. To build them all takes as long as a boot."""
    from .files import FILES
    from .lessons import LESSONS

    parser = _Parser(prog=_PROG, description="Makes the firmware between reset vector and PVH kernel, and proves the handoff.")
    parser.add_argument("--version", action="version", version=f"{_PROG} {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in {**BOOTS, **FILES, **LESSONS}.items():
        command.add(commands.add_parser(name, help=command.does, description=command.description))
    return parser
