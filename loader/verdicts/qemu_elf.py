"""What QEMU 7.2 does with an ELF file, on the roads of PVH and of Multiboot.

Sources: QEMU include/hw/elf_ops.h (load_elf, load_symbols, get_elf_note_type), hw/core/loader.c, hw/i386/x86.c
(read_pvh_start_addr, load_elfboot), hw/i386/multiboot.c.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

from pvhboot.shim.abi.elf import PF_X, PT_LOAD, PT_NOTE, SHT_SYMTAB
from pvhboot.shim.abi.elf_layouts import NOTE_HEAD
from pvhboot.shim.abi.pvh import XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE

from .base import CRASHES, MASK32, MASK64, UNKNOWN, Ruling, refuses
from .raw import NOTES_MAX, RawFile

_BIOS: Final = (0xFFFC0000, ADDRESS_4G)  # SeaBIOS on pc and q35; a ROM is one more of those that may not overlap
_ALLOC_SURE: Final = 1 << 32  # bytes; up to here a host will do it
_ALLOC_MAX: Final = 1 << 47  # bytes; no process has more
_ZEROS_MAX: Final = 8 << 30  # bytes; it writes them in pieces of 512, where there is no RAM, too: minutes from here on


@dataclass
class QemuCase:
    """The file, and what QEMU has found out so far."""

    raw: RawFile
    is_multiboot: bool = False
    entry: int = 0  # what is behind the note found last; of a Multiboot kernel, its entry
    source: str = ""
    total: int = 0
    low: int = MASK64  # of all PT_LOAD
    high: int = 0
    roms: list[tuple[int, int, int]] = field(default_factory=list)  # addr, bytes in all, bytes from the file
    notes: int = 0

    def __post_init__(self) -> None:
        self.bits = self.raw.bits  # a class that is neither is taken for 32
        self.mask = MASK64 if self.bits == 64 else MASK32  # its elf_word
        self.header = self.raw.header(self.bits)

    def mapped(self, offset: int, size: int) -> bytes | None:
        """Bytes of the file as it is mapped: zeros up to the end of its last page, nothing behind it."""
        if offset + size > self.raw.size + -self.raw.size % PAGE_SIZE:
            return None
        return self.raw.take(offset, size).ljust(size, b"\0")

    def overlaps_another(self, name: str, start: int, end: int) -> bool:
        """Whether a PT_LOAD other than this one begins below `end` and ends above `start`: in the width of the class."""
        starts, highest = self._loads
        before = bisect_left(starts, end)
        if not before:
            return False
        its_end, whose, next_end = highest[before - 1]
        return (next_end if whose == name else its_end) > start

    @cached_property
    def _loads(self) -> tuple[list[int], list[tuple[int, str, int]]]:
        """Where each PT_LOAD starts, sorted; of those up to each: the highest end, whose it is, the highest of the others."""
        headers = self.raw.program_headers(self.bits)
        loads = sorted(
            (each.p_paddr, each.p_paddr + each.p_memsz & self.mask, name) for name, each in headers if each.p_type == PT_LOAD
        )
        return [start for start, _, _ in loads], list(accumulate(((end, name, -1) for _, end, name in loads), _higher))


def _higher(known: tuple[int, str, int], new: tuple[int, str, int]) -> tuple[int, str, int]:
    if new[0] > known[0]:
        return new[0], new[1], known[0]
    return known[0], known[1], max(known[2], new[0])


def symbols(case: QemuCase) -> Ruling | None:
    """The symbol table, which is read first."""
    assert case.header is not None
    sections = case.raw.section_headers(case.bits)
    if len(sections) < case.header.e_shnum:
        return None
    symbols = next((section for section in sections if section.sh_type == SHT_SYMTAB), None)
    if symbols is None:
        return None
    sizes = [symbols.sh_size]
    if symbols.sh_offset + symbols.sh_size <= case.raw.size and symbols.sh_link < len(sections):
        sizes.append(sections[symbols.sh_link].sh_size)
    if max(sizes) < _ALLOC_SURE:
        return None
    outcome = CRASHES if max(sizes) >= _ALLOC_MAX else UNKNOWN
    return Ruling(outcome, f"it allocates {max(sizes)} bytes for the symbol table, as a section header says, or aborts")


def headers(case: QemuCase) -> Ruling | None:
    """The table of program headers."""
    assert case.header is not None
    found = case.raw.program_headers(case.bits)
    if not case.header.e_phnum:
        return refuses("no program headers")
    if len(found) < case.header.e_phnum:
        return refuses(f"of {case.header.e_phnum} program headers, {len(found)} lie in the file")
    if case.is_multiboot:
        case.entry = case.header.e_entry
    return None


def load(case: QemuCase, name: str, header: Any) -> Ruling | None:
    """A PT_LOAD."""
    if header.p_type != PT_LOAD:
        return None
    start, size, memory = header.p_paddr, header.p_filesz, header.p_memsz
    if size and case.raw.size < (size + header.p_offset) & case.mask:
        return refuses(f"{name} lies at {header.p_offset:#x}-{header.p_offset + size:#x} of the file, which ends before")
    if size and size + header.p_offset > case.mask:
        return Ruling(UNKNOWN, f"{name} wraps around in the file: its bytes are read from before the start of the mapping")
    if memory > size:
        zeros = (start + size) & case.mask, (start + memory) & case.mask
        if case.overlaps_another(name, *zeros):
            memory = size  # as where segments are moved at run time: the file's part is loaded, nothing is zeroed
    if memory > (1 << 63) - 1 - case.total:
        return refuses(f"{name} has {memory:#x} bytes of memory")
    case.total += memory
    case.low = min(case.low, start)
    case.high = max(case.high, start + memory & MASK64)
    if memory:
        case.roms.append((start, memory, size))
    assert case.header is not None
    if (
        case.is_multiboot
        and header.p_vaddr != start
        and header.p_vaddr <= case.header.e_entry < header.p_vaddr + size
        and header.p_flags & PF_X
    ):
        case.entry = int(case.header.e_entry - header.p_vaddr + start)
    return None


def note(case: QemuCase, name: str, header: Any) -> Ruling | None:
    """A PT_NOTE; what is found is kept as the entry."""
    if header.p_type != PT_NOTE or case.is_multiboot:
        return None
    at, size, align = header.p_offset, header.p_filesz, header.p_align
    if not size:
        return None
    if case.raw.size < (size + at) & case.mask:
        return refuses(f"{name} lies at {at:#x}-{at + size:#x} of the file, which ends before")
    if size + at > case.mask:
        return Ruling(UNKNOWN, f"{name} wraps around in the file: its bytes are read from before the start of the mapping")

    def padded(number: int) -> int:
        return int((number + align - 1 & case.mask) // align * align & case.mask)

    while True:
        case.notes += 1
        if case.notes > NOTES_MAX:
            return Ruling(UNKNOWN, f"more than {NOTES_MAX} notes, or what follows {name} taken for notes: not followed further")
        head = case.mapped(at, NOTE_HEAD.size)
        if head is None:
            return _behind_the_file(case, f"the search for a note, which goes on behind {name},", at)
        namesz, descsz, kind = NOTE_HEAD.unpack(head)
        if align == 0:
            return Ruling(CRASHES, f"{name} has a p_align of 0, by which it divides (SIGFPE)")
        if kind == XEN_ELFNOTE_PHYS32_ENTRY:
            break
        step = NOTE_HEAD.size + padded(namesz) + padded(descsz) & case.mask
        # Of each note's own size: the sum is not looked at, so the search runs on behind the segment.
        if step > size:
            return None
        if not step:
            return Ruling(CRASHES, f"{name} has a p_align of {align:#x}: its next note is the same one, for ever")
        at += step
    at += NOTE_HEAD.size + padded(namesz)
    value = case.mapped(at, case.bits // 8)
    if value is None:
        return _behind_the_file(case, f"the descriptor of the note in {name}, by its p_align of {align:#x},", at)
    case.entry = int.from_bytes(value, "little")
    case.source = name
    return None


def _behind_the_file(case: QemuCase, what: str, at: int) -> Ruling:
    if at - case.raw.size > 1 << 30:
        return Ruling(CRASHES, f"{what} lies at {at:#x}, far behind the end of the file (SIGSEGV)")
    return Ruling(UNKNOWN, f"{what} lies at {at:#x}, behind the end of the file: what happens depends on what is mapped there")


def total(case: QemuCase) -> Ruling | None:
    """The size of all that is loaded, as load_elfboot has it."""
    if case.total & 1 << 31:
        return refuses(f"{case.total:#x} bytes of memory are a negative number as its `int kernel_size`")
    return None


def fetch(case: QemuCase) -> Ruling | None:
    """A Multiboot kernel is copied back out of what was loaded: rom_copy."""
    if not case.is_multiboot:
        return None
    start, size = case.low & MASK32, case.high - case.low & MASK32
    copied = 0
    for address, memory, data in sorted(case.roms, key=lambda rom: rom[0]):
        if address + memory < start:
            continue
        if not start <= address <= start + size:
            break
        copied = 0 if data > memory else address - start + memory
    if copied == size:
        return None
    return refuses(f"Error while fetching elf kernel from rom: {copied:#x} of {size:#x} bytes at {start:#x}")


def overlap(case: QemuCase) -> Ruling | None:
    """The check of all that is to be written at reset."""
    before = None
    for rom in sorted([*case.roms, (_BIOS[0], _BIOS[1] - _BIOS[0], 0)], key=lambda rom: rom[0]):
        if before is not None and (before[0] + before[1]) & MASK64 > rom[0]:
            whose = "the firmware's ROM" if _BIOS[0] in (before[0], rom[0]) else "another segment"
            return refuses(f"Some ROM regions are overlapping: what is loaded at {before[0]:#x} or {rom[0]:#x}, and {whose}")
        before = rom
    return None


def hang(case: QemuCase) -> Ruling | None:
    """What happens at the reset."""
    for start, memory, size in case.roms:
        if size > memory:
            return Ruling(CRASHES, f"the segment at {start:#x} has {size:#x} bytes in {memory:#x}: it zeroes 2^64 and hangs")
        if memory - size > _ZEROS_MAX:
            return Ruling(
                CRASHES, f"the segment at {start:#x} has {memory - size:#x} bytes of zeros: writing them takes minutes"
            )
    return None
