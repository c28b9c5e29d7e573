"""COM1, the console of a guest that a run shows: what has it printed to, and what it says in the end."""

from typing import Final

from pvhboot.loader.printable import one_line

_LINE_SHOWN: Final = 100  # characters

# Words of Linux's command line that have it print on COM1 (Documentation/admin-guide/kernel-parameters.txt).
_ON_COM1: Final = ("console=ttyS0", "console=uart", "earlycon=uart", "earlyprintk=serial", "earlyprintk=ttyS0")


def prints_on_com1(cmdline: bytes | None) -> bool:
    """Whether a word of a Linux's command line (None: there is none) has it print on COM1."""
    return any(word.startswith(_ON_COM1) for word in (cmdline or b"").decode(errors="replace").split())


def last_line(printed: bytes) -> str:
    """The last line of what COM1 has printed that is not blank, fit for a line of text; empty if there is none."""
    lines = printed.rstrip().splitlines()
    return shown_line(lines[-1]) if lines else ""


def shown_line(line: bytes) -> str:
    """A line of COM1, fit for a line of text: of a long one the end."""
    text = one_line(line.decode(errors="replace").strip())
    return text if len(text) <= _LINE_SHOWN else f"…{text[-_LINE_SHOWN:]}"
