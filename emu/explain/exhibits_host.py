"""What there is to look at of what the host tells and the kernel gets."""

from collections.abc import Iterator
from typing import Final

from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import acpi, params, pvh
from pvhboot.shim.abi.firmware import PARAMS

from ..handoff import Handoff
from ..memmap_words import type_name
from ..start_info_words import start_info_meaning
from .telling import Telling
from .told import Exhibit, Row
from .words import counted, range_text

_ROOT_MAX: Final = 64  # tables of the root that are listed

_PARAMS: Final = {
    "magic": "the letters PVHB",
    "version": "of this format",
    "size": "bytes of the whole block",
    "entry": "where to enter the kernel",
    "e820_entries": "entries of the memory map",
    "modules": "modules",
    "strings_size": "bytes of command lines",
    "reserved": "must be 0",
}


def params_block(telling: Telling) -> list[Exhibit]:
    """Its header, field by field."""
    rom = telling.plan.rom
    if telling.plan.source != PARAMS:
        return []
    header = params.PARAMS_HEADER.unpack(rom, len(rom) - params.PARAMS_FROM_END)
    rows = []
    for (name, field), value in zip(params.PARAMS_HEADER.fields.items(), header, strict=True):
        text = f"offset {field.offset}, {name}: {value:#x}, {_PARAMS[name]}"
        rows.append(Row(text, {"offset": field.offset, "name": name, "value": value}))
    return [Exhibit("The header of the parameter block", tuple(rows))]


def memmap(telling: Telling) -> list[Exhibit]:
    """As the kernel gets it."""
    tables = telling.outcome.tables
    if tables is None or not tables.memmap:
        return []
    rows = [
        Row(
            f"{range_text(entry.addr, entry.size) if entry.size else f'{entry.addr:#x}, empty'}: {type_name(entry.type)}, "
            f"{show_size(entry.size)}",
            {"start": entry.addr, "size": entry.size, "type": entry.type},
        )
        for entry in tables.memmap
    ]
    title = "The memory map as the kernel gets it"
    if any(entry.type == pvh.MEMMAP_TYPE_ACPI for entry in tables.memmap):
        title += ", with the ranges of type ACPI that a later chapter adds"
    return [Exhibit(title, tuple(rows))]


def kernel(telling: Telling) -> list[Exhibit]:
    """Kernel, command line, modules: where they lie."""
    plan, tables = telling.plan, telling.outcome.tables
    start, size = plan.segments[0].paddr, plan.segments[-1].end - plan.segments[0].paddr
    rows = [
        Row(
            f"the kernel: {range_text(start, size)}, {show_size(size)}, entry {plan.entry:#x}",
            {"what": "kernel", "start": start, "size": size, "entry": plan.entry},
        )
    ]
    if tables is not None and tables.start_info is not None and tables.cmdline is not None:
        at, line = tables.start_info.cmdline_paddr, tables.cmdline.decode(errors="replace")
        length = counted(len(tables.cmdline) + 1, "byte")
        text = f"the command line: at {at:#x}, {length} with the 0 at its end, {repr(line) if line else 'empty'}"
        rows.append(Row(text, {"what": "cmdline", "start": at, "text": line}))
    for number, entry in enumerate(() if tables is None else tables.modules):
        rows.append(
            Row(
                f"module {number}: {range_text(entry.paddr, entry.size)}, {show_size(entry.size)}",
                {"what": "module", "start": entry.paddr, "size": entry.size},
            )
        )
    if not plan.modules:
        rows.append(Row("modules: none, so there is no initrd", {"what": "modules", "count": 0}))
    return [Exhibit("What is to be started", tuple(rows))]


def acpi_tables(telling: Telling) -> list[Exhibit]:
    """The files that were fetched, and the tables that the RSDP leads to."""
    outcome = telling.outcome
    script = telling.script
    if outcome.tables is None or outcome.tables.start_info is None or outcome.handoff is None or script is None:
        return []
    rows = []
    for transfer in telling.traffic.transfers:
        if transfer.name and transfer.name.encode() in script:
            rows.append(
                Row(
                    f"file {transfer.name}: {counted(transfer.size, 'byte')}, to {transfer.paddr:#x}",
                    {"file": transfer.name, "size": transfer.size, "start": transfer.paddr},
                )
            )
    for signature, paddr, size in _tables(outcome.handoff, outcome.tables.start_info.rsdp_paddr):
        text = f"table {signature}: {range_text(paddr, size)}, {counted(size, 'byte')}"
        rows.append(Row(text, {"table": signature, "start": paddr, "size": size}))
    return [Exhibit("What was put into memory, and the tables that the root leads to", tuple(rows))]


def _tables(handoff: Handoff, rsdp_paddr: int) -> Iterator[tuple[str, int, int]]:
    """Signature, address and bytes of the root and of what it names."""
    data = handoff.try_read(rsdp_paddr, acpi.RSDP.size)
    if data is None or not data.startswith(acpi.RSDP_SIGNATURE):
        return
    rsdp = acpi.RSDP.unpack(data)
    wide = rsdp.revision >= acpi.RSDP_REVISION_2 and rsdp.xsdt_address != 0
    root, step = (rsdp.xsdt_address, 8) if wide else (rsdp.rsdt_address, 4)
    head = handoff.try_read(root, acpi.SDT_HEADER.size)
    if head is None:
        return
    count = min((acpi.SDT_HEADER.unpack(head).length - acpi.SDT_HEADER.size) // step, _ROOT_MAX)
    pointers = handoff.try_read(root + acpi.SDT_HEADER.size, max(0, count) * step) or b""
    named = [root, *(int.from_bytes(pointers[at : at + step], "little") for at in range(0, len(pointers), step))]
    for paddr in named:  # which grows: the FADT names the DSDT
        if (head := handoff.try_read(paddr, acpi.SDT_HEADER.size)) is not None:
            header = acpi.SDT_HEADER.unpack(head)
            yield header.signature.decode("ascii", "backslashreplace"), paddr, header.length
            if header.signature == acpi.FADT_SIGNATURE:
                more = handoff.try_read(paddr + acpi.FADT_DSDT, 4)
                named += [] if more is None else [int.from_bytes(more, "little")]


def start_info(telling: Telling) -> list[Exhibit]:
    """Field by field; and of a firmware without sources the map that it leads to."""
    outcome = telling.outcome
    if outcome.handoff is None or outcome.tables is None or outcome.tables.start_info is None:
        return []
    info, rows = outcome.tables.start_info, []
    for (name, field), value in zip(pvh.HVM_START_INFO.fields.items(), info, strict=True):
        meaning = start_info_meaning(name, value)
        text = f"offset {field.offset}, {field.size} bytes, {name}: {value:#x}, {meaning}"
        rows.append(Row(text, {"offset": field.offset, "size": field.size, "name": name, "value": value}))
    found = [Exhibit(f"start_info, at {outcome.handoff.registers['ebx']:#x}", tuple(rows))]
    return found if telling.own else [*found, *memmap(telling), *kernel(telling)]
