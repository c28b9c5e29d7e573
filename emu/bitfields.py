"""Registers and descriptors bit by bit: which bits each field has, what it is called, and what its value means.

Sources: Intel SDM volume 3A, 2.2.1 (IA32_EFER), 2.3 (EFLAGS), 2.5 (CR0, CR4), 3.4.2 (selectors), figures 3-8 and 8-3 (the
descriptors), tables 3-1 and 3-2 (their types), 12.11.2.1 (IA32_MTRR_DEF_TYPE).
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pvhboot.shim.abi import interrupts, paging, x86

from .descriptors import decode_descriptor


class BitField(NamedTuple):
    """Bits `high` to `low` (of a single bit the same) of a value, the name that the SDM gives them, what they hold, and what
    that means, in a few words."""

    high: int
    low: int
    name: str
    value: int
    meaning: str

    @property
    def bits(self) -> str:
        """As in "31" and "15:0"."""
        return str(self.high) if self.high == self.low else f"{self.high}:{self.low}"


# What a bit means when it is clear and when it is set.
_CR0_MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "PE": ("real mode", "protected mode"),
    "MP": ("wait ignores TS", "wait heeds TS"),
    "EM": ("there is an FPU", "FPU instructions raise #NM"),
    "TS": ("no task switch since", "the FPU's state is another task's"),
    "ET": ("the FPU is a 287", "the FPU is a 387 or later: always 1 since the P6"),
    "NE": ("FPU errors go to the PIC", "FPU errors raise #MF"),
    "WP": ("the kernel may write to read-only pages", "read-only holds for the kernel, too"),
    "AM": ("alignment is never checked", "alignment is checked if EFLAGS.AC is set"),
    "NW": ("stores are written through or back", "stores stay in the cache"),
    "CD": ("caches on", "caches off"),
    "PG": ("paging off", "paging on"),
}
_CR4_MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "PSE": ("no pages of 4 MiB", "pages of 4 MiB in page tables of 32-bit entries"),
    "PAE": ("page tables of 32-bit entries", "page tables of 64-bit entries"),
    "PGE": ("no global pages", "global pages"),
    "OSFXSR": ("SSE off", "SSE on"),
    "LA57": ("page tables of 4 levels", "page tables of 5 levels"),
}
_EFER_MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "SCE": ("no syscall", "syscall and sysret"),
    "LME": ("no long mode", "long mode once paging is on"),
    "LMA": ("not in long mode", "in long mode"),
    "NXE": ("every page can be executed", "pages can be marked not executable"),
}
_EFLAGS_MEANINGS: Final[Mapping[str, tuple[str, str]]] = {
    "CF": ("no carry", "carry"),
    "PF": ("an odd number of bits in the low byte", "an even number of bits in the low byte"),
    "AF": ("no carry out of the low 4 bits", "carry out of the low 4 bits"),
    "ZF": ("not zero", "zero"),
    "SF": ("not negative", "negative"),
    "TF": ("no single steps", "a trap after each instruction"),
    "IF": ("interrupts off", "interrupts on"),
    "DF": ("strings go upwards", "strings go downwards"),
    "OF": ("no overflow", "overflow"),
    "NT": ("iret returns within the task", "iret goes back to the task before"),
    "RF": ("instruction breakpoints count", "instruction breakpoints are passed over once"),
    "VM": ("not virtual-8086", "virtual-8086 mode"),
    "AC": ("alignment is not checked", "alignment is checked if CR0.AM is set"),
}
_REGISTERS: Final[Mapping[str, tuple[Mapping[int, str], Mapping[str, tuple[str, str]]]]] = {
    "cr0": (x86.CR0_NAMES, _CR0_MEANINGS),
    "cr4": (paging.CR4_NAMES, _CR4_MEANINGS),
    "efer": (paging.EFER_NAMES, _EFER_MEANINGS),
    "eflags": (x86.EFLAGS_NAMES, _EFLAGS_MEANINGS),
}
REGISTERS_OF_BITS: Final = tuple(_REGISTERS)

# Of system descriptors, in 32-bit mode.
_SYSTEM_TYPES: Final[Mapping[int, str]] = {
    1: "16-bit TSS, available",
    2: "LDT",
    3: "16-bit TSS, busy",
    4: "16-bit call gate",
    interrupts.GATE_TASK: "task gate",
    interrupts.GATE_INTERRUPT16: "16-bit interrupt gate",
    interrupts.GATE_TRAP16: "16-bit trap gate",
    x86.TYPE_TSS32_AVAILABLE: "32-bit TSS, available",
    x86.TYPE_TSS32_BUSY: "32-bit TSS, busy",
    12: "32-bit call gate",
    interrupts.GATE_INTERRUPT: "32-bit interrupt gate",
    interrupts.GATE_TRAP: "32-bit trap gate",
}
_MEMORY_TYPES: Final = {
    0: "uncached",
    1: "write-combining",
    4: "write-through",
    5: "write-protected",
    x86.MTRR_TYPE_WRITE_BACK: "write-back",
}


def register_fields(name: str, value: int) -> list[BitField]:
    """The bits of cr0, cr4, efer or eflags that have a name, from the highest; KeyError for another register."""
    names, meanings = _REGISTERS[name]
    fields = []
    for bit, word in sorted(names.items(), reverse=True):
        number = bit.bit_length() - 1
        is_set = bool(value & bit)
        fields.append(BitField(number, number, word, int(is_set), meanings.get(word, ("off", "on"))[is_set]))
    return fields


def selector_fields(selector: int) -> list[BitField]:
    """Index, table and requested privilege level of a selector."""
    index, is_local, rpl = selector >> x86.SELECTOR_INDEX_SHIFT, bool(selector & x86.SELECTOR_LDT), selector & x86.SELECTOR_RPL
    return [
        BitField(15, 3, "index", index, f"descriptor {index}" if index or is_local else "the null descriptor"),
        BitField(2, 2, "TI", int(is_local), "of the LDT" if is_local else "of the GDT"),
        BitField(1, 0, "RPL", rpl, f"privilege level {rpl}"),
    ]


def mtrr_def_type_fields(value: int) -> list[BitField]:
    """E, FE and type of IA32_MTRR_DEF_TYPE."""
    enabled, fixed = bool(value & x86.MTRR_DEF_TYPE_ENABLE), bool(value & x86.MTRR_DEF_TYPE_FIXED)
    kind = value & 0xFF
    return [
        BitField(11, 11, "E", int(enabled), "MTRRs on" if enabled else "MTRRs off: all memory is uncached"),
        BitField(10, 10, "FE", int(fixed), "fixed ranges on" if fixed else "fixed ranges off"),
        BitField(7, 0, "type", kind, _MEMORY_TYPES.get(kind, "reserved")),
    ]


def descriptor_fields(value: int) -> list[BitField]:
    """All 64 bits of a segment descriptor or of a 32-bit TSS's, from the highest."""

    def at(high: int, low: int) -> int:
        return value >> low & (1 << high - low + 1) - 1

    segment = decode_descriptor(0, value).segment
    fields: list[BitField] = []

    def add(high: int, low: int, name: str, meaning: Callable[[int], str] | str) -> None:
        held = at(high, low)
        fields.append(BitField(high, low, name, held, meaning if isinstance(meaning, str) else meaning(held)))

    is_system = not segment.s
    limit = f"the last byte is {segment.limit:#x}"
    if _is_expand_down(segment):
        limit = f"the first byte is behind {segment.limit:#x}"
    add(63, 56, "base 31:24", f"the base is {segment.base:#x}")
    add(55, 55, "G", lambda bit: "the limit counts 4 KiB pages" if bit else "the limit counts bytes")
    if is_system:
        add(54, 52, "reserved", "of a TSS: 0, 0 and available to software")
    else:
        add(54, 54, "D/B", _width(segment))
        add(53, 53, "L", lambda bit: "64-bit code" if bit else "not 64-bit code")
        add(52, 52, "AVL", "for software")
    add(51, 48, "limit 19:16", limit)
    add(47, 47, "P", lambda bit: "present" if bit else "not present: to load it raises #NP, to SS #SS")
    add(46, 45, "DPL", lambda level: f"privilege level {level}")
    add(44, 44, "S", lambda bit: "code or data" if bit else "system")
    add(43, 40, "type", _type_meaning(segment))
    add(39, 16, "base 23:0", f"the base is {segment.base:#x}")
    add(15, 0, "limit 15:0", limit)
    return fields


def _width(segment: x86.Segment) -> str:
    if segment.type & x86.TYPE_CODE:
        return "32-bit code" if segment.db else "64-bit code" if segment.long else "16-bit code"
    if _is_expand_down(segment):
        return "up to 4 GiB" if segment.db else "up to 64 KiB"
    return "a 32-bit stack" if segment.db else "a 16-bit stack"


def _type_meaning(segment: x86.Segment) -> str:
    kind = segment.type
    if not segment.s:
        return _SYSTEM_TYPES.get(kind, "reserved")
    accessed = ", accessed" if kind & x86.TYPE_ACCESSED else ""
    if kind & x86.TYPE_CODE:
        conforming = ", conforming" if kind & x86.TYPE_CONFORMING else ""
        return ("code, readable" if kind & x86.TYPE_READABLE else "code, execute-only") + conforming + accessed
    expand_down = ", expand-down" if _is_expand_down(segment) else ""
    return ("data, writable" if kind & x86.TYPE_WRITABLE else "data, read-only") + expand_down + accessed


def _is_expand_down(segment: x86.Segment) -> bool:
    """Of data that lie from the limit up to the end, as a stack of the 80286 may: SDM volume 3A, 6.3."""
    return segment.s and segment.type & (x86.TYPE_CODE | x86.TYPE_EXPAND_DOWN) == x86.TYPE_EXPAND_DOWN
