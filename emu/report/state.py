"""The state of a CPU as text for a person: its mode in words, registers with the names of their bits, segments with their
hidden parts, and the descriptors of the GDT."""

from collections.abc import Mapping
from typing import Final

from pvhboot.loader.memory import ReadableMemory
from pvhboot.loader.picture import cut
from pvhboot.shim.abi import paging, x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError

from ..descriptors import Descriptor, Gdt, read_gdt
from ..engines.base import GENERAL, GENERAL_64

_IN_LINE: Final = 4  # registers
_DESCRIPTORS: Final = 8  # of the GDT that are shown


def state_text(
    registers: Mapping[str, int], segments: Mapping[str, Segment], memory: ReadableMemory | None = None
) -> list[str]:
    """Lines without an end. Registers and segments as Cpu and Handoff have them; what is not in them is left out, so that
    nothing is known gives no line. The GDT is shown if there is memory, and paging does not hide where it lies."""
    lines = [mode_text(registers, segments)] if registers and segments else []
    is_64 = GENERAL_64[0] in registers and ("cs" not in segments or segments["cs"].long)
    general = [f"{_name(name, is_64=is_64)} {registers[name]:#010x}" for name in (*GENERAL, *GENERAL_64) if name in registers]
    lines += ["  ".join(general[at : at + _IN_LINE]) for at in range(0, len(general), _IN_LINE)]
    if registers:
        lines.append(
            f"{_name('eip', is_64=is_64)} {registers['eip']:#x}   {bits_text('eflags', registers['eflags'], x86.EFLAGS_NAMES)}"
        )
        shown = [bits_text("cr0", registers["cr0"], x86.CR0_NAMES), bits_text("cr4", registers["cr4"], paging.CR4_NAMES)]
        shown.append(bits_text("efer", registers["efer"], paging.EFER_NAMES))
        if registers["cr3"]:
            shown.append(f"cr3 {registers['cr3']:#x}")
        lines.append("   ".join(shown))
    lines += _segment_lines(segments)
    return lines + (_gdt_lines(registers, memory) if registers else [])


def _name(register: str, *, is_64: bool) -> str:
    return f"r{register[1:]}" if is_64 and register.startswith("e") else register


def mode_text(registers: Mapping[str, int], segments: Mapping[str, Segment]) -> str:
    """In which mode a CPU is, and what is special about its code segment."""
    cs, cr0 = segments["cs"], registers["cr0"]
    based = f", CS based at {cs.base:#x}" if cs.base else ""
    paged = f"paging {'on' if cr0 & x86.CR0_PG else 'off'}"
    if not cr0 & x86.CR0_PE:
        return f"real mode{based}"
    if registers["eflags"] & x86.EFLAGS_VM:
        return f"virtual-8086 mode, {paged}"
    if registers["efer"] & paging.EFER_LMA:
        return f"long mode, {_width(cs)} code, {paged}"
    return f"protected mode, {_width(cs)} code{based}, {paged}"


def bits_text(name: str, value: int, names: Mapping[int, str]) -> str:
    """A register with the names of the bits that are set."""
    known = [word for bit, word in names.items() if value & bit]
    return " ".join([f"{name} {value:#x}", *([f"({' '.join(known)})"] if known else [])])


def _width(segment: Segment) -> str:
    return "64-bit" if segment.long else "32-bit" if segment.db else "16-bit"


def kind_text(segment: Segment) -> str:
    """What a segment register's hidden part, or a descriptor, describes."""
    if not segment.present:
        return "not present"
    if not segment.s:
        busy = segment.type & x86.TYPE_TSS_BUSY_BIT
        is_tss = segment.type | x86.TYPE_TSS_BUSY_BIT == x86.TYPE_TSS32_BUSY
        return f"{'busy' if busy else 'available'} TSS" if is_tss else f"system type {segment.type:#x}"
    if segment.type & x86.TYPE_CODE:
        rights = "readable" if segment.type & x86.TYPE_READABLE else "execute-only"
        return f"{_width(segment)} code, {rights}"
    return f"{_width(segment)} data, {'writable' if segment.type & x86.TYPE_WRITABLE else 'read-only'}"


def _segment_lines(segments: Mapping[str, Segment]) -> list[str]:
    """A line for all segment registers that hold the same."""
    alike: dict[Segment, list[str]] = {}
    for name, segment in segments.items():
        alike.setdefault(segment, []).append(name)
    width = max((len(" ".join(names)) for names in alike.values()), default=0)
    return [
        f"{' '.join(names):<{width}}  {segment.selector:#06x}  base {segment.base:#010x}  limit {segment.limit:#010x}  "
        f"{task_text(segment) if 'tr' in names else kind_text(segment)}"
        for segment, names in alike.items()
    ]


def task_text(segment: Segment) -> str:
    """The same of TR. Whether it is busy its descriptor says: on the hidden part engines do not agree, and nothing depends on
    it."""
    if segment.selector == x86.RESET_TR.selector and segment[1:3] == x86.RESET_TR[1:3]:
        return "never loaded"
    return kind_text(segment).removeprefix("busy ").removeprefix("available ")


def _gdt_lines(registers: Mapping[str, int], memory: ReadableMemory | None) -> list[str]:
    base, limit = registers["gdtr_base"], registers["gdtr_limit"]
    lines = [f"gdt at {base:#x}, limit {limit:#x}"]
    if memory is None or registers["cr0"] & x86.CR0_PG or not registers["cr0"] & x86.CR0_PE:
        return lines
    try:
        table = read_gdt(memory, base, min(limit, _DESCRIPTORS * x86.DESC_SIZE - 1))
    except BootError:  # the machine behind the memory has gone
        return lines
    lines += _rows(table)
    if limit >= _DESCRIPTORS * x86.DESC_SIZE and table:
        lines[0] += f"; the first {_DESCRIPTORS} descriptors:"
    return lines


def _rows(table: Mapping[int, Descriptor]) -> list[str]:
    return [f"  {selector:#06x}  {descriptor_text(descriptor)}" for selector, descriptor in table.items() if selector]


def gdt_text(gdt: Gdt) -> list[str]:
    """A line for the table, and one for each of its descriptors but the null descriptor; of many, the first and the last."""
    shown, hidden = cut(_rows(gdt))
    lines = (f"  … {hidden} more" if line is None else line for line in shown)
    return [f"gdt at {gdt.base:#x}, limit {gdt.limit:#x}", *lines]


def descriptor_text(descriptor: Descriptor) -> str:
    """What a descriptor describes."""
    if not descriptor.value:
        return "empty"
    segment = descriptor.segment
    return f"base {segment.base:#010x}  limit {segment.limit:#010x}  DPL {descriptor.dpl}  {kind_text(segment)}"
