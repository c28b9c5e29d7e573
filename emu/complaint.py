"""What a command says on standard error."""

import sys

from pvhboot.loader.printable import one_line


def complain(message: str) -> None:
    """One line, whatever is in a path or an argument that the message repeats."""
    print(f"pvhboot: {one_line(message)}", file=sys.stderr)
