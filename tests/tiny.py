"""A kernel of a few instructions: it halts, or does what its assembly says."""

from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.x86 import HLT
from pvhboot.shim.assembler import assemble
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.source import Unit

PADDR = 0x100000
HALT = HLT * 16


def kernel_image(code: bytes = HALT, paddr: int = PADDR, *, bits: int = 32, memsz: int | None = None) -> bytes:
    """A PVH kernel in one segment, entered at its first byte. `memsz`: of the segment, by default that of the code."""
    segment = ElfSegment(PT_LOAD, paddr, code, len(code) if memsz is None else memsz, PF_R | PF_W | PF_X, 4)
    entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, paddr.to_bytes(4, "little"))
    return write_elf(bits, paddr, (segment, ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4)), {})


def assembled(source: str, paddr: int = PADDR) -> bytes:
    """The code of an assembly source, 32-bit code until it says otherwise."""
    program = assemble([Unit("tiny.s", f".code32\n{source}\n", paddr)], {})
    return b"".join(data for _, data in program.pieces)
