"""The CPU as the monitor's `info registers` prints it (QEMU target/i386/cpu-dump.c)."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import ADDRESS_4G, EFLAGS_IF, SEGMENT_NAMES, Segment, segment_from_attributes
from pvhboot.shim.errors import BootError

from ..base import GENERAL

_NUMBER: Final = re.compile(r"\b([A-Z]+[0-9]?) ?=([0-9a-f]+)(?![0-9a-f])")
_SEGMENT: Final = re.compile(r"^([A-Z]{2,3}) *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE)
_TABLE: Final = re.compile(r"^GDT= +([0-9a-f]+) ([0-9a-f]+)", re.MULTILINE)
_BYTE: Final = re.compile(r" 0x([0-9a-f]{2})\b")


class CpuState(NamedTuple):
    """Registers and segments as Handoff has them; in 64-bit mode the values are those of the full registers."""

    registers: Mapping[str, int]
    segments: Mapping[str, Segment]
    halted: bool

    @property
    def linear_ip(self) -> int:
        """The linear address of the next instruction."""
        cs, rip = self.segments["cs"], self.registers["eip"]
        return rip if cs.long else (cs.base + rip) % ADDRESS_4G

    @property
    def bits(self) -> int:
        """16, 32 or 64: how the next instruction is decoded."""
        cs = self.segments["cs"]
        return 64 if cs.long else 32 if cs.db else 16

    @property
    def dead(self) -> bool:
        """Halted, and no interrupt will ever be taken."""
        return self.halted and not self.registers["eflags"] & EFLAGS_IF


def parse_registers(text: str) -> CpuState:
    """Reads the dump; BootError if it is not of the known form."""
    numbers = {name: int(value, 16) for name, value in _NUMBER.findall(text)}
    try:
        segments = {
            name.lower(): segment_from_attributes(*(int(field, 16) for field in fields))
            for name, *fields in _SEGMENT.findall(text)
            if name.lower() in (*SEGMENT_NAMES, "tr")
        }
        prefix = "R" if "RIP" in numbers else "E"
        registers = {name: numbers[prefix + name[1:].upper()] for name in GENERAL}
        registers |= {"eip": numbers[prefix + "IP"], "eflags": numbers.get("RFL", numbers.get("EFL", 0))}
        registers |= {name: numbers[name.upper()] for name in ("cr0", "cr3", "cr4", "efer")}
        table = _TABLE.search(text)
        assert table is not None
        registers |= {"gdtr_base": int(table[1], 16), "gdtr_limit": int(table[2], 16)}
        assert set(segments) == {*SEGMENT_NAMES, "tr"}
    except (KeyError, AssertionError):
        raise BootError("this QEMU prints its registers in an unknown form: QEMU 5 and later are known to work") from None
    return CpuState(registers, segments, bool(numbers.get("HLT")))


def parse_bytes(text: str) -> bytes:
    """Reads what the monitor's `x/…xb` prints; none of what it cannot access."""
    return bytes(int(value, 16) for value in _BYTE.findall(text))
