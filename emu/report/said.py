"""What a guest has said, as much of it as a report has room for."""

from collections.abc import Sequence
from typing import Final

LINE: Final = 512  # characters of a line
CODES: Final = 32  # POST codes


def last_lines(text: str, count: int) -> list[str]:
    """The last lines of a text, of each of them the end."""
    return [line if len(line) <= LINE else f"…{line[-LINE:]}" for line in text.splitlines()[-count:]]


def post_codes_text(codes: Sequence[int]) -> str:
    """A line of the last POST codes."""
    return f"POST codes: {'… ' if len(codes) > CODES else ''}{' '.join(f'{code:02x}' for code in codes[-CODES:])}"
