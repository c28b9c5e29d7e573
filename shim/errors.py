"""The one exception family for bad input, in the lowest room so that every room can raise it."""


class BootError(Exception):
    """Bad input or a missing part of the host: says what, where, and what would be right.

    The command line prints it as one line and exits with status 2.
    """


class UnavailableError(BootError):
    """This host lacks what an engine needs, or the engine cannot do what the plan wants: another engine would do."""


class NoMemoryError(BootError):
    """A physical address where the machine has no memory."""


class AssemblyError(BootError):
    """A line of assembly that is wrong; the message starts with its file and line."""
