"""What proves a kernel fit to load: its ELF headers, its segments, its notes.

Source: System V ABI, "Object Files".
"""

from collections.abc import Sequence
from itertools import pairwise

from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.errors import BootError

from .elf import ProgramHeader, note_sections, note_segments, read_header, read_program_headers, require_x86
from .facts import Facts, KernelSegment
from .image import Image
from .notes import has_pvh_entry, pvh_entry, pvh_relocation, read_notes


def examine(image: Image) -> Facts:
    """Checks an uncompressed ELF image from its header to its PVH entry; BootError, without a path, at the first fault."""
    header = read_header(image)
    require_x86(header)
    headers = read_program_headers(image, header)
    segments = _load_segments(headers, header.bits, image.size)
    notes = list(read_notes(image, note_segments(headers, image)))
    if not has_pvh_entry(notes):
        try:
            notes += read_notes(image, note_sections(image, header))
        except BootError as error:
            try:
                pvh_entry(notes)
            except BootError as reason:
                raise BootError(f"{reason}; and its sections cannot be searched: {error}") from None
    entry = pvh_entry(notes)
    if not any(segment.paddr <= entry < segment.end for segment in segments):
        raise BootError(f"the PVH entry {entry:#x} lies in no PT_LOAD segment: they span {_spans(segments)}")
    relocation = pvh_relocation(notes, (header.align for header in headers if header.type == "PT_LOAD"))
    return Facts(header.bits, segments, entry, header.entry, tuple(notes), relocation)


def _spans(segments: Sequence[KernelSegment]) -> str:
    shown = [f"{segment.paddr:#x}-{segment.end:#x}" for segment in segments[:4]]
    return ", ".join(shown + ["…"] * (len(segments) > len(shown)))


def _load_segments(headers: Sequence[ProgramHeader], bits: int, size: int) -> tuple[KernelSegment, ...]:
    """The PT_LOAD segments with memory, by physical address; BootError if one cannot be loaded, or two overlap."""
    limit = 1 << bits
    limit_name = "4 GiB" if limit == ADDRESS_4G else "the 64-bit address space"
    found = []
    for header in headers:
        if header.type != "PT_LOAD":
            continue
        if header.filesz > header.memsz:
            raise BootError(f"{header.name} has more bytes in the file ({header.filesz:#x}) than in memory ({header.memsz:#x})")
        if header.memsz == 0:
            continue
        if header.filesz and header.offset + header.filesz > size:
            raise BootError(
                f"{header.name} lies at {header.offset:#x}-{header.offset + header.filesz:#x} of the file, "
                f"which ends at {size:#x}"
            )
        if header.paddr + header.memsz > limit:
            raise BootError(f"{header.name} at {header.paddr:#x} with {header.memsz:#x} bytes reaches beyond {limit_name}")
        segment = KernelSegment(header.paddr, header.offset, header.filesz, header.memsz, header.flags)
        found.append((segment, header.name))
    if not found:
        raise BootError("no PT_LOAD segment with memory: there is nothing to load")
    found.sort()
    for (low, low_name), (high, high_name) in pairwise(found):
        if high.paddr < low.end:
            raise BootError(
                f"{low_name} and {high_name} overlap in physical memory: {low.paddr:#x}-{low.end:#x} and "
                f"{high.paddr:#x}-{high.end:#x}"
            )
    return tuple(segment for segment, _ in found)
