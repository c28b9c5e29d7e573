"""How a value shows itself where its `repr` is one line and `print` gives all of it: IPython's prompt gives all, too."""

from typing import Protocol


class Printer(Protocol):
    """What IPython's pretty printer is asked for here."""

    def text(self, text: str) -> None:
        """Prints it as it is."""


def show_text(value: object, printer: Printer, cycle: bool) -> None:
    """What a `_repr_pretty_` does."""
    printer.text(repr(value) if cycle else str(value))
