"""A line of a listing: apart from the assembler, so that a blob can be read back without one."""

from typing import Any, NamedTuple


class ListingLine(NamedTuple):
    """What one source line became: its physical address, bytes, file name, line (from 1) and text."""

    address: int
    data: bytes
    file: str
    line: int
    text: str

    @property
    def is_code(self) -> bool:
        """It is an instruction, and no directive: data, or what fills up to a boundary."""
        return not self.text.startswith(".")

    def to_row(self) -> list[str | int]:
        """As plain data, as `line_from_row` reads it."""
        return [f"{self.address:#x}", self.data.hex(), self.file, self.line, self.text]


def line_from_row(row: Any) -> ListingLine:
    """What `to_row` gave; TypeError or ValueError for anything else."""
    address, data, file, number, text = row
    if not (isinstance(file, str) and isinstance(number, int) and isinstance(text, str)):
        raise TypeError(f"a line of a listing with {file!r}, {number!r} and {text!r}")
    if not file.isprintable() or "/" in file or file in ("", ".", ".."):  # whoever looks for it stays in a directory
        raise ValueError(f"{file!r} is no name of a source file")
    return ListingLine(int(address, 16), bytes.fromhex(data), file, number, text)
