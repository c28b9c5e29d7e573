"""The command `pvhboot`: reads the arguments; what a subcommand does is in commands/, imported when it is called."""

import errno
import gc
import io
import os
import sys
from collections.abc import Sequence

# New containers between two looks for garbage: what is imported is none, and a cold boot would spend a tenth of its time so.
_GC_THRESHOLD = 50_000


def command() -> int:
    """The console script: `main` in a process that does nothing else, whose garbage the end of it collects."""
    gc.set_threshold(_GC_THRESHOLD)
    try:
        return main()
    finally:
        gc.freeze()  # else the interpreter looks through everything once more before it ends


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; its exit status, 2 for bad input (one line on standard error)."""
    from signal import SIGINT, SIGPIPE

    from pvhboot.shim.errors import BootError

    from .arguments import BAD_INPUT, parse
    from .complaint import complain

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):  # a guest prints what it likes, whatever this terminal can show
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = parse(argv)
    # Not by importlib, which is a module to import.
    module = __import__(f"commands.{arguments.command}", globals(), level=1, fromlist=("run",))
    try:
        status: int = module.run(arguments)
        sys.stdout.flush()
    except BootError as error:
        complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + SIGINT
    except BrokenPipeError:
        # The reader has gone: say nothing, also not when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):  # EIO: a terminal that has gone
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        complain(f"cannot write the output: {error.strerror}")
        return BAD_INPUT
    return status
