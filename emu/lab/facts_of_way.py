"""Facts on the way from real mode to flat 32-bit code, of a boot that has not come to the kernel."""

from collections.abc import Callable, Iterator
from typing import Final

from pvhboot.shim.abi import x86
from pvhboot.shim.machines import rom_span

from ..causes.scene import Scene
from ..causes.segments import loaded_selector
from ..descriptors import Descriptor, read_descriptor
from ..instruction import MEMORY, Instruction
from ..trace import Record
from .fact import Fact, done_by
from .facts_of_cpu import DATA, never_loaded, segment_fact
from .past import Past, name_of

_BASE_24: Final = 0xFFFFFF
_LJMP_DIRECT: Final = 0xEA
_FAR: Final = ("ljmp", "lcall", "retf")


def _paging(past: Past, scene: Scene) -> Fact | None:
    """Paging was turned on, which the ABI does not want, and pvhboot's firmwares never do."""
    switch = past.last_change("cr0")
    if not scene.known or switch is None or not switch.changes["cr0"] & x86.CR0_PG:
        return None
    cr0, cr3 = switch.changes["cr0"], past.state_before(switch.number)["cr3"]
    return done_by(past, f"CR0 is {cr0:#x}: PG is 1, not 0, with CR3 at {cr3:#x}", switch)


def _gdt_base(past: Past, scene: Scene) -> Fact | None:
    record, switch = past.last_change("gdtr_base"), past.last_change("cr0")
    if not scene.known:
        return None
    if record is None:
        what = f"GDTR is as the reset has left it, with the base {scene.registers['gdtr_base']:#x}: no lgdt was executed"
        return done_by(past, what, switch)._replace(where="") if scene.protected and _lgdt(past) is None else None
    base = record.changes["gdtr_base"]
    whole = next((at for at in _same_24_bits(scene, base) if at != base), None)
    if base > _BASE_24 or whole is None:
        return None
    first = x86.DESC_SIZE  # behind the null descriptor
    there = scene.read(whole + first, first)
    if there == scene.read(base + first, first) or not there or not any(there):
        return None
    return done_by(past, f"GDTR's base is {base:#010x}, not {whole:#010x}", record)


def _lgdt(past: Past) -> Record | None:
    """The last one."""
    return past.last(lambda record: name_of(record) in ("lgdt", "lgdtd"))


def _same_24_bits(scene: Scene, base: int) -> Iterator[int]:
    """The addresses in the ROM that have the same lower 24 bits."""
    rom = rom_span(len(scene.plan.rom))
    for high in range(rom.start & ~_BASE_24, rom.end, _BASE_24 + 1):
        if rom.start <= high | base < rom.end:
            yield high | base


def _real_mode_jump(past: Past, scene: Scene) -> Fact | None:
    """A far jump before protected mode is on."""
    jump = next((record for record in past.records if "cs" in record.changes and name_of(record).startswith(_FAR)), None)
    if jump is None or not scene.known:
        return None
    cr0 = past.state_before(jump.number)["cr0"]
    if cr0 & x86.CR0_PE:
        return None
    return done_by(past, f"CR0 is {cr0:#x} at the far jump: PE is 0, not 1, so that it is one of real mode", jump)


def _far_jump(past: Past, scene: Scene) -> Fact | None:
    record = past.last_change("cs")
    if record is None or record.bits != 16 or record.code[:1] != bytes((_LJMP_DIRECT,)):
        return None
    target = int.from_bytes(record.code[1:3], "little")
    meant = target | x86.RESET_CS_BASE
    if not scene.in_rom(meant) or (past.records[-1] is not record and scene.in_rom(past.records[record.number].address)):
        return None
    place = scene.blob.locate(meant)
    named = f", where {place.symbol} is" if place is not None and not place.offset else ""
    return done_by(past, f"the far jump goes to {target:#x}, not to {meant:#x}{named}", record)


def _no_far_jump(past: Past, scene: Scene) -> Fact | None:
    """Protected mode is on, and CS is real mode's."""
    switch = past.last_change("cr0")
    if switch is None or past.last_change("cs") is not None or not scene.protected:
        return None
    behind = past.records[switch.number : switch.number + 1]
    if not behind or name_of(behind[0]).startswith(_FAR):
        return None
    what = "CS is still real mode's, 16-bit code, in protected mode: no far jump was executed"
    return done_by(past, what, behind[0], f"{name_of(behind[0])}, which is none,")


def _task_switch(past: Past, scene: Scene) -> Fact | None:
    """A far jump to a TSS, which an engine has taken."""
    jump = past.last_change("tr")
    if not scene.known or jump is None or not name_of(jump).startswith(_FAR):
        return None
    what = f"selector {jump.changes['tr']:#x} is that of a TSS, and no code segment's: the far jump switches tasks"
    return done_by(past, what, jump)


def _not_flat(past: Past, scene: Scene) -> Fact | None:
    """A segment that was loaded in protected mode, and is not as flat 32-bit code needs it."""
    if not scene.known or not scene.protected or past.last_change("cs") is None:
        return None
    for name in ("cs", *DATA):
        segment = scene.segments[name]
        if not segment.selector or past.last_change(name) is None:
            continue
        if segment.base:
            return segment_fact(past, scene.segments, name, f"{name} has base {segment.base:#x}, not 0")
        if name == "cs" and not segment.db:
            return segment_fact(past, scene.segments, name, "cs is 16-bit code: D (bit 54) of its descriptor is 0, not 1")
    return None


def _selector(past: Past, scene: Scene) -> Fact | None:
    """A selector that could not be loaded: for want of a limit, or of a bit in its descriptor."""
    one = scene.instruction
    loaded = None if one is None or not scene.known or not scene.faulted or not scene.protected else loaded_selector(scene, one)
    if loaded is None or one is None or scene.memory is None:
        return None
    register, selector = loaded
    by = _by(scene, one)
    now = past.records[-1].number if past.records and past.records[-1].address == one.address else past.end
    if selector & x86.SELECTOR_LDT:
        what = f"{register} is loaded with selector {selector:#x}: its bit 2 is 1, not 0, and there is no LDT"
        return Fact(what, by, now)
    index = selector & ~x86.SELECTOR_RPL
    base, limit, last = scene.registers["gdtr_base"], scene.registers["gdtr_limit"], index + x86.DESC_SIZE - 1
    descriptor = read_descriptor(scene.memory, base, selector)
    if not index and register in ("cs", "ss", "tr"):
        return Fact(f"{register} is loaded with the null selector", by, now)
    if not index or descriptor is None:
        return None
    if limit < last:
        known = descriptor.value and descriptor.segment.present
        more = (
            f"and the descriptor of selector {selector:#x} ends at {last:#x}" if known else f"and {selector:#x} lies behind it"
        )
        return done_by(past, f"GDTR's limit is {limit:#x}, {more}", _lgdt(past))
    fault = _descriptor_fault(register, descriptor)
    if fault is None and (level := selector & x86.SELECTOR_RPL) > descriptor.dpl and register != "tr":
        what = f"{register} is loaded with selector {selector:#x}: its RPL is {level}, not {descriptor.dpl}"
        return Fact(what, by, now)
    if fault is None:
        return None
    place = scene.blob.locate(base + index)
    if not descriptor.value and place is None:
        what = f"GDTR's base is {base:#x}, and where selector {selector:#x} leads to, at {base + index:#x}, there are zeros"
        return done_by(past, what, _lgdt(past))
    where = f"loaded by {by}" if place is None else f"it stands at {place.source}; loaded by {by}"
    return Fact(f"the descriptor of selector {selector:#x} is {descriptor.value:#018x}: {fault}", where, now)


def _by(scene: Scene, one: Instruction) -> str:
    """The instruction at the end: its name with its source line."""
    place = scene.blob.locate(one.address)
    return f"{one.mnemonic} at {hex(one.address) if place is None else place.source}"


def _descriptor_fault(register: str, descriptor: Descriptor) -> str | None:
    segment = descriptor.segment
    if not segment.present:
        return "P (bit 47) is 0, not 1"
    if register == "cs" and not (segment.s and segment.type & x86.TYPE_CODE):
        return "no code segment"
    if register == "ss" and not (segment.s and not segment.type & x86.TYPE_CODE and segment.type & x86.TYPE_WRITABLE):
        return "no data segment that can be written"
    if register == "tr" and (segment.s or segment.type != x86.TYPE_TSS32_AVAILABLE):
        return f"its type is {segment.type:#x}, not {x86.TYPE_TSS32_AVAILABLE:#x}, an available TSS"
    return None


def _limit(past: Past, scene: Scene) -> Fact | None:
    """A fault in flat code, with data segments that nobody has loaded, or that end too early."""
    one = scene.instruction
    if not scene.known or not scene.faulted or not scene.protected or not scene.segments["cs"].db or one is None:
        return None
    if loaded_selector(scene, one) is not None:
        return None
    real = x86.RESET_DATA.limit
    if stale := [name for name in DATA if past.last_change(name) is None and scene.segments[name].limit == real]:
        return never_loaded(past, stale, real)
    for operand in one.operands:
        name = "ss" if operand.name in ("esp", "ebp") else "ds"
        limit = scene.segments[name].limit
        if operand.kind == MEMORY and operand.value is not None and operand.value > limit:
            alike = [name for name in DATA if scene.segments[name].limit == limit]
            what = f"has limit {limit:#x}, not {x86.FLAT_LIMIT:#x}"
            facts = [segment_fact(past, scene.segments, name, f"{name} {what}") for name in alike]
            return min(facts, key=lambda fact: fact.number)
    return None


WAY: Final[tuple[Callable[[Past, Scene], Fact | None], ...]] = (
    _paging,
    _gdt_base,
    _real_mode_jump,
    _far_jump,
    _no_far_jump,
    _task_switch,
    _not_flat,
    _selector,
    _limit,
)
"""One function for each."""
