"""Places: where an address of a boot lies, in words, and where a name lies."""

from bisect import bisect_right
from functools import cached_property

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.symbols import CodeSymbol
from pvhboot.shim.blob import Blob, Place
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import low_rom_span, rom_span

_Table = tuple[list[int], list[str]]  # addresses, sorted, and what is there


class Places:
    """The labels and lines of a firmware, and the symbols of the kernel that it boots. Fast enough to be asked of every
    instruction. A firmware of which nothing is known, and a kernel without symbols, give offsets."""

    def __init__(self, plan: BootPlan, blob: Blob) -> None:
        self._plan = plan
        self._rom = rom_span(len(plan.rom))
        self._low_rom = low_rom_span(plan.spec, len(plan.rom))
        labels = sorted((value, name) for name, value in blob.symbols.items())
        self._labels: _Table = ([value for value, _ in labels], [name for _, name in labels])
        self._lines = {
            address: f"{line.file}:{line.line}"
            for line in blob.listing
            for address in range(line.address, line.address + len(line.data))
        }
        self._symbols = blob.symbols

    def locate(self, address: int) -> Place | None:
        """The label and the source line at a linear address; None outside of firmware and kernel."""
        if self._rom.start <= address < self._rom.end:
            return self._in_rom(address)
        low = self._low_rom
        if low is not None and low.start <= address < low.end:
            return self._in_rom(self._rom.end - low.end + address)
        segments = self._plan.segments
        if segments[0].paddr <= address < segments[-1].end:
            return _before(self._loaded, address) or Place("kernel", address - segments[0].paddr, "")
        return _before(self._mapped, address) if address >= self._mapped_from else None

    def find(self, name: str) -> int:
        """The linear address of a label of the firmware, or of a symbol of the kernel where paging is off; BootError if there
        is none of that name."""
        if name in self._symbols:
            return self._symbols[name]
        addresses, names = self._loaded
        if name not in names:
            raise BootError(f"no symbol {name!r}: {self._what_is_known(kernel=bool(names))}")
        return addresses[names.index(name)]

    def _what_is_known(self, *, kernel: bool) -> str:
        if self._symbols:
            return "see the listing, or nm"
        where = "see nm of the kernel" if kernel else "the kernel has none, either"
        return f"this firmware comes without labels (give an address, or its manifest if pvhboot has built it); {where}"

    def find_all(self, name: str) -> frozenset[int]:
        """As `find`, and where the kernel has its symbol mapped besides: what is to be stopped at, whether paging is on or
        off. BootError if there is none of that name."""
        found = {self.find(name)}
        if name not in self._symbols:
            found |= {address for address, symbol in zip(*self._mapped, strict=True) if symbol == name}
        return frozenset(found)

    @cached_property
    def _kernel(self) -> list[CodeSymbol]:
        return self._plan.kernel.symbols()

    @cached_property
    def _loaded(self) -> _Table:
        moved_by = self._plan.moved_by
        return [symbol.paddr + moved_by for symbol in self._kernel], [symbol.name for symbol in self._kernel]

    @cached_property
    def _mapped(self) -> _Table:
        elsewhere = sorted((symbol.vaddr, symbol.name) for symbol in self._kernel if symbol.vaddr != symbol.paddr)
        return [address for address, _ in elsewhere], [name for _, name in elsewhere]

    @cached_property
    def _mapped_from(self) -> int:
        # What lies below is another mapping's, or nobody's: a kernel is mapped high.
        return max(self._mapped[0][0] if self._mapped[0] else 0, self._plan.segments[-1].end)

    def _in_rom(self, address: int) -> Place:
        source = self._lines.get(address, "")
        place = _before(self._labels, address) if source else None
        return Place("ROM", address - self._rom.start, "") if place is None else place._replace(source=source)


def _before(table: _Table, address: int) -> Place | None:
    addresses, names = table
    number = bisect_right(addresses, address) - 1
    return None if number < 0 else Place(names[number], address - addresses[number], "")
