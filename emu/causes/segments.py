"""Rules on descriptor tables, selectors, and the way from real mode to protected mode."""

from typing import Final

from pvhboot.shim.abi import x86
from pvhboot.shim.machines import low_rom_span

from ..descriptors import Descriptor, decode_descriptor
from ..instruction import IMMEDIATE, REGISTER, Instruction
from .scene import Cause, Scene

_FAR: Final = ("ljmp", "lcall")
_FAR_RETURNS: Final = ("retf", "iret", "iretd")
_HIGH: Final = 0xFF000000  # of an address in the ROM: what 24 bits lose
_SELECTOR_BITS: Final = x86.SELECTOR_RPL | x86.SELECTOR_LDT


def _in_real_mode_code(scene: Scene) -> bool:
    """CS still has the hidden part that real mode has given it."""
    cs = scene.segments["cs"]
    return not cs.db and not cs.long and cs.base in (x86.RESET_CS_BASE, cs.selector << 4)


def no_far_jump(scene: Scene) -> Cause | None:
    """CR0.PE was set, and the code behind is still decoded as that of 16 bits."""
    if not scene.known or not scene.protected or not _in_real_mode_code(scene):
        return None
    executed = scene.history.executed
    switch = next((at for at in reversed(range(len(executed))) if executed[at].text.startswith("mov cr0")), None)
    since = executed[switch + 1 :] if switch is not None else executed
    next_one = scene.instruction
    if next_one is not None and next_one.mnemonic in (*_FAR, *_FAR_RETURNS) and _is_meant(scene, next_one):
        return None
    if not since and not scene.faulted:
        return None
    cs = scene.segments["cs"]
    evidence = [f"cs {cs.selector:#06x}, base {cs.base:#x}: 16-bit code, as real mode has left it"]
    if switch is not None:
        evidence.insert(0, scene.shown(executed[switch]))
    if since:
        evidence.append(f"decoded as 16-bit code then: {scene.shown(since[0])}")
    return Cause(
        "no far jump after CR0.PE was set",
        "Protected mode is on, but CS still holds what real mode has put there: only a far jump loads a code segment from the "
        "GDT. Until then all code is decoded as 16-bit code, the 32-bit code that follows, too.",
        tuple(evidence),
        "put a far jump (ljmp SELECTOR, label) right behind the mov to cr0, and the 32-bit code at its label",
    )


def _is_meant(scene: Scene, one: Instruction) -> bool:
    """Whether somebody has written this far transfer: 32-bit code, decoded as 16-bit code, has any selector."""
    if any(line.address == one.address and one.mnemonic in line.text for line in scene.blob.listing):
        return True
    loaded = loaded_selector(scene, one)
    return loaded is None or not loaded[1] & _SELECTOR_BITS


def cut_gdt_base(scene: Scene) -> Cause | None:
    """An lgdt without operand size prefix in 16-bit code loads 24 bits of the base."""
    if not scene.known or not scene.in_firmware:
        return None
    base, whole = scene.registers["gdtr_base"], scene.registers["gdtr_base"] | _HIGH
    if base >= 1 << 24 or not base or not scene.in_rom(whole):
        return None
    first = x86.DESC_SIZE
    here, there = scene.read(base + first, first), scene.read(whole + first, first)
    if here == there or not there or not any(there):
        return None
    return Cause(
        "lgdt has loaded only 24 bits of the GDT's address",
        f"GDTR points to {base:#x}, where no GDT is; {whole:#x}, which has the same lower 24 bits, is in the ROM and holds "
        "descriptors. With a 16-bit operand size lgdt drops the upper 8 bits of the base.",
        (f"gdtr base {base:#x}, limit {scene.registers['gdtr_limit']:#x}", f"at {whole + first:#x}: {there.hex(' ')}"),
        "use the 32-bit form in 16-bit code: lgdtd, or data32 lgdt (bytes 66 0f 01 /2)",
    )


def cut_far_jump(scene: Scene) -> Cause | None:
    """A far jump with a 16-bit offset, into a ROM that lies above 64 KiB."""
    if not scene.in_firmware or not scene.history.exits or (scene.known and not scene.protected):
        return None
    jump = scene.history.exits[-1]
    wanted = jump.target | x86.RESET_CS_BASE
    code = scene.read_linear(jump.origin, 5)
    if jump.target >= x86.REAL_SEGMENT or not scene.in_rom(wanted) or code is None or code[0] != 0xEA:
        return None
    return Cause(
        "the far jump's offset is cut to 16 bits",
        f"The far jump went to {jump.target:#x}: its operand has 16 bits, and the flat segment that it loads begins at 0. The "
        f"code that was meant lies at {wanted:#x}.",
        (f"{scene.at(jump.origin)}: {code.hex(' ')}, to {jump.target:#x}", f"the same lower 16 bits: {scene.at(wanted)}"),
        "give the jump a 32-bit offset: data32 ljmp SELECTOR, label (bytes 66 ea)",
    )


def real_mode_far_jump(scene: Scene) -> Cause | None:
    """A far jump in real mode gives up the base of CS that only a reset gives."""
    if not scene.known or scene.protected or not scene.in_firmware or not scene.history.exits:
        return None
    jump, cs = scene.history.exits[-1], scene.segments["cs"]
    others = scene.machines_with_rom_at(jump.target)
    low = low_rom_span(scene.plan.spec, len(scene.plan.rom))
    if cs.base != cs.selector << 4 or (low is not None and low.start <= jump.target < low.end):
        return None
    return Cause(
        "a far jump in real mode has left the ROM",
        "After a reset CS is based at 0xffff0000, where the ROM is. A far jump in real mode bases it at 16 times the selector "
        f"instead, below 1 MiB, and {scene.plan.spec.name} has no copy of this firmware at {jump.target:#x}.",
        (scene.shown_at(jump.origin), f"it went to {jump.target:#x}; cs {cs.selector:#06x}, base {cs.base:#x}"),
        "keep to near jumps until protected mode is on, or jump to where the ROM has its low copy"
        + (f"; if this is a firmware for another machine, boot it there: --machine {', '.join(others)}?" if others else ""),
    )


def bad_selector(scene: Scene) -> Cause | None:
    """A selector that cannot be loaded: of no descriptor, or of one that is not as it must be."""
    one = scene.instruction
    if not scene.known or not scene.faulted or not scene.protected or one is None:
        return None
    loaded = loaded_selector(scene, one)
    if loaded is None:
        return None
    register, selector = loaded
    base, limit = scene.registers["gdtr_base"], scene.registers["gdtr_limit"]
    evidence = [f"{scene.at(one.address)}: {one.text}", f"gdtr base {base:#x}, limit {limit:#x}"]
    index = selector & ~_SELECTOR_BITS
    if not index:
        if register not in ("cs", "ss", "tr"):
            return None
        return Cause(
            f"a null selector is loaded into {register}",
            f"Selector {selector:#x} names no descriptor, and {register} must have one.",
            tuple(evidence),
            "load a selector of the GDT: the number of the descriptor times 8",
        )
    if selector & x86.SELECTOR_LDT:
        return None
    data = scene.read(base + index, x86.DESC_SIZE)
    descriptor = None if data is None else decode_descriptor(selector, int.from_bytes(data, "little"))
    if index + x86.DESC_SIZE - 1 > limit:
        there = "" if descriptor is None or not descriptor.segment.present else ", though a descriptor stands there"
        return Cause(
            f"the GDT's limit is too small for selector {selector:#x}",
            f"The limit in GDTR is {limit:#x}, and the last byte of this selector's descriptor is {index + 7:#x}{there}. A "
            "limit is the offset of the table's last byte.",
            tuple(evidence),
            f"make the limit at least {index + 7:#x}: the size of the table in bytes, less 1",
        )
    if descriptor is None and not scene.has_memory:
        return None
    if descriptor is None:
        return Cause(
            "the GDT lies where no memory is",
            f"GDTR points to {base:#x}, and there is no memory.",
            tuple(evidence),
            "load GDTR with the linear address of the table",
        )
    evidence.append(f"descriptor {selector:#x} at {base + index:#x}: {descriptor.value:#018x}")
    wrong = _wrong_descriptor(register, descriptor)
    if wrong is None and (level := selector & x86.SELECTOR_RPL) > descriptor.dpl and register != "tr":
        wrong = (
            "selector {selector:#x} has RPL " + f"{level}, and is loaded into {{register}}",
            "The lower two bits of a selector are a privilege level. The firmware runs at level 0, and so does the segment.",
            "clear the lower two bits of the selector",
        )
    if wrong is None:
        return None
    title, why, remedy = wrong
    return Cause(title.format(selector=selector, register=register), why.format(selector=selector), tuple(evidence), remedy)


def loaded_selector(scene: Scene, one: Instruction) -> tuple[str, int] | None:
    """The segment register that an instruction loads, and with which selector."""
    operands = one.operands
    if one.mnemonic in _FAR:
        if operands and operands[0].kind == IMMEDIATE and operands[0].value is not None:
            return "cs", operands[0].value
        return None
    if one.mnemonic == "ltr" and operands[0].value is not None and operands[0].kind == REGISTER:
        return "tr", operands[0].value & 0xFFFF
    if one.mnemonic == "mov" and operands[0].kind == REGISTER and operands[0].name in x86.SEGMENT_NAMES:
        value = operands[1].value if operands[1].kind == REGISTER else None
        return None if value is None else (operands[0].name, value & 0xFFFF)
    stack = scene.segments["ss"].base + scene.registers["esp"]
    if one.mnemonic in _FAR_RETURNS:
        width = 4 if (scene.bits == 32) != one.prefixed else 2
        data = scene.read_linear(stack + width, 2)
        return None if data is None else ("cs", int.from_bytes(data, "little"))
    return None


def _wrong_descriptor(register: str, descriptor: Descriptor) -> tuple[str, str, str] | None:
    """Title, why and remedy of a descriptor that the register does not take."""
    segment = descriptor.segment
    if not descriptor.value:
        return (
            "the GDT has no descriptor for selector {selector:#x}",
            "Where GDTR leads, all 8 bytes of this descriptor are 0: the table lies elsewhere, or the selector is wrong.",
            "compare GDTR with where the table lies, and the selector with its descriptor's number times 8",
        )
    if register == "tr":
        if segment.s or segment.type | x86.TYPE_TSS_BUSY_BIT != x86.TYPE_TSS32_BUSY:
            return (
                "selector {selector:#x} is no TSS",
                "ltr takes the descriptor of an available TSS alone.",
                "give TR the selector of a descriptor of type 9 with S clear",
            )
        if segment.type & x86.TYPE_TSS_BUSY_BIT:
            return (
                "the TSS of selector {selector:#x} is busy already",
                "ltr takes a TSS that is available (type 9) and marks it busy; this one has type 11.",
                "make the type of the TSS descriptor 9",
            )
    elif not segment.s or (register == "cs") != bool(segment.type & x86.TYPE_CODE):
        is_readable_code = segment.s and segment.type & x86.TYPE_CODE and segment.type & x86.TYPE_READABLE
        if register in ("cs", "ss") or not is_readable_code:
            kind = "code" if register == "cs" else "data"
            return (
                "selector {selector:#x} is no " + kind + " segment, and is loaded into {register}",
                "The type of selector {selector:#x}'s descriptor says something else.",
                f"load the selector of a {kind} segment, or mend the type in its descriptor",
            )
    elif register == "ss" and not segment.type & x86.TYPE_WRITABLE:
        return (
            "the stack's segment, selector {selector:#x}, is not writable",
            "SS takes a writable data segment alone.",
            "set the writable bit in the type of the descriptor",
        )
    if not segment.present:
        return (
            "the descriptor of selector {selector:#x} is not marked present",
            "Its P bit is clear, and loading it is a #NP (of SS a #SS).",
            "set P, bit 47 of the descriptor",
        )
    return None


def real_mode_limit(scene: Scene) -> Cause | None:
    """An access beyond the 64 KiB that a data segment still has from real mode."""
    one = scene.instruction
    if not scene.known or not scene.faulted or not scene.protected or one is None or not scene.segments["cs"].db:
        return None
    for operand in one.operands:
        segment = scene.segments["ss" if operand.name in ("esp", "ebp") else "ds"]
        unloaded = segment.limit == x86.RESET_DATA.limit and segment.base == segment.selector << 4
        if operand.kind == "memory" and operand.value is not None and operand.value > segment.limit and unloaded:
            return Cause(
                "a data segment still has its limit of real mode",
                f"The instruction reaches {operand.value:#x}, and its segment ends at {segment.limit:#x}: it was not loaded "
                "since protected mode is on.",
                (f"{scene.at(one.address)}: {one.text}", f"selector {segment.selector:#x}, limit {segment.limit:#x}"),
                "load ds, es and ss with the selector of a flat data segment right behind the far jump",
            )
    return None


RULES: Final = (cut_far_jump, cut_gdt_base, no_far_jump, bad_selector, real_mode_far_jump, real_mode_limit)
