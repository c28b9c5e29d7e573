"""The shadow of memory: which bytes of it somebody has written."""

from typing import Final

from pvhboot.shim.abi.x86 import PAGE_SIZE

_OFFSET: Final = PAGE_SIZE - 1
_WHOLE: Final = b"\1" * PAGE_SIZE  # a page of which each byte is written; all such pages share it


class Shadow:
    """A set of physical addresses, exact to the byte. It takes room for pages that were written in part only, and a word for
    each other one: the size of the RAM does not matter."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes | bytearray] = {}  # by number: 1 for each byte that is written

    def add(self, paddr: int, size: int) -> None:
        """These bytes are written."""
        pages, end = self._pages, paddr + size
        while paddr < end:
            number, offset = paddr // PAGE_SIZE, paddr & _OFFSET
            count = min(end - paddr, PAGE_SIZE - offset)
            if count == PAGE_SIZE:
                whole = (end - paddr) // PAGE_SIZE
                pages.update(dict.fromkeys(range(number, number + whole), _WHOLE))
                count = whole * PAGE_SIZE
            elif (page := pages.get(number)) is None:
                pages[number] = page = bytearray(PAGE_SIZE)
                page[offset : offset + count] = _WHOLE[:count]
            elif isinstance(page, bytearray):
                page[offset : offset + count] = _WHOLE[:count]
            paddr += count

    def holds(self, paddr: int, size: int) -> bool:
        """Whether all of them are."""
        offset = paddr & _OFFSET
        if offset + size > PAGE_SIZE:
            return not self.missing(paddr, size)
        page = self._pages.get(paddr // PAGE_SIZE)
        return not size or (page is not None and (page is _WHOLE or page[offset : offset + size] == _WHOLE[:size]))

    def has(self, paddr: int) -> bool:
        """Whether this byte is."""
        page = self._pages.get(paddr // PAGE_SIZE)
        return page is not None and bool(page[paddr & _OFFSET])

    def missing(self, paddr: int, size: int) -> list[int]:
        """Those that are not, as offsets from the first."""
        return [at for at in range(size) if not self.has(paddr + at)]
