"""An ELF file while it is put together: its bytes, and where its tables and notes lie, so that they can be made wrong."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pvhboot.shim.abi.elf_layouts import LAYOUTS
from pvhboot.shim.abi.layout import Layout

HEADER: Final = "header"
PROGRAM_HEADERS: Final = "program headers"
SECTION_HEADERS: Final = "section headers"
NOTES: Final = "notes"
TABLES: Final = (PROGRAM_HEADERS, HEADER, SECTION_HEADERS, NOTES)

# The fields of the ELF header that say where a table lies and how many entries it has.
_TABLE_FIELDS: Final = {PROGRAM_HEADERS: ("e_phoff", "e_phnum"), SECTION_HEADERS: ("e_shoff", "e_shnum")}


class XenNote(NamedTuple):
    """A note of Xen's to the end of a descriptor of 8 bytes, which may also be shorter or missing."""

    n_namesz: int
    n_descsz: int
    n_type: int
    name: int
    value: int


_XEN_NOTE: Final = Layout(XenNote, "IIIIQ", "XEN_NOTE")


class Table(NamedTuple):
    """Structures of one layout, and the offset of each in the file."""

    layout: Layout[Any]
    offsets: list[int]


class Draft:
    """`data` is the file so far, `tables` what of TABLES it has. It begins with an ELF header of zeros."""

    def __init__(self, bits: int) -> None:
        self.layouts = LAYOUTS[bits]
        self.data = bytearray(self.layouts.header.size)
        self.tables: dict[str, Table] = {
            HEADER: Table(self.layouts.header, [0]),
            PROGRAM_HEADERS: Table(self.layouts.program_header, []),
            SECTION_HEADERS: Table(self.layouts.section_header, []),
            NOTES: Table(_XEN_NOTE, []),
        }

    def append(self, data: bytes) -> int:
        """Puts bytes at the end; the offset where they lie."""
        offset = len(self.data)
        self.data += data
        return offset

    def put_table(self, name: str, records: Sequence[Mapping[str, int]], at: int | None = None) -> None:
        """Puts a table at an offset, by default at the end, and names it in the ELF header; fields that are not given are 0."""
        layout, offsets = self.tables[name]
        if at is None:
            at = self.append(bytes(layout.size * len(records)))
        offsets[:] = (at + layout.size * number for number in range(len(records)))
        for number, record in enumerate(records):
            self.set_fields(name, number, record)
        self.point(name, at, len(records))

    def point(self, name: str, at: int, count: int) -> None:
        """Has the ELF header say that the table lies at an offset and has so many entries."""
        self.set_fields(HEADER, 0, dict(zip(_TABLE_FIELDS[name], (at, count), strict=True)))

    def repeat(self, name: str, number: int, count: int) -> None:
        """Moves a table to the end, with an entry of it so many times more."""
        layout, offsets = self.tables[name]
        entries = [bytes(self.data[at : at + layout.size]) for at in offsets]
        at = self.append(b"".join(entries) + entries[number] * count)
        offsets[:] = range(at, len(self.data), layout.size)
        self.point(name, at, len(offsets))

    def field(self, table: str, number: int, name: str) -> int:
        """The value of a field, of bytes too as a number."""
        start, size = self._place(table, number, name)
        return int.from_bytes(self.data[start : start + size], "little")

    def set_fields(self, table: str, number: int, fields: Mapping[str, int]) -> None:
        """Changes fields of an entry; of a value that does not fit, the low bytes."""
        for name, value in fields.items():
            start, size = self._place(table, number, name)
            self.data[start : start + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def _place(self, table: str, number: int, name: str) -> tuple[int, int]:
        layout, offsets = self.tables[table]
        field = layout.fields[name]
        return offsets[number] + field.offset, field.size
