"""What the prose says of the processor, from the trace."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import devices, pvh, x86
from pvhboot.shim.machines import low_rom_span, rom_span

from ..bus import PORT_KINDS
from ..trace import Record
from . import division as names
from .telling import Telling
from .words import counted

_A20_PORTS: Final = (devices.I8042_DATA_PORT, devices.I8042_COMMAND_PORT, devices.PORT_92)
_A20: Final = 1 << 20  # the bit of an address
_OFFSET_16: Final = 0xFFFF  # what an offset of 16 bits can be at most
_CACHES_OFF: Final = x86.CR0_CD | x86.CR0_NW


def reset_facts(telling: Telling) -> Mapping[str, Any]:
    """Where the first instruction is, and why."""
    firmware, plan = telling.recorded.firmware, telling.plan
    first, state = firmware[0], telling.before(firmware[0])
    rom, low = rom_span(len(plan.rom)), low_rom_span(plan.spec, len(plan.rom))
    from_low = sum(telling.in_low_rom(record.address) for record in firmware)
    return {
        "vector": first.address,
        "below_4g": x86.ADDRESS_4G - first.address,
        "rom_size": show_size(rom.size),
        "rom_start": rom.start,
        "rom_last": rom.end - 1,
        "cs": state["cs"],
        "cs_base": state["cs_base"],
        "cs_sixteen": state["cs"] << 4,
        "ip": first.ip,
        "naive": (state["cs"] << 4) + first.ip,
        "reset_limit": state["ds_limit"],
        "low_rom": low is not None,
        "low_rom_start": 0 if low is None else low.start,
        "low_rom_last": 0 if low is None else low.end - 1,
        "copy_used": bool(from_low),
        "low_instructions": f"{from_low:,}",
        "instructions_text": counted(len(firmware), "instruction"),
    }


def a20_facts(telling: Telling) -> Mapping[str, Any]:
    """Whether anything lies where bit 20 counts, and whether anybody cares for the gate."""
    start, last = telling.plan.segments[0].paddr, telling.plan.segments[-1].end - 1
    effects = (effect for record in telling.recorded.firmware for effect in record.effects)
    access = next((one for one in effects if one.kind in PORT_KINDS and one.at in _A20_PORTS), None)
    return {
        "kernel_start": start,
        "kernel_last": last,
        "kernel_needs_a20": bool((start | last) & _A20 or last - start >= _A20),
        "a20_touched": access is not None,
        "a20_access": "" if access is None else f"{access.kind} {access.at:#x}",
        "i8042_data": devices.I8042_DATA_PORT,
        "i8042_command": devices.I8042_COMMAND_PORT,
        "port_92": devices.PORT_92,
    }


def gdt_facts(telling: Telling) -> Mapping[str, Any]:
    """The first GDT."""
    base, limit, table = telling.gdt
    load = telling.gdt_load
    in_16_bit = load is not None and load.bits == 16
    is_wide = load is not None and _is_wide(load)
    rom = rom_span(len(telling.plan.rom))
    segments = [found.segment for found in table.values() if found.value and found.segment.s]
    in_rom = rom.start <= base < rom.end or telling.in_low_rom(base)
    return {
        "has_gdt": bool(table),
        "gdt_base": base,
        "gdt_limit": limit,
        "gdt_size": _table_text(limit + 1),
        "gdt_where": " in the ROM" if in_rom else "",
        "flat": bool(segments) and all(one.base == 0 and one.limit == x86.FLAT_LIMIT for one in segments if one.db),
        "flat_limit": x86.FLAT_LIMIT,
        "accessed": in_rom and bool(segments) and all(one.type & x86.TYPE_ACCESSED for one in segments),
        "gdt_by_cs": load is not None and " cs:[" in load.text,
        "lgdt_wide": in_16_bit and is_wide,
        "lgdt_narrow": in_16_bit and not is_wide,
    }


def _table_text(size: int) -> str:
    whole, rest = divmod(size, x86.DESC_SIZE)
    more = f", and {counted(rest, 'byte')} of one more" if rest else ""
    return f"{counted(whole, 'descriptor')} of {x86.DESC_SIZE} bytes{more}"


def _is_wide(record: Record) -> bool:
    """Of an instruction of 16-bit code: whether a prefix asks for 32-bit operands."""
    opcode = next((at for at, byte in enumerate(record.code) if byte not in x86.PREFIXES), 0)
    return x86.OPERAND_SIZE_PREFIX in record.code[:opcode]


def protected_facts(telling: Telling) -> Mapping[str, Any]:
    """The switch to 32-bit code, and what follows."""
    reset = telling.before(telling.recorded.firmware[0])
    mode = telling.first(lambda record: bool(record.changes.get("cr0", 0) & x86.CR0_PE))
    jump = telling.first(lambda record: record.bits == 16 and record.changes.get("cs_limit", 0) > reset["cs_limit"])
    code = telling.first(lambda record: record.bits == 32)
    loaded = reset if jump is None else telling.after(jump)
    target = 0 if code is None else code.address
    flat = telling.parts[names.FLAT].after if names.FLAT in telling.parts else reset
    still_off = mode is not None and bool(mode.changes["cr0"] & _CACHES_OFF)
    return {
        "mode_cs_base": (reset if mode is None else telling.before(mode))["cs_base"],
        "new_cs": jump is not None and code is not None and loaded["cs"],
        "new_cs_base": loaded["cs_base"],
        "new_cs_limit": loaded["cs_limit"],
        "protected_at": target,
        "jump_wide": jump is not None and _is_wide(jump) and target > _OFFSET_16,
        "cut_target": target & _OFFSET_16,
        "caches_on_too": mode is not None and not still_off and bool(reset["cr0"] & _CACHES_OFF),
        "caches_left_off": still_off,
        "flat_data": all(flat[f"{name}_limit"] == x86.FLAT_LIMIT and flat[name] == flat["ds"] for name in ("ds", "es", "ss")),
        "ds": flat["ds"],
        "has_stack": flat["esp"] == telling.plan.spec.low.stack.end,
        "stack_end": flat["esp"],
        "stack_size": show_size(telling.plan.spec.low.stack.size),
    }


def task_facts(telling: Telling) -> Mapping[str, Any]:
    """TR, and the GDT that it needs."""
    state = telling.parts[names.TSS].after if names.TSS in telling.parts else {}
    base = state.get("gdtr_base", 0)
    moved = base != telling.gdt[0] and any(span.start <= base < span.end for span in telling.plan.ram)
    return {
        "tr_loaded": bool(state.get("tr")),
        "tr": state.get("tr", 0),
        "tss_limit": pvh.TSS_LIMIT,
        "gdt_moved": bool(state.get("tr")) and moved,
        "ram_gdt": base,
        "gdt_bytes": state.get("gdtr_limit", -1) + 1,
    }


def mtrr_facts(telling: Telling) -> Mapping[str, Any]:
    """What is written to IA32_MTRR_DEF_TYPE."""
    records = telling.parts[names.MTRR].records if names.MTRR in telling.parts else ()
    write = next((record for record in records if record.text.startswith("wrmsr")), None)
    return {
        "has_mtrr": write is not None,
        "mtrr_msr": x86.MSR_MTRR_DEF_TYPE,
        "mtrr_value": 0 if write is None else telling.before(write)["eax"],
    }


CPU_FACTS: Final[tuple[Callable[[Telling], Mapping[str, Any]], ...]] = (
    reset_facts,
    a20_facts,
    gdt_facts,
    protected_facts,
    task_facts,
    mtrr_facts,
)
