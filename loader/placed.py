"""Whether memory still holds what a plan puts there."""

from .image import PIECE, pieces
from .memory import GuestMemory, ReadableMemory
from .plan import BootPlan


def first_difference(plan: BootPlan, memory: ReadableMemory) -> str | None:
    """Compares kernel and modules in `memory` with their files as they are now; says where they differ first. BootError if a
    file cannot be read, NoMemoryError where there is no memory."""
    for name, paddr, size, source, offset in plan.kernel_pieces() + plan.module_pieces():
        parts = [(paddr, paddr + size)]
        if isinstance(memory, GuestMemory):
            parts = memory.unproven(paddr, size, source, offset)
        for at, end in parts:
            for piece in pieces(source, offset + at - paddr, end - at):
                if (other := _first_other(memory, at, bytes(piece))) is not None:
                    return f"{name} was changed at {other:#x}"
                at += len(piece)
    for segment in plan.segments:
        start, size = segment.paddr + segment.filesz, segment.memsz - segment.filesz
        parts = memory.unproven_zeros(start, size) if isinstance(memory, GuestMemory) else [(start, start + size)]
        for at, end in parts:
            for part in range(at, end, PIECE):
                if (other := _first_other(memory, part, bytes(min(PIECE, end - part)))) is not None:
                    return f"the zeroed part of the kernel segment at {segment.paddr:#x} was changed at {other:#x}"
    return None


def _first_other(memory: ReadableMemory, paddr: int, wanted: bytes) -> int | None:
    """Where memory first differs from what is wanted at a physical address."""
    found = memory.read(paddr, len(wanted))
    if found == wanted:
        return None
    return paddr + next(at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
