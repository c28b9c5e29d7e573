"""A line of a listing: apart from the assembler, so that a blob can be read back without one."""

from typing import NamedTuple


class ListingLine(NamedTuple):
    """What one source line became: its physical address, bytes, file name, line (from 1) and text."""

    address: int
    data: bytes
    file: str
    line: int
    text: str
