"""Where a kernel goes: where it is linked, or, if it says that it can run elsewhere, around what is in its way.

Source: Xen xen/include/public/elfnote.h, XEN_ELFNOTE_PHYS32_RELOC. A kernel without that note is never moved.
"""

from collections.abc import Sequence
from typing import Final

from pvhboot.shim.abi.pvh import Relocation
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB, Span

from .facts import KernelSegment
from .kernel import Kernel
from .limits import more_memory
from .ranges import places
from .sizes import show_size

_LOWEST: Final = MIB  # what lies below belongs to the firmware, whoever made it


def place_kernel(
    kernel: Kernel, free: Sequence[Span], memory: int, base: int | None, *, least: int | None, one_range: bool
) -> tuple[KernelSegment, ...]:
    """The segments where they are to be loaded: where they are linked, unless `base` says otherwise, or the kernel does not fit
    there and can be moved: then all of it goes to the lowest place from 1 MiB on that is free.

    `free` are the spans of RAM that nothing else needs; `memory` is all RAM in bytes, and `least` what would do where the
    kernel is linked, for the message. With `one_range` the whole kernel must lie in one span, as far as 32 bits can tell its
    size. `base` is the physical address for its lowest segment. BootError if the kernel's notes do not allow that base, or it
    can be moved and fits nowhere. That it does fit where it is linked, or at `base`, is not checked.
    """
    start, end = kernel.segments[0].paddr, kernel.end
    size = end - start
    relocation = kernel.relocation
    if base is not None:
        if base != start:
            _require_allowed(kernel, base, size)
        return _moved(kernel.segments, base - start)
    pieces = [(segment.paddr, segment.end) for segment in kernel.segments]
    if one_range:
        pieces = [(start, start + size % ADDRESS_4G)]
    if relocation is None or all(any(span.start <= a and b <= span.end for span in free) for a, b in pieces):
        return kernel.segments
    found = next(places(free, size, relocation.align, max(relocation.min, _LOWEST), relocation.max), None)
    if found is None:
        raise BootError(
            f"{kernel.path}: does not fit at {start:#x}-{end:#x}, where it is linked, and nowhere else in {show_size(memory)} "
            f"of memory is room for its {size:#x} bytes: {_allowed(relocation)}; {more_memory(memory, least)}"
        )
    return _moved(kernel.segments, found - start)


def _moved(segments: Sequence[KernelSegment], by: int) -> tuple[KernelSegment, ...]:
    return tuple(segment._replace(paddr=segment.paddr + by) for segment in segments)


def _require_allowed(kernel: Kernel, base: int, size: int) -> None:
    relocation = kernel.relocation
    if relocation is None:
        raise BootError(
            f"{kernel.path}: has no PHYS32_RELOC note, so it runs at {kernel.segments[0].paddr:#x}, where it is linked, and "
            "nowhere else"
        )
    if base % relocation.align or base < relocation.min or base + size - 1 > relocation.max:
        raise BootError(f"{kernel.path}: cannot run at {base:#x} with its {size:#x} bytes: {_allowed(relocation)}")


def _allowed(relocation: Relocation) -> str:
    return (
        f"its PHYS32_RELOC note asks for a multiple of {relocation.align:#x}, all of it within "
        f"{relocation.min:#x}-{relocation.max:#x}"
    )
