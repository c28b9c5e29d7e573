"""The clauses on the CPU and the ROM. Source: Xen docs/misc/pvh.pandoc, "Machine state"."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pvhboot.shim.abi import pvh, x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.machines import rom_span

from .handoff import Handoff
from .subject import Clause, Subject


def _entry(subject: Subject) -> Iterator[str]:
    eip = subject.handoff.registers["eip"]
    if eip != subject.plan.entry:
        yield f"eip is {eip:#x}, the kernel's entry {subject.plan.entry:#x}"


def _cr0(subject: Subject) -> Iterator[str]:
    cr0 = subject.handoff.registers["cr0"]
    if not cr0 & x86.CR0_PE:
        yield f"PE is clear (cr0 = {cr0:#x})"
    extra = cr0 & ~(x86.CR0_PE | x86.CR0_ET)
    if extra:
        names = [name for bit, name in x86.CR0_NAMES.items() if extra & bit]
        yield f"{', '.join(names) or hex(extra)} set (cr0 = {cr0:#x}); every bit but PE must be clear"


def _cr4(subject: Subject) -> Iterator[str]:
    cr4 = subject.handoff.registers["cr4"]
    if cr4:
        yield f"cr4 is {cr4:#x}, not 0"


def _eflags(subject: Subject) -> Iterator[str]:
    eflags = subject.handoff.registers["eflags"]
    for name, bit in (("VM", x86.EFLAGS_VM), ("IF", x86.EFLAGS_IF), ("TF", x86.EFLAGS_TF)):
        if eflags & bit:
            yield f"{name} is set (eflags = {eflags:#x})"


def _flat(segment: Segment, code: bool) -> Iterator[str]:
    if not segment.present or not segment.s:
        yield "is no present code or data segment"
        return
    if segment.base:
        yield f"has base {segment.base:#x}, not 0"
    if segment.limit != x86.FLAT_LIMIT:
        yield f"has limit {segment.limit:#x}, not {x86.FLAT_LIMIT:#x}"
    if not segment.db or segment.long:
        yield "is not 32-bit"
    is_code = bool(segment.type & x86.TYPE_CODE)
    if is_code != code:
        yield "is no code segment" if code else "is a code segment"
    elif not segment.type & (x86.TYPE_READABLE if code else x86.TYPE_WRITABLE):
        yield "is not readable" if code else "is not writable"


def _segment_clause(name: str) -> Callable[[Subject], Iterator[str]]:
    def clause(subject: Subject) -> Iterator[str]:
        for problem in _flat(subject.handoff.segments[name], name == "cs"):
            yield f"{name} {problem}"

    return clause


def _tr(subject: Subject) -> Iterator[str]:
    tr = subject.handoff.segments["tr"]
    if not tr.selector & ~7:
        yield "TR was never loaded (null selector)"
    if tr.base:
        yield f"its base is {tr.base:#x}, not 0"
    if tr.limit != pvh.TSS_LIMIT:
        yield f"its limit is {tr.limit:#x}, not {pvh.TSS_LIMIT:#x}"
    # KVM shows the busy type; Unicorn and QEMU's TCG keep what the descriptor said before ltr.
    if not tr.present or tr.s or tr.type not in (x86.TYPE_TSS32_BUSY, x86.TYPE_TSS32_AVAILABLE):
        yield "it is no present 32-bit TSS"
    elif tr.type == x86.TYPE_TSS32_AVAILABLE and tr.selector & ~7 and not _busy_in_memory(subject.handoff):
        yield "its descriptor is not marked busy"


def _busy_in_memory(handoff: Handoff) -> bool:
    at = handoff.registers["gdtr_base"] + (handoff.segments["tr"].selector & ~7)
    data = handoff.try_read(at, x86.DESC_SIZE)
    if data is None:
        return False
    return bool(int.from_bytes(data, "little") >> x86.DESC_TYPE_SHIFT & x86.TYPE_TSS_BUSY_BIT)


def _mtrr(subject: Subject) -> Iterator[str] | None:
    handoff = subject.handoff
    if handoff.has_mtrr is None or (handoff.has_mtrr and handoff.mtrr_def_type is None):
        return None
    wanted = x86.MTRR_DEF_TYPE_WRITE_BACK
    if handoff.has_mtrr and handoff.mtrr_def_type != wanted:
        return iter((f"MTRRdefType is {handoff.mtrr_def_type:#x}, not {wanted:#x}: memory is not write-back by default",))
    return iter(())


def _rom(subject: Subject) -> Iterator[str]:
    for access in subject.handoff.rom_writes[:4]:
        yield f"{access.size} bytes stored to the ROM at {access.address:#x}"
    # Where stores are not seen, the contents tell. A firmware that is not ours may well keep variables in a ROM that is none.
    if subject.plan.spec.rom_writable and subject.plan.memmap is None:
        return
    wanted = subject.plan.rom
    rom = rom_span(len(wanted))
    found = subject.handoff.try_read(rom.start, rom.size)
    if found is not None and found != wanted:
        changed = [at for at, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other]
        yield f"{len(changed)} bytes of the ROM have changed, the first at {rom.start + changed[0]:#x}"


CPU_CLAUSES: Final[Mapping[str, Clause]] = {
    "entry.eip": _entry,
    "cpu.cr0": _cr0,
    "cpu.cr4": _cr4,
    "cpu.eflags": _eflags,
    **{f"cpu.{name}": _segment_clause(name) for name in ("cs", "ds", "es", "ss")},
    "cpu.tr": _tr,
    "cpu.mtrr": _mtrr,
    "rom.unwritten": _rom,
}
