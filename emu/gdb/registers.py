"""The registers of a CPU as gdb wants them described and packed.

Source: GDB manual, appendix G "Target Descriptions" (G.2 the format, G.3 predefined types, G.5 "i386 Features").
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pvhboot.shim.abi import paging, x86
from pvhboot.shim.abi.x86 import ADDRESS_4G, Segment
from pvhboot.shim.errors import BootError

from ..engines.base import ENCODED, GENERAL, GENERAL_64, Cpu

MODE: Final = "cpu_bits"  # how the next instruction is decoded: the register that tells gdb's user, and the script

# By the bits of the code. gdb has one processor family with three decoders.
ARCHITECTURES: Final = {16: "i8086", 32: "i386", 64: "i386:x86-64"}
_FLAGS: Final = {
    "eflags": ("i386_eflags", 4, x86.EFLAGS_NAMES),
    "cr0": ("cr0_bits", 4, x86.CR0_NAMES),
    "cr4": ("cr4_bits", 4, paging.CR4_NAMES),
    "efer": ("efer_bits", 8, paging.EFER_NAMES),
}


class Register(NamedTuple):
    """A register of gdb's: its name there, its bits, its type, the feature of the description that has it, and the name by
    which Cpu.registers or a segment knows it ("" for one that is not told)."""

    name: str
    bits: int
    type: str
    feature: str
    source: str


_CORE: Final = "org.gnu.gdb.i386.core"
_SYSTEM: Final = "pvhboot.system"
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
_FPU_CONTROL: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_POINTERS: Final = {"bp": "data_ptr", "sp": "data_ptr", "ip": "code_ptr"}
_ORDER_32: Final = (*(name[1:] for name in ENCODED), "ip")
_ORDER_64: Final = tuple(name[1:] for name in GENERAL)
_WRITABLE: Final = frozenset((*(f"e{name}" for name in _ORDER_32), *GENERAL_64, "eflags"))


def described_registers(bits: int) -> list[Register]:
    """All registers in the order of their numbers, for 16-, 32- or 64-bit code."""

    def general(name: str) -> Register:
        letter, width = ("r", 64) if bits == 64 else ("e", 32)
        return Register(f"{letter}{name}", width, _POINTERS.get(name, f"int{width}"), _CORE, f"e{name}")

    if bits == 64:
        core = [*map(general, _ORDER_64), *(Register(name, 64, "int64", _CORE, name) for name in GENERAL_64), general("ip")]
    else:
        core = [*map(general, _ORDER_32)]
    core.append(Register("eflags", 32, "i386_eflags", _CORE, "eflags"))
    core += [Register(name, 32, "int32", _CORE, name) for name in _SEGMENTS]
    # gdb refuses a description without them.
    core += [Register(f"st{number}", 80, "i387_ext", _CORE, "") for number in range(8)]
    core += [Register(name, 32, "int", _CORE, "") for name in _FPU_CONTROL]
    system = [Register(MODE, 32, "uint32", _SYSTEM, MODE)]
    system += [Register(f"{name}_base", 64, "uint64", _SYSTEM, f"{name}_base") for name in _SEGMENTS]
    system += [Register(f"{name}_limit", 32, "uint32", _SYSTEM, f"{name}_limit") for name in _SEGMENTS]
    system += [Register("tr", 32, "uint32", _SYSTEM, "tr"), Register("tr_base", 64, "uint64", _SYSTEM, "tr_base")]
    system += [Register("gdtr_base", 64, "uint64", _SYSTEM, "gdtr_base")]
    system += [Register("gdtr_limit", 32, "uint32", _SYSTEM, "gdtr_limit")]
    system += [Register("cr0", 32, "cr0_bits", _SYSTEM, "cr0"), Register("cr3", 64, "uint64", _SYSTEM, "cr3")]
    system += [Register("cr4", 32, "cr4_bits", _SYSTEM, "cr4"), Register("efer", 64, "efer_bits", _SYSTEM, "efer")]
    return core + system


def target_description(bits: int) -> bytes:
    """target.xml for 16-, 32- or 64-bit code."""
    registers = described_registers(bits)
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        '<target version="1.0">',
        f"<architecture>{ARCHITECTURES[bits]}</architecture>",
        "<osabi>none</osabi>",
    ]
    for feature in dict.fromkeys(register.feature for register in registers):
        lines.append(f'<feature name="{feature}">')
        members = [register for register in registers if register.feature == feature]
        types = {register.type for register in members}
        lines += [line for kind, size, names in _FLAGS.values() if kind in types for line in _flags(kind, size, names)]
        lines += [_element(register, registers.index(register)) for register in members]
        lines.append("</feature>")
    return "\n".join([*lines, "</target>", ""]).encode()


def _flags(kind: str, size: int, names: Mapping[int, str]) -> Iterator[str]:
    yield f'<flags id="{kind}" size="{size}">'
    for bit, name in names.items():
        number = bit.bit_length() - 1
        yield f'<field name="{name}" start="{number}" end="{number}"/>'
    yield "</flags>"


def _element(register: Register, number: int) -> str:
    return f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}" regnum="{number}"/>'


class RegisterFile:
    """A CPU's registers, described for code of `bits`. In 16- and 32-bit code the instruction pointer is linear: it includes
    the base of CS, so that a breakpoint at a label is where the CPU is seen to stop, in the reset state, too."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.registers = described_registers(bits)
        self._general = [register for register in self.registers if register.feature == _CORE and register.source]

    def pack(self, cpu: Cpu) -> bytes:
        """General registers, flags and selectors, in hexadecimal. gdb asks for all others one by one. Of any x86 it expects as
        many bytes, or more, which lets it change from one description to another."""
        values = _values(cpu)
        return b"".join(_packed(register, values.get(register.source)) for register in self._general)

    def pack_one(self, cpu: Cpu, number: int) -> bytes:
        """The register of that number, `x` for what is not told; IndexError if there is none."""
        register = self.registers[number]
        return _packed(register, _values(cpu).get(register.source))

    def write(self, cpu: Cpu, number: int, packed: bytes) -> None:
        """Stores to a register what gdb has packed. BootError for one that cannot be written; ValueError and IndexError for
        what is no register's value, or no register."""
        register = self.registers[number]
        data = bytes.fromhex(packed.decode())
        if len(data) * 8 != register.bits:
            raise ValueError(f"{len(data)} bytes for {register.name}")
        name, value = self._checked(cpu, register, int.from_bytes(data, "little"))
        cpu.set_register(name, value)

    def write_all(self, cpu: Cpu, packed: bytes) -> None:
        """The same with all that `pack` gives, of which only what differs is written, all or nothing."""
        before = self.pack(cpu)
        if len(packed) != len(before):
            raise ValueError(f"{len(packed)} characters for registers that take {len(before)}")
        changed, at = [], 0
        for register in self._general:
            end = at + register.bits // 4
            if packed[at:end].lower() != before[at:end]:
                value = int.from_bytes(bytes.fromhex(packed[at:end].decode()), "little")
                changed.append(self._checked(cpu, register, value))
            at = end
        for name, value in changed:
            cpu.set_register(name, value)

    def _checked(self, cpu: Cpu, register: Register, value: int) -> tuple[str, int]:
        """The name by which the CPU knows it, and the value as it has it."""
        if register.source not in _WRITABLE:
            raise BootError(f"{register.name} cannot be written")
        if self.bits != 64 and cpu.bits == 64:
            raise BootError("the CPU executes 64-bit code: gdb knows the lower halves of its registers only")
        if register.source == "eip" and cpu.bits != 64:
            cs = cpu.segments()["cs"]
            value = (value - cs.base) % ADDRESS_4G
            if value > cs.limit:
                raise BootError(f"{value + cs.base:#x} is beyond the limit of CS")
        return register.source, value


def _values(cpu: Cpu) -> dict[str, int]:
    registers, segments = cpu.registers(), cpu.segments()
    values = {**registers, MODE: cpu.bits, "eip": cpu.linear_ip()}
    for name, segment in segments.items():
        values |= _segment_values(name, segment)
    return values


def _segment_values(name: str, segment: Segment) -> dict[str, int]:
    return {name: segment.selector, f"{name}_base": segment.base, f"{name}_limit": segment.limit}


def _packed(register: Register, value: int | None) -> bytes:
    size = register.bits // 8
    if value is None:
        return b"xx" * size
    return (value & (1 << register.bits) - 1).to_bytes(size, "little").hex().encode()
