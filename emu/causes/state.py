"""Rules on the CPU as the kernel gets it."""

from collections.abc import Iterator
from typing import Final

from pvhboot.shim.abi import paging, pvh, x86
from pvhboot.shim.machines import rom_span

from .scene import Cause, Scene

_DATA: Final = ("ds", "es", "ss")
_LIMIT_20: Final = 0xFFFFF  # the largest limit of a descriptor that counts bytes


def caches_off(scene: Scene) -> Cause | None:
    """CD and NW, which a reset sets, are still set."""
    if "cpu.cr0" not in scene.violated or scene.handoff is None:
        return None
    cr0 = scene.handoff.registers["cr0"]
    if not cr0 & (x86.CR0_CD | x86.CR0_NW):
        return None
    return Cause(
        "the caches are left off: CR0.CD and NW are still set",
        "A reset sets both, and they stay until somebody clears them. The kernel would run uncached, many times slower.",
        (f"cr0 {cr0:#x}", *_writers(scene, "mov cr0")),
        "write CR0 as a whole (only PE set) instead of or-ing PE into what the reset left there",
        ("cpu.cr0",),
    )


def paging_on(scene: Scene) -> Cause | None:
    """PG is still set."""
    if scene.handoff is None or not scene.handoff.registers["cr0"] & x86.CR0_PG:
        return None
    registers = scene.handoff.registers
    return Cause(
        "paging is left on",
        "A PVH kernel is entered with paging off: it makes page tables of its own.",
        (f"cr0 {registers['cr0']:#x}, cr3 {registers['cr3']:#x}", *_writers(scene, "mov cr0")),
        "clear CR0.PG, from code that is mapped to its own address, and then CR4 and EFER",
        ("cpu.cr0", "cpu.cr4"),
    )


def interrupts_on(scene: Scene) -> Cause | None:
    """IF is set."""
    if scene.handoff is None or not scene.handoff.registers["eflags"] & x86.EFLAGS_IF:
        return None
    return Cause(
        "interrupts are left on",
        "The kernel has no IDT yet: the first interrupt would be a triple fault.",
        (f"eflags {scene.handoff.registers['eflags']:#x}", *_writers(scene, "sti", "popf")),
        "execute cli before the jump to the kernel",
        ("cpu.eflags",),
    )


def _writers(scene: Scene, *texts: str) -> Iterator[str]:
    """The last instruction that begins with one of these."""
    found = [one for one in scene.history.executed if one.text.startswith(texts)]
    if found:
        yield scene.shown(found[-1])


def segments_not_loaded(scene: Scene) -> Cause | None:
    """Data segments as real mode has left them."""
    if scene.handoff is None:
        return None
    stale = [
        name
        for name in _DATA
        if f"cpu.{name}" in scene.violated
        and (segment := scene.handoff.segments[name]).limit == x86.RESET_DATA.limit
        and segment.base == segment.selector << 4
    ]
    if not stale:
        return None
    segment = scene.handoff.segments[stale[0]]
    return Cause(
        f"data segments were never loaded in protected mode: {', '.join(stale)}",
        "They still hold what real mode has put there, base and limit of 64 KiB; the first access beyond that is a fault on a "
        "real CPU. Unicorn does not enforce the limit, so a firmware comes this far with them.",
        (f"{stale[0]} {segment.selector:#06x}, base {segment.base:#x}, limit {segment.limit:#x}",),
        f"load {', '.join(stale)} with the selector of a flat data segment behind the far jump",
        tuple(f"cpu.{name}" for name in stale),
    )


def no_granularity(scene: Scene) -> Cause | None:
    """A limit that should count pages counts bytes."""
    if scene.handoff is None:
        return None
    for name in ("cs", *_DATA):
        segment = scene.handoff.segments[name]
        if f"cpu.{name}" in scene.violated and segment.limit == _LIMIT_20 and not segment.g:
            return Cause(
                f"the segment in {name} ends at 1 MiB: its descriptor lacks the G bit",
                "Without G (bit 55 of the descriptor) a limit counts bytes, and the largest is 0xfffff.",
                (f"{name} {segment.selector:#06x}, limit {segment.limit:#x}",),
                "set G in the descriptor: limit 0xfffff then means all 4 GiB",
                (f"cpu.{name}",),
            )
    return None


def unreadable_code(scene: Scene) -> Cause | None:
    """CS can be executed and not read."""
    if scene.handoff is None or "cpu.cs" not in scene.violated:
        return None
    cs = scene.handoff.segments["cs"]
    if not cs.type & x86.TYPE_CODE or cs.type & x86.TYPE_READABLE:
        return None
    return Cause(
        "the code segment cannot be read: its descriptor lacks the R bit",
        "The first load through cs, of a constant that lies beside the code, would be a #GP.",
        (f"cs {cs.selector:#06x}, type {cs.type:#x}",),
        "set bit 41 of the descriptor of the code segment",
        ("cpu.cs",),
    )


def control_bits(scene: Scene) -> Cause | None:
    """Bits of CR4 that nobody has asked for."""
    if scene.handoff is None or "cpu.cr4" not in scene.violated:
        return None
    cr4 = scene.handoff.registers["cr4"]
    names = ", ".join(name for bit, name in paging.CR4_NAMES.items() if cr4 & bit) or hex(cr4)
    return Cause(
        f"bits of CR4 are left set: {names}",
        "A PVH kernel is entered with CR4 = 0, and sets what it needs.",
        (f"cr4 {cr4:#x}", *_writers(scene, "mov cr4")),
        "mov 0 to cr4 before the jump to the kernel",
        ("cpu.cr4",),
    )


def narrow_code(scene: Scene) -> Cause | None:
    """CS is a 16-bit segment."""
    if scene.handoff is None or "cpu.cs" not in scene.violated:
        return None
    cs = scene.handoff.segments["cs"]
    if cs.db or not cs.present:
        return None
    return Cause(
        "the kernel would run as 16-bit code: the code segment's descriptor lacks the D bit",
        "A PVH kernel is 32-bit code; without D (bit 54 of the descriptor) it is decoded otherwise.",
        (f"cs {cs.selector:#06x}, base {cs.base:#x}, limit {cs.limit:#x}, 16-bit",),
        "set D in the descriptor of the code segment",
        ("cpu.cs",),
    )


def no_task_register(scene: Scene) -> Cause | None:
    """ltr was never executed."""
    if scene.handoff is None or "cpu.tr" not in scene.violated or scene.handoff.segments["tr"].selector & ~7:
        return None
    tr = scene.handoff.segments["tr"]
    return Cause(
        "TR was never loaded",
        "The ABI asks for a 32-bit TSS with base 0 and limit 0x67 in TR; this is what a reset leaves there. Linux and FreeBSD "
        "do not look at it.",
        (f"tr {tr.selector:#06x}, base {tr.base:#x}, limit {tr.limit:#x}",),
        "put a TSS descriptor into a GDT in RAM (ltr marks it busy there), and ltr its selector",
        ("cpu.tr",),
    )


def task_limit(scene: Scene) -> Cause | None:
    """The TSS has another size."""
    if scene.handoff is None or "cpu.tr" not in scene.violated:
        return None
    tr = scene.handoff.segments["tr"]
    if tr.limit == pvh.TSS_LIMIT:
        return None
    return Cause(
        f"the TSS in TR has the limit {tr.limit:#x}",
        f"The ABI asks for {pvh.TSS_LIMIT:#x}: a 32-bit TSS is {pvh.TSS_LIMIT + 1} bytes, and a limit is its last byte.",
        (f"tr {tr.selector:#06x}, base {tr.base:#x}, limit {tr.limit:#x}",),
        f"make the limit in the TSS descriptor {pvh.TSS_LIMIT:#x}",
        ("cpu.tr",),
    )


def uncached(scene: Scene) -> Cause | None:
    """The MTRRs say uncached."""
    if "cpu.mtrr" not in scene.violated:
        return None
    return Cause(
        "the memory type is left at uncached: the MTRRs were not set up",
        "After a reset the MTRRs are off, and memory is uncached. Linux then switches its page attribute table off, too.",
        (scene.violated["cpu.mtrr"],),
        "wrmsr 0x2ff (IA32_MTRR_DEF_TYPE) with 0x806: on, write-back",
        ("cpu.mtrr",),
    )


def store_to_rom(scene: Scene) -> Cause | None:
    """Who stores to the ROM."""
    if "rom.unwritten" not in scene.violated:
        return None
    stores = [(access.address, instruction) for access, instruction in scene.history.rom_stores]
    rom = rom_span(len(scene.plan.rom))
    stores += [(one.paddr, one.instruction) for one in scene.history.stores if one.span == rom.name]
    evidence = [f"{scene.shown_at(instruction)}, to {address:#x}" for address, instruction in stores[:2]]
    return Cause(
        "the firmware stores to its own ROM",
        "On a real board such a store is lost, or changes the code that is running. What is to be changed must lie in RAM: a "
        "GDT, too, whose descriptors the CPU marks as accessed or busy.",
        tuple(evidence) or (scene.violated["rom.unwritten"],),
        "copy to RAM what is to be written, and store there",
        ("rom.unwritten",),
    )


RULES: Final = (
    paging_on,
    caches_off,
    interrupts_on,
    segments_not_loaded,
    no_granularity,
    narrow_code,
    unreadable_code,
    control_bits,
    no_task_register,
    task_limit,
    store_to_rom,
    uncached,
)
