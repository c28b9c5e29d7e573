"""What a guest may say without end: the last of it is kept."""

from typing import Final

PRINTED: Final = 4 << 20  # bytes of what a console has printed
CODES: Final = 4096  # POST codes
FORGOTTEN: Final = b"[what was printed before this is not kept]\n"


def keep_printed(printed: bytearray) -> None:
    """Once it is twice as long as PRINTED, what was printed first goes, and FORGOTTEN says so."""
    if len(printed) >= 2 * PRINTED:
        printed[:-PRINTED] = FORGOTTEN


def keep_codes(codes: list[int]) -> None:
    """The same of CODES; nothing says so."""
    if len(codes) >= 2 * CODES:
        del codes[:-CODES]
