"""What is known of a kernel that was proven fit to load."""

from typing import NamedTuple

from pvhboot.shim.abi.pvh import Relocation


class Note(NamedTuple):
    """A note as it stands in the file: `name` with its terminator, `source` the place ("PT_NOTE 0", "section .notes")."""

    name: bytes
    type: int
    descriptor: bytes
    source: str


class KernelSegment(NamedTuple):
    """A PT_LOAD segment: `filesz` bytes at `offset` of the uncompressed image go to `paddr`, zeros up to `memsz` bytes."""

    paddr: int
    offset: int
    filesz: int
    memsz: int
    flags: int

    @property
    def end(self) -> int:
        """The first physical address after the segment."""
        return self.paddr + self.memsz


class Facts(NamedTuple):
    """What a kernel image was proven to hold: `bits` of its ELF class, its segments by address, the rest as of Kernel."""

    bits: int
    segments: tuple[KernelSegment, ...]
    entry: int
    elf_entry: int
    notes: tuple[Note, ...]
    relocation: Relocation | None
