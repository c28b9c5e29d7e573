"""Linear memory: what a processor finds at an address through the guest's own page tables.

32-bit paging (with pages of 4 MiB, PSE-36 among them), PAE and 4-level paging, Intel SDM volume 3A, chapter 5; no 5-level
paging, no protection keys, no SMAP. As a processor does, a walk sets the accessed and dirty bits of the entries that it uses.
"""

from typing import Final, NamedTuple, Protocol

from pvhboot.shim.abi import interrupts, paging, x86

_NARROW_SHIFTS: Final = (paging.PAGE_4M_SHIFT, paging.PAGE_SHIFT)
_PAE_SHIFTS: Final = (paging.PDPT_SHIFT, paging.LARGE_PAGE_SHIFT, paging.PAGE_SHIFT)
_LONG_SHIFTS: Final = (paging.PML4_SHIFT, *_PAE_SHIFTS)
_PAE_TABLE_ALIGN: Final = 32


class PhysicalMemory(Protocol):
    """Physical memory as a processor reaches it: every address answers, and a store may be dropped."""

    def read(self, paddr: int, size: int) -> bytes:
        """`size` bytes at a physical address."""

    def write(self, paddr: int, data: bytes) -> None:
        """A store of a few bytes."""


class PageFaultError(Exception):
    """An access that paging refuses: the linear address, and the error code of the page fault."""

    def __init__(self, address: int, error_code: int) -> None:
        super().__init__(address, error_code)
        self.address = address
        self.error_code = error_code


class _Entry(NamedTuple):
    """An entry of a page table: where it lies, its bytes and its value; `shift` says how much it maps."""

    paddr: int
    size: int
    value: int
    shift: int


class LinearMemory:
    """Memory by linear address, as code with the given control registers sees it. `address_bits` is the processor's number of
    physical address bits: above them an entry is malformed."""

    def __init__(self, physical: PhysicalMemory, cr0: int, cr3: int, cr4: int, efer: int, address_bits: int) -> None:
        self._physical = physical
        self._paging = bool(cr0 & x86.CR0_PG)
        self._write_protect = bool(cr0 & x86.CR0_WP)
        self._cr3, self._pse = cr3, bool(cr4 & paging.CR4_PSE)
        self._wide = bool(cr4 & paging.CR4_PAE)
        self._long = bool(efer & paging.EFER_LMA)
        self._reserved = paging.PTE_ADDRESS & ~((1 << address_bits) - 1)
        if not efer & paging.EFER_NXE:
            self._reserved |= paging.PTE_NO_EXECUTE

    def read(self, address: int, size: int, user: bool = False) -> bytes:
        """`size` bytes at a linear address; PageFaultError if they cannot be had."""
        data = b""
        while size:
            count = min(size, x86.PAGE_SIZE - address % x86.PAGE_SIZE)
            data += self._physical.read(self.translate(address, False, user), count)
            address, size = address + count, size - count
        return data

    def write(self, address: int, data: bytes, user: bool = False) -> None:
        """Stores at a linear address; PageFaultError if nothing, or not all, may be stored there."""
        while data:
            count = min(len(data), x86.PAGE_SIZE - address % x86.PAGE_SIZE)
            self._physical.write(self.translate(address, True, user), data[:count])
            address, data = address + count, data[count:]

    def translate(self, address: int, write: bool, user: bool) -> int:
        """The physical address; PageFaultError if the access is refused."""
        if not self._long:
            address %= x86.ADDRESS_4G
        if not self._paging:
            return address
        fault = (interrupts.PF_WRITE if write else 0) | (interrupts.PF_USER if user else 0)
        entries = self._walk(address, fault)
        # The four entries at the top of PAE's tables have no rights, and nobody marks them.
        ruling = entries[1:] if self._wide and not self._long else entries
        rights = paging.PTE_WRITABLE | paging.PTE_USER
        for entry in ruling:
            rights &= entry.value
        forbidden = user and not rights & paging.PTE_USER
        if write and not rights & paging.PTE_WRITABLE:
            forbidden = forbidden or user or self._write_protect
        if forbidden:
            raise PageFaultError(address, fault | interrupts.PF_PRESENT)
        for entry in ruling:
            marked = entry.value | paging.PTE_ACCESSED
            if write and entry is ruling[-1]:
                marked |= paging.PTE_DIRTY
            if marked != entry.value:
                self._physical.write(entry.paddr, marked.to_bytes(entry.size, "little"))
        return self._frame(entries[-1]) | address & (1 << entries[-1].shift) - 1

    def find(self, address: int) -> int:
        """The physical address as somebody asks who only looks: rights count for nothing, and nothing is marked.
        PageFaultError where nothing is mapped."""
        if not self._long:
            address %= x86.ADDRESS_4G
        if not self._paging:
            return address
        last = self._walk(address, 0)[-1]
        return self._frame(last) | address & (1 << last.shift) - 1

    def _walk(self, address: int, fault: int) -> list[_Entry]:
        """The entries on the way to a page, the page's own last."""
        size = 8 if self._wide else 4
        shifts = _LONG_SHIFTS if self._long else _PAE_SHIFTS if self._wide else _NARROW_SHIFTS
        align = _PAE_TABLE_ALIGN if self._wide and not self._long else x86.PAGE_SIZE
        table = self._cr3 & (paging.PTE_ADDRESS if self._long else x86.ADDRESS_4G - align)
        entries: list[_Entry] = []
        for shift in shifts:
            paddr = table + (address >> shift) % (x86.PAGE_SIZE // size) * size
            value = int.from_bytes(self._physical.read(paddr, size), "little")
            if not value & paging.PTE_PRESENT:
                raise PageFaultError(address, fault)
            entries.append(_Entry(paddr, size, value, shift))
            last = shift == paging.PAGE_SHIFT or self._is_large(value, shift)
            if self._is_malformed(value, shift, last):
                raise PageFaultError(address, fault | interrupts.PF_PRESENT | interrupts.PF_RESERVED)
            if last:
                break
            table = value & paging.PTE_ADDRESS
        return entries

    def _is_large(self, value: int, shift: int) -> bool:
        if not value & paging.PTE_LARGE:
            return False
        if not self._wide:
            return self._pse
        return shift == paging.LARGE_PAGE_SHIFT or (self._long and shift == paging.PDPT_SHIFT)

    def _is_malformed(self, value: int, shift: int, last: bool) -> bool:
        if not self._wide:
            return last and shift == paging.PAGE_4M_SHIFT and bool(value & paging.PSE36_RESERVED)
        reserved = self._reserved
        if shift == paging.PML4_SHIFT:
            reserved |= paging.PTE_LARGE
        elif last and shift > paging.PAGE_SHIFT:
            reserved |= (1 << shift) - 2 * paging.PTE_LARGE_PAT
        return bool(value & reserved)

    def _frame(self, entry: _Entry) -> int:
        if not self._wide and entry.shift == paging.PAGE_4M_SHIFT:
            high = (entry.value & paging.PSE36_MASK) << paging.PSE36_SHIFT
            return high | entry.value & x86.ADDRESS_4G - (1 << paging.PAGE_4M_SHIFT)
        return entry.value & paging.PTE_ADDRESS & -(1 << entry.shift)
