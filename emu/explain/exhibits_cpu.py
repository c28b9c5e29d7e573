"""What there is to look at of the processor: its state, the memory around it, descriptors field by field."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import x86
from pvhboot.shim.machines import Span, low_rom_span, rom_span

from ..bitfields import BitField, descriptor_fields, mtrr_def_type_fields, register_fields
from ..descriptors import Descriptor, read_descriptor
from . import division as names
from .facts_cpu import mtrr_facts
from .telling import Telling
from .told import Exhibit, Row
from .words import enumerated, range_text

_SEGMENTS: Final = ("cs", "ds", "es", "ss", "fs", "gs")
_SMALL: Final = 2  # bits: what has more is shown in hexadecimal


def reset_state(telling: Telling) -> list[Exhibit]:
    """What a trace has of the registers before the first instruction, but for those that are 0."""
    firmware = telling.recorded.firmware
    state = telling.before(firmware[0])
    rows = _segment_rows(state, (*_SEGMENTS, "ldtr", "tr"))
    rows.append(Row(f"IP is {firmware[0].ip:#x}", {"register": "eip", "value": firmware[0].ip}))
    rows += [_bits_row("cr0", state["cr0"]), _bits_row("eflags", state["eflags"])]
    edx = state["edx"]
    told = f"the processor's family {edx >> 8 & 0xF}, model {edx >> 4 & 0xF}, stepping {edx & 0xF}"
    rows.append(Row(f"EDX is {edx:#x}: {told}", {"register": "edx", "value": edx}))
    rows += [
        Row(
            f"{name.upper()} has the base {state[f'{name}_base']:#x} and the limit {state[f'{name}_limit']:#x}",
            {"register": name, "base": state[f"{name}_base"], "limit": state[f"{name}_limit"]},
        )
        for name in ("gdtr", "idtr")
    ]
    return [Exhibit("The registers after the reset (the other general ones are 0, and so are CR3, CR4 and EFER)", tuple(rows))]


def _segment_rows(state: Mapping[str, int], registers: Sequence[str]) -> list[Row]:
    """A row for all segment registers of these that hold the same."""
    alike: dict[tuple[int, int, int], list[str]] = {}
    for name in registers:
        alike.setdefault((state[name], state[f"{name}_base"], state[f"{name}_limit"]), []).append(name)
    return [
        Row(
            f"{enumerated([name.upper() for name in found])}: {selector:#x}, hidden base {base:#x}, hidden limit {limit:#x}",
            {"registers": found, "selector": selector, "base": base, "limit": limit},
        )
        for (selector, base, limit), found in alike.items()
    ]


def _bits_row(name: str, value: int) -> Row:
    """A register of bits, with those that are set."""
    fields = [field for field in register_fields(name, value) if field.value]
    told = "; ".join(f"{field.name} (bit {field.bits}), {field.meaning}" for field in fields)
    return Row(
        f"{name.upper()} is {value:#x}" + (f": {told}" if told else ", in which no bit with a name is 1"),
        {"register": name, "value": value, "set": [field.name for field in fields]},
    )


def layout(telling: Telling) -> list[Exhibit]:
    """What lies where before the first instruction."""
    plan = telling.plan
    rom, low = rom_span(len(plan.rom)), low_rom_span(plan.spec, len(plan.rom))
    spans = [*plan.ram, rom._replace(name="the ROM with the firmware")]
    if low is not None:
        spans.append(low._replace(name="the end of the ROM once more"))
    spans.append(Span("in RAM: the kernel", plan.segments[0].paddr, plan.segments[-1].end))
    if plan.memmap is not None and not telling.items:
        spans += [module.span._replace(name=f"in RAM: {module.span.name}") for module in plan.modules]
    rows = [
        Row(
            f"{range_text(span.start, span.size)}: {span.name}, {show_size(span.size)}",
            {"start": span.start, "size": span.size, "what": span.name},
        )
        for span in sorted(spans, key=lambda span: (span.start, -span.end))
    ]
    return [Exhibit("What lies where before the first instruction", tuple(rows))]


def gdt(telling: Telling) -> list[Exhibit]:
    """The first code segment field by field, of the others what is different."""
    base, limit, table = telling.gdt
    if not table:
        return []
    full = next((selector for selector, found in table.items() if _is_code(found)), None)
    rows: list[Row] = []
    for selector, found in table.items():
        rows.append(_descriptor_row(selector, found))
        if full is not None and selector == full:
            rows += [_field_row(selector, field) for field in descriptor_fields(found.value)]
        elif full is not None and found.value and found.segment.s:
            rows += _differences(selector, found, full, table[full])
    return [Exhibit(f"The descriptors of the GDT at {base:#x}, limit {limit:#x}, by their selectors", tuple(rows))]


def _is_code(found: Descriptor) -> bool:
    return found.segment.s and bool(found.segment.type & x86.TYPE_CODE) and found.segment.db


def _descriptor_row(selector: int, found: Descriptor) -> Row:
    data: dict[str, Any] = {"selector": selector, "value": f"{found.value:#018x}"}
    if not found.value:
        told = "null: DS, ES, FS and GS may be loaded with it, but not used" if not selector else "empty"
        return Row(f"{selector:#x}: {found.value:#018x}, {told}", data)
    kind = next(field.meaning for field in descriptor_fields(found.value) if field.name == "type")
    data |= {"base": found.segment.base, "limit": found.segment.limit, "kind": kind}
    return Row(
        f"{selector:#x}: {found.value:#018x}, {kind}: base {found.segment.base:#x}, limit {found.segment.limit:#x}", data
    )


def _field_row(selector: int, field: BitField, but: str = "") -> Row:
    where, value = _bits_text(field), _value_text(field)
    name, _, piece = field.name.partition(" ")
    if piece:  # of a base or a limit that lies in several
        text = f"{where} hold bits {piece.replace(':', ' to ')} of the {name}: {value}"
    else:
        text = f"{where}, {name}: {value}, {field.meaning}"
    return Row(
        f"    {but}{text}",
        {"selector": selector, "bits": field.bits, "name": field.name, "value": field.value, "meaning": field.meaning},
    )


def _bits_text(field: BitField) -> str:
    return f"bit {field.bits}" if field.high == field.low else f"bits {field.high} to {field.low}"


def _value_text(field: BitField) -> str:
    return f"{field.value}" if field.high - field.low < _SMALL else f"{field.value:#x}"


def _differences(selector: int, found: Descriptor, other: int, than: Descriptor) -> list[Row]:
    pairs = zip(descriptor_fields(found.value), descriptor_fields(than.value), strict=True)
    # The meaning of a piece of the base or of the limit is that of the whole.
    changed = [one for one, two in pairs if one.value != two.value or (one.meaning != two.meaning and ":" not in one.name)]
    return [_field_row(selector, field, f"unlike {other:#x}, " if not at else "and ") for at, field in enumerate(changed)]


def tss(telling: Telling) -> list[Exhibit]:
    """The descriptor of TR, field by field, as it is now."""
    part, memory = telling.parts.get(names.TSS), telling.outcome.memory
    found = None if part is None or memory is None else read_descriptor(memory, part.after["gdtr_base"], part.after["tr"])
    if part is None or found is None or found.segment.s or not part.after["tr"]:
        return []
    selector = part.after["tr"]
    rows = [_descriptor_row(selector, found), *(_field_row(selector, field) for field in descriptor_fields(found.value))]
    return [Exhibit("The descriptor that TR was loaded from, after ltr", tuple(rows))]


def mtrr(telling: Telling) -> list[Exhibit]:
    """What was written, bit by bit."""
    facts = mtrr_facts(telling)
    if not facts["has_mtrr"]:
        return []
    fields = mtrr_def_type_fields(facts["mtrr_value"])
    return [Exhibit(f"IA32_MTRR_DEF_TYPE is now {facts['mtrr_value']:#x}", tuple(_plain_field_rows(fields)))]


def _plain_field_rows(fields: Sequence[BitField]) -> list[Row]:
    """A row for each field of a register."""
    return [
        Row(
            f"{_bits_text(field)}, {field.name}: {_value_text(field)}, {field.meaning}",
            {"bits": field.bits, "name": field.name, "value": field.value, "meaning": field.meaning},
        )
        for field in fields
    ]


def handoff(telling: Telling) -> list[Exhibit]:
    """The processor when the kernel's first instruction is next."""
    found = telling.outcome.handoff
    if found is None:
        return []
    registers = found.registers
    rows = [
        Row(
            f"EBX is {registers['ebx']:#x}: where the kernel looks for start_info",
            {"register": "ebx", "value": registers["ebx"]},
        ),
        Row(f"EIP is {registers['eip']:#x}: the kernel's entry", {"register": "eip", "value": registers["eip"]}),
        *(_bits_row(name, registers[name]) for name in ("cr0", "cr4", "eflags")),
    ]
    for name, segment in found.segments.items():
        if name in ("fs", "gs"):
            continue
        rows.append(
            Row(
                f"{name.upper()} is {segment.selector:#x}: base {segment.base:#x}, limit {segment.limit:#x}",
                {"register": name, "selector": segment.selector, "base": segment.base, "limit": segment.limit},
            )
        )
    return [Exhibit("The processor at the kernel's entry", tuple(rows))]
