"""What an instruction did, in words, where it is more than arithmetic: modes, descriptor tables, segments, model-specific
registers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pvhboot.shim.abi import x86
from pvhboot.shim.abi.interrupts import REAL_VECTOR_SIZE

from ..bitfields import REGISTERS_OF_BITS, mtrr_def_type_fields, register_fields
from ..disassembly import words_of
from ..engines.base import STATE_SEGMENTS
from ..trace import EFLAGS, Record

_MSRS: Final = {number: name for name, number in x86.KEPT_MSRS.items()}
_TOLD_FLAGS: Final = x86.EFLAGS_IF | x86.EFLAGS_DF  # of EFLAGS: the others change with every sum
_STRINGS: Final[Mapping[str, str]] = {"movs": "copies", "stos": "fills", "cmps": "compares", "scas": "searches"}
_SIZES: Final[Mapping[str, int]] = {"b": 1, "w": 2, "d": 4, "q": 8}


def says(record: Record, before: Mapping[str, int]) -> str:
    """A short phrase; empty: nothing that its text and its effects do not tell. `before` is the state in front of it."""
    return "; ".join(_parts(record, before))


def _parts(record: Record, before: Mapping[str, int]) -> Iterator[str]:
    name = words_of(record.text).name
    changes = record.changes
    for table in ("gdtr", "idtr"):
        if name.startswith(f"l{table[:3]}"):
            base, limit = (changes.get(f"{table}_{part}", before[f"{table}_{part}"]) for part in ("base", "limit"))
            size = REAL_VECTOR_SIZE if table == "idtr" and not before["cr0"] & x86.CR0_PE else x86.DESC_SIZE
            yield f"loads {table.upper()}: base {base:#x}, limit {limit:#x}, {(limit + 1) // size} entries"
    for register in REGISTERS_OF_BITS:
        if register in changes:
            yield from _bits(register, before[register], changes[register])
    loaded = [segment for segment in STATE_SEGMENTS if segment in changes]
    for segment in loaded:
        protected = changes.get("cr0", before["cr0"]) & x86.CR0_PE
        base, limit = (changes.get(f"{segment}_{part}", before[f"{segment}_{part}"]) for part in ("base", "limit"))
        how = f"from descriptor {changes[segment] >> x86.SELECTOR_INDEX_SHIFT}" if protected else "as in real mode"
        yield f"loads {segment.upper()} {how}: base {base:#x}, limit {limit:#x}"
    if name == "wrmsr":
        yield _wrmsr(before)
    if (tell := _PLAIN.get(name)) is not None:
        yield tell(record)
    if record.times != 1 and name[:-1] in _STRINGS:
        yield f"{_STRINGS[name[:-1]]} {record.times * _SIZES.get(name[-1], 1)} bytes"


def _bits(register: str, old: int, new: int) -> Iterator[str]:
    told = (old ^ new) & (_TOLD_FLAGS if register == EFLAGS else -1)
    for field in register_fields(register, new) if told else ():
        if told >> field.low & 1:
            yield f"{'sets' if field.value else 'clears'} {register.upper()}.{field.name}: {field.meaning}"


def _wrmsr(before: Mapping[str, int]) -> str:
    number = before["ecx"] & 0xFFFFFFFF
    value = (before["edx"] & 0xFFFFFFFF) << 32 | before["eax"] & 0xFFFFFFFF
    known = _MSRS.get(number, f"MSR {number:#x}")
    meanings = [field.meaning for field in mtrr_def_type_fields(value)] if number == x86.MSR_MTRR_DEF_TYPE else []
    return f"writes {known}: {value:#x}" + (f" ({', '.join(meanings)})" if meanings else "")


_PLAIN: Final[Mapping[str, Callable[[Record], str]]] = {
    "hlt": lambda _record: "halts until an interrupt",
    "cpuid": lambda _record: "asks the CPU what it is",
    "wbinvd": lambda _record: "writes the caches back and empties them",
    **dict.fromkeys(("iret", "iretd", "iretq"), lambda _record: "returns from an interrupt or an exception"),
}
