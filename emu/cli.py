"""The command `pvhboot`: reads the arguments; what a subcommand does is in commands/, imported when it is called."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from pvhboot.shim.errors import BootError

from .arguments import BAD_INPUT, parse
from .complaint import complain


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; its exit status, 2 for bad input (one line on standard error)."""
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):  # a guest prints what it likes, whatever this terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parse(argv)
    command: Callable[[argparse.Namespace], int] = import_module(f".commands.{arguments.command}", __package__).run
    try:
        status = command(arguments)
        sys.stdout.flush()
    except BootError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader has gone: say nothing, also not when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complain(f"cannot write the output: {error.strerror}")
        return BAD_INPUT
    return status
