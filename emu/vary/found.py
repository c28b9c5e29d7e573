"""The tables of a firmware that an operating system finds by itself: ACPI's behind the RSDP, the MP table, SMBIOS's."""

from collections.abc import Iterator
from typing import Final

from pvhboot.loader.memory import ReadableMemory
from pvhboot.shim.abi import acpi, mptable, smbios
from pvhboot.shim.abi.chipset import F_SEGMENT, F_SEGMENT_END, LOW_HOLE
from pvhboot.shim.errors import NoMemoryError

_PARAGRAPH: Final = mptable.MP_PARAGRAPH  # all anchors lie on one
_TABLE_MAX: Final = 1 << 20  # bytes of a table that are looked at
_ROOT_MAX: Final = 256  # tables that the root may name


def tables_in(memory: ReadableMemory, rsdp_paddr: int) -> dict[str, bytes]:
    """Their bytes by name, with the anchors that lead to them; `rsdp_paddr` is 0 where there is none. An MP pointer, an MP
    table or an SMBIOS anchor that does not add up to 0 is none."""
    found: dict[str, bytes] = {}
    for name, data in (*_acpi(memory, rsdp_paddr), *_anchored(memory)):
        number = sum(other.split(" #")[0] == name for other in found)
        found[f"{name} #{number + 1}" if number else name] = data
    return found


def _acpi(memory: ReadableMemory, rsdp_paddr: int) -> Iterator[tuple[str, bytes]]:
    data = _read(memory, rsdp_paddr, acpi.RSDP.size) if rsdp_paddr else b""
    if not data.startswith(acpi.RSDP_SIGNATURE):
        return
    rsdp = acpi.RSDP.unpack(data)
    wide = rsdp.revision >= acpi.RSDP_REVISION_2 and rsdp.xsdt_address != 0
    yield "RSDP", data if rsdp.revision >= acpi.RSDP_REVISION_2 else data[: acpi.RSDP_V1_BYTES]
    root = _acpi_table(memory, rsdp.xsdt_address if wide else rsdp.rsdt_address)
    yield "XSDT" if wide else "RSDT", root
    entry = 8 if wide else 4
    pointers = root[acpi.SDT_HEADER.size :]
    for at in range(0, min(len(pointers), _ROOT_MAX * entry), entry):
        table = _acpi_table(memory, int.from_bytes(pointers[at : at + entry], "little"))
        yield f"ACPI table {table[:4].decode('ascii', 'backslashreplace')}", table
        if table.startswith(acpi.FADT_SIGNATURE):
            for name, field in (("FACS", acpi.FADT_FACS), ("DSDT", acpi.FADT_DSDT)):
                if paddr := int.from_bytes(table[field : field + 4], "little"):
                    yield f"ACPI table {name}", _acpi_table(memory, paddr)


def _acpi_table(memory: ReadableMemory, paddr: int) -> bytes:
    length = int.from_bytes(_read(memory, paddr + 4, 4), "little") if paddr else 0
    return _read(memory, paddr, min(length, _TABLE_MAX))


def _anchored(memory: ReadableMemory) -> Iterator[tuple[str, bytes]]:
    """In the F segment, and in the last KiB of base memory."""
    for start, end in ((mptable.MP_BASE_MEMORY, LOW_HOLE), (F_SEGMENT, F_SEGMENT_END)):
        area = _read(memory, start, end - start)
        for at in range(0, len(area), _PARAGRAPH):
            anchor = area[at : at + _PARAGRAPH]
            if anchor.startswith(mptable.MP_FLOATING_SIGNATURE):
                yield from _mp_table(memory, area[at:])
            elif anchor.startswith((smbios.SMBIOS_21_ANCHOR, smbios.SMBIOS_30_ANCHOR)):
                yield from _smbios(memory, area[at:])


def _mp_table(memory: ReadableMemory, area: bytes) -> Iterator[tuple[str, bytes]]:
    if len(area) < mptable.MP_FLOATING.size:
        return
    floating = mptable.MP_FLOATING.unpack(area[: mptable.MP_FLOATING.size])
    pointer = area[: floating.length * _PARAGRAPH]
    head = _read(memory, floating.table, mptable.MP_TABLE.size)
    if not pointer or sum(pointer) & 0xFF or not head.startswith(mptable.MP_TABLE_SIGNATURE):
        return
    table = _read(memory, floating.table, mptable.MP_TABLE.unpack(head).length)
    if not sum(table) & 0xFF:
        yield "MP table", pointer + table


def _smbios(memory: ReadableMemory, area: bytes) -> Iterator[tuple[str, bytes]]:
    is_21 = area.startswith(smbios.SMBIOS_21_ANCHOR)
    layout = smbios.SMBIOS_21 if is_21 else smbios.SMBIOS_30
    if len(area) < layout.size:
        return
    if is_21:
        entry_21 = smbios.SMBIOS_21.unpack(area[: layout.size])
        length, paddr, size = entry_21.length, entry_21.table_address, entry_21.table_length
    else:
        entry_30 = smbios.SMBIOS_30.unpack(area[: layout.size])
        length, paddr, size = entry_30.length, entry_30.table_address, entry_30.max_table_size
    anchor = area[:length]
    if anchor and not sum(anchor) & 0xFF:
        yield "SMBIOS", anchor + _read(memory, paddr, min(size, _TABLE_MAX))


def _read(memory: ReadableMemory, paddr: int, size: int) -> bytes:
    """Nothing where there is no memory."""
    try:
        return memory.read(paddr, size)
    except NoMemoryError:
        return b""
