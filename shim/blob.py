"""A Blob: a firmware image with its symbols, its listing and its manifest, as built or as read back."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .abi.x86 import ADDRESS_4G
from .errors import BootError
from .machines import rom_span

if TYPE_CHECKING:
    from .listing import ListingLine

_PATCHED: Final = " (patched since)"  # behind the text of a line whose bytes are other ones by now
_PATCHED_MAX: Final = 8  # lines; with more it is another firmware


class Place(NamedTuple):
    """Where an address lies: the label before it, the distance in bytes, and the source line (file and line, or "")."""

    symbol: str
    offset: int
    source: str

    def __str__(self) -> str:
        name = f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol
        return f"{name} ({self.source})" if self.source else name


class Description(NamedTuple):
    """What is known of a ROM: its labels, its source lines, and what `to_json` says of it beside those lines."""

    symbols: Mapping[str, int]
    listing: Sequence["ListingLine"]
    manifest: Mapping[str, Any]


class Blob:
    """An immutable firmware image."""

    def __init__(
        self, data: bytes, symbols: Mapping[str, int], listing: "Sequence[ListingLine]", manifest: Mapping[str, Any]
    ) -> None:
        self._data = data
        self._description = Description(symbols, listing, manifest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and (self.data, self.description) == (other.data, other.description)

    @property
    def data(self) -> bytes:
        """The ROM, which ends at 4 GiB."""
        return self._data

    @property
    def description(self) -> Description:
        """All that is known of the ROM."""
        return self._description

    @property
    def symbols(self) -> Mapping[str, int]:
        """Its labels, with their physical addresses."""
        return self.description.symbols

    @property
    def listing(self) -> "Sequence[ListingLine]":
        """Its source lines, by their addresses."""
        return self.description.listing

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What it was built from, and for."""
        return self.description.manifest

    @cached_property
    def sha256(self) -> str:
        """Of the ROM, in hexadecimal."""
        import hashlib  # which loads OpenSSL

        return hashlib.sha256(self.data).hexdigest()

    @property
    def patched(self) -> list[str]:
        """The lines whose bytes somebody has changed since the ROM was built."""
        return [f"{line.file}:{line.line}" for line in self.listing if line.text.endswith(_PATCHED)]

    @property
    def paddr(self) -> int:
        """The physical address of the ROM's first byte."""
        return rom_span(len(self.data)).start

    def locate(self, address: int) -> Place | None:
        """The label and the source line at a physical address; None outside of the code."""
        lines = [line for line in self.listing if line.address <= address < line.address + len(line.data)]
        if not lines:
            return None
        before = {name: value for name, value in self.symbols.items() if value <= address}
        name = max(before, key=lambda candidate: (before[candidate], candidate), default="")
        return Place(name, address - before.get(name, address), f"{lines[0].file}:{lines[0].line}")

    def elf(self) -> bytes:
        """An ELF32 executable over the code and its data, with symbols and source lines: what gdb's `symbol-file` takes."""
        # Who only runs a blob needs none of them.
        from .abi.elf import PF_R, PF_X, PT_LOAD
        from .dwarf import debug_sections
        from .elfwriter import ElfSegment, write_elf

        start = min(line.address for line in self.listing)
        code = self.data[start - self.paddr :]
        segment = ElfSegment(PT_LOAD, start, code, len(code), PF_R | PF_X, 1)
        return write_elf(32, self.symbols["reset_vector"], (segment,), self.symbols, debug=debug_sections(self.listing))

    def listing_text(self) -> str:
        """Address, bytes and source, a line each; labels on lines of their own."""
        labels: dict[int, list[str]] = {}
        for name, value in self.symbols.items():
            labels.setdefault(value, []).append(name)
        out: list[str] = []
        file = ""
        for line in self.listing:
            if line.file != file:
                file = line.file
                out.append(f"\n; {file}")
            out.extend(f"{line.address:08x}  {name}:" for name in sorted(labels.pop(line.address, [])))
            shown = line.data[:8].hex(" ") + (" …" if len(line.data) > 8 else "")
            out.append(f"{line.address:08x}  {shown:<25}  {line.line:>4}  {line.text}")
        return "\n".join(out).lstrip("\n") + "\n"

    def to_json(self) -> str:
        """Manifest and listing, without the image itself: the same for the same input."""
        import json

        rows = [line.to_row() for line in self.listing]
        return json.dumps({**self.manifest, "listing": rows}, indent=1, ensure_ascii=False) + "\n"


def blob_from_json(data: bytes, text: str) -> Blob:
    """The Blob that `to_json` described, around its image. In that a few lines may have been patched, which are in
    Blob.patched; BootError if it is another one. ValueError, KeyError, TypeError or AttributeError if `to_json` did not write
    the text."""
    import hashlib
    import json

    manifest = json.loads(text)
    rows, rom = manifest.pop("listing"), manifest["rom"]
    if rom["sha256"] != hashlib.sha256(data).hexdigest():
        rows = _with_patches(data, rows) if rom["size"] == len(data) else None
        if rows is None:
            raise BootError("the manifest of another firmware")
    listing = listing_from_rows(data, rows)
    symbols = {name: int(value, 16) for name, value in manifest["symbols"].items()}
    if not all(0 <= value <= ADDRESS_4G for value in symbols.values()):
        raise ValueError("a label that is not below 4 GiB")
    return Blob(data, symbols, listing, manifest)


def _with_patches(data: bytes, rows: Iterable[Any]) -> list[list[str | int]] | None:
    """The listing with the bytes that the ROM has now; None if that are too many other ones."""
    from .listing import line_from_row

    start, lines, count = rom_span(len(data)).start, [], 0
    for line in map(line_from_row, rows):
        held = data[max(0, line.address - start) :][: len(line.data)]
        is_patched = held != line.data
        count += is_patched
        lines.append((line._replace(data=held, text=line.text + _PATCHED) if is_patched else line).to_row())
    return lines if count <= _PATCHED_MAX else None


def listing_from_rows(data: bytes, rows: Iterable[Any]) -> "tuple[ListingLine, ...]":
    """The listing of the ROM `data`, as plain data. TypeError or ValueError if it is none, or another ROM's."""
    from .listing import line_from_row

    start = rom_span(len(data)).start
    listing = tuple(line_from_row(row) for row in rows)
    for line in listing:
        at = line.address - start
        if not line.data or at < 0 or data[at : at + len(line.data)] != line.data:
            raise ValueError(f"the ROM does not hold what the listing has at {line.address:#x}")
    return listing
