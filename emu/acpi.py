"""From the RSDP to every ACPI table: whether each is whole, adds up, and lies where the guest will not overwrite it."""

from collections.abc import Iterator, Sequence
from typing import Final

from pvhboot.shim.abi import acpi, pvh
from pvhboot.shim.abi.pvh import MemmapEntry

from .handoff import Handoff

_KEPT: Final = (pvh.MEMMAP_TYPE_RESERVED, pvh.MEMMAP_TYPE_ACPI, pvh.MEMMAP_TYPE_NVS)
_TABLE_MAX: Final = 16 << 20  # bytes of a table that are looked at
_ROOT_MAX: Final = 256  # tables that the root may name


def acpi_problems(handoff: Handoff, memmap: Sequence[MemmapEntry], rsdp_paddr: int) -> Iterator[str]:
    """What is wrong with the tables that an RSDP leads to, a sentence each."""
    data = handoff.try_read(rsdp_paddr, acpi.RSDP.size)
    if data is None or not data.startswith(acpi.RSDP_SIGNATURE):
        yield f"there is no RSDP at {rsdp_paddr:#x}"
        return
    rsdp = acpi.RSDP.unpack(data)
    size = acpi.RSDP.size if rsdp.revision >= acpi.RSDP_REVISION_2 else acpi.RSDP_V1_BYTES
    if sum(data[: acpi.RSDP_V1_BYTES]) & 0xFF or sum(data[:size]) & 0xFF:
        yield "the RSDP does not add up to 0"
    yield from _place("the RSDP", rsdp_paddr, size, memmap)
    wide = rsdp.revision >= acpi.RSDP_REVISION_2 and rsdp.xsdt_address != 0
    name, root, entry = ("XSDT", rsdp.xsdt_address, 8) if wide else ("RSDT", rsdp.rsdt_address, 4)
    table, problems = _table(handoff, memmap, name.encode(), root)
    yield from problems
    pointers = table[acpi.SDT_HEADER.size :]
    for at in range(0, min(len(pointers), _ROOT_MAX * entry), entry):
        table, problems = _table(handoff, memmap, None, int.from_bytes(pointers[at : at + entry], "little"))
        yield from problems
        if table.startswith(acpi.FADT_SIGNATURE):
            dsdt = int.from_bytes(table[acpi.FADT_DSDT : acpi.FADT_DSDT + 4], "little")
            yield from _table(handoff, memmap, b"DSDT", dsdt)[1]


def _table(handoff: Handoff, memmap: Sequence[MemmapEntry], wanted: bytes | None, paddr: int) -> tuple[bytes, list[str]]:
    """A table's bytes, empty if it cannot be read, and what is wrong with it. `wanted`: the signature; None: any."""
    data = handoff.try_read(paddr, acpi.SDT_HEADER.size)
    if data is None:
        return b"", [f"there is no memory for a table at {paddr:#x}"]
    header = acpi.SDT_HEADER.unpack(data)
    name = header.signature.decode("ascii", "backslashreplace")
    if wanted is not None and header.signature != wanted:
        return b"", [f"the table at {paddr:#x} is {name!r}, not {wanted.decode()}"]
    table = handoff.try_read(paddr, header.length) if acpi.SDT_HEADER.size <= header.length <= _TABLE_MAX else None
    if table is None:
        return b"", [f"the {name} at {paddr:#x} has the length {header.length:#x}"]
    problems = [] if not sum(table) & 0xFF else [f"the {name} at {paddr:#x} does not add up to 0"]
    return table, [*problems, *_place(f"the {name}", paddr, header.length, memmap)]


def _place(what: str, paddr: int, size: int, memmap: Sequence[MemmapEntry]) -> Iterator[str]:
    if not any(entry.addr <= paddr and paddr + size <= entry.end for entry in memmap if entry.type in _KEPT):
        yield f"{what} at {paddr:#x} lies where the memory map does not keep it"
