"""A Blob: a firmware image with its symbols, its listing and its manifest, as built or as read back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .abi.elf import PF_R, PF_X, PT_LOAD
from .elfwriter import ElfSegment, write_elf
from .listing import ListingLine
from .machines import rom_span


class Place(NamedTuple):
    """Where an address lies: the label before it, the distance in bytes, and the source line (file and line, or "")."""

    symbol: str
    offset: int
    source: str

    def __str__(self) -> str:
        name = f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol
        return f"{name} ({self.source})" if self.source else name


class Blob(NamedTuple):
    """An immutable firmware image: `data` is the ROM, which ends at 4 GiB."""

    data: bytes
    symbols: Mapping[str, int]
    listing: Sequence[ListingLine]
    manifest: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Of the ROM, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

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
        """An ELF32 executable over the code and its data, with symbols: what gdb's `symbol-file` takes."""
        start = min(line.address for line in self.listing)
        code = self.data[start - self.paddr :]
        segment = ElfSegment(PT_LOAD, start, code, len(code), PF_R | PF_X, 1)
        return write_elf(32, self.symbols["reset_vector"], (segment,), self.symbols)

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
        rows = [[f"{line.address:#x}", line.data.hex(), line.file, line.line, line.text] for line in self.listing]
        return json.dumps({**self.manifest, "listing": rows}, indent=1, ensure_ascii=False) + "\n"


def blob_from_json(data: bytes, text: str) -> Blob:
    """The Blob that `to_json` described, around its image."""
    manifest = json.loads(text)
    listing = tuple(
        ListingLine(int(address, 16), bytes.fromhex(code), file, line, source)
        for address, code, file, line, source in manifest.pop("listing")
    )
    return Blob(data, {name: int(value, 16) for name, value in manifest["symbols"].items()}, listing, manifest)
