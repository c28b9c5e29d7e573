"""What the firmware knows of a machine beforehand, as records in its ROM: one, or one for each machine that it tells apart."""

from typing import Final, NamedTuple

from .abi.chipset import (
    F_SEGMENT_END,
    PCIEXBAR,
    PCIEXBAR_ENABLE,
    PIRQ_IRQS,
    PM_BASE,
    PM_BASE_IO,
    Chipset,
    PciFunction,
)
from .abi.layout import Layout
from .abi.pam import PAM_PIECES, PAM_READ, PAM_WRITE
from .abi.pci import PCI_SLOTS, config_address
from .abi.pvh import HVM_MEMMAP_ENTRY, MEMMAP_TYPE_RAM, MEMMAP_TYPE_RESERVED, MemmapEntry
from .machines import MachineSpec, low_hole, low_rom_span, reserved_spans
from .mp_tables import mp_head, mp_tail

_HIGH_MAX: Final = 2  # what is reserved above 1 MiB
_WRITES_MAX: Final = 5
_ROUTES_MAX: Final = 2  # of four PIRQs each
_PIRQS: Final = 8


class MachineRecord(NamedTuple):
    """`host_id`: by what the machine is known, the 32 bits of its host bridge. `low`, `high`: what the firmware adds to the
    memory map, as its entries, below 1 MiB and above (`high_words` of 32 bits). `upper_end`, `f_segment_end`: where the
    memory before the F segment and that itself end, 0 where they are not to be had. `writes`: so many pairs of a
    configuration address and what is stored there, of 32 bits each; `routes` the same, for a machine without ACPI. `mp_tail`:
    physical address of the MP table's entries that do not depend on the processors, with their bytes and number. `pirqs`: by
    slot, the PIRQ of INTA#; `pins`: by PIRQ, its pin of the I/O APIC."""

    host_id: int
    low: bytes
    high_words: int
    high: bytes
    upper_end: int
    f_segment_end: int
    write_count: int
    writes: bytes
    mp_tail: int
    mp_tail_bytes: int
    mp_tail_entries: int
    route_count: int
    routes: bytes
    pirqs: bytes
    pins: bytes


MACHINE_RECORD: Final = Layout(
    MachineRecord,
    (
        "I",
        f"{2 * HVM_MEMMAP_ENTRY.size}s",
        "I",
        f"{_HIGH_MAX * HVM_MEMMAP_ENTRY.size}s",
        "I",
        "I",
        "I",
        f"{_WRITES_MAX * 8}s",
        "I",
        "I",
        "I",
        "I",
        f"{_ROUTES_MAX * 8}s",
        f"{PCI_SLOTS}s",
        f"{_PIRQS}s",
    ),
    "MACHINE",
)


def told_apart(spec: MachineSpec) -> tuple[MachineSpec, ...]:
    """The machines that a firmware serves. Of several the last is what it takes a machine for that it does not know."""
    return spec.detects or (spec,)


def machine_records(spec: MachineSpec, rom_size: int) -> str:
    """The records as assembly source, with what they point to."""
    tails: list[str] = []
    lines = ["# Generated from machines.py and abi/chipset.py.", ".balign 4, 0", "machine:"]
    for number, machine in enumerate(told_apart(spec)):
        data = MACHINE_RECORD.pack(_record(machine, rom_size))
        lines.append(f"# {machine.name}")
        if spec.mp_table:  # the record's one address is known to the assembler only
            field = MACHINE_RECORD.fields["mp_tail"]
            label = f"mp_tail_{number}"
            tails += [f"{label}:", *byte_lines(b"".join(mp_tail(machine.chipset)))]
            lines += [*byte_lines(data[: field.offset]), f"    .long {label}"]
            data = data[field.offset + field.size :]
        lines += byte_lines(data)
    lines += tails
    if spec.mp_table:
        lines += ["mp_head:", *byte_lines(mp_head(0, 0)), "pirq_irqs:", *byte_lines(bytes(PIRQ_IRQS))]
    return "\n".join(lines)


def byte_lines(data: bytes) -> list[str]:
    """Bytes as assembly source."""
    return [f"    .byte {', '.join(f'{byte:#04x}' for byte in data[at : at + 16])}" for at in range(0, len(data), 16)]


def _record(spec: MachineSpec, rom_size: int) -> MachineRecord:
    hole = low_hole(spec, rom_size)
    low_rom = low_rom_span(spec, rom_size)
    assert hole is not None
    assert low_rom is not None
    low = [
        MemmapEntry(0, hole.start, MEMMAP_TYPE_RAM),
        MemmapEntry(low_rom.start, low_rom.size, MEMMAP_TYPE_RESERVED),
    ]
    high = [
        MemmapEntry(span.start, span.size, MEMMAP_TYPE_RESERVED) for span in reserved_spans(spec, rom_size) if span != low_rom
    ]
    assert len(high) <= _HIGH_MAX
    writes = [] if spec.chipset is None else _writes(spec.chipset)
    routes = [] if spec.chipset is None else _routes(spec.chipset)
    assert len(writes) <= _WRITES_MAX
    assert len(routes) <= _ROUTES_MAX
    tail = mp_tail(spec.chipset)
    return MachineRecord(
        host_id=0xFFFFFFFF if spec.chipset is None else spec.chipset.host_id,
        low=b"".join(map(HVM_MEMMAP_ENTRY.pack, low)),
        high_words=len(high) * HVM_MEMMAP_ENTRY.size // 4,
        high=b"".join(map(HVM_MEMMAP_ENTRY.pack, high)),
        upper_end=0 if spec.chipset is None else low_rom.start,
        f_segment_end=0 if spec.chipset is None else F_SEGMENT_END,
        write_count=len(writes),
        writes=_pairs(writes),
        mp_tail=0,
        mp_tail_bytes=sum(map(len, tail)),
        mp_tail_entries=len(tail),
        route_count=len(routes),
        routes=_pairs(routes),
        pirqs=bytes(spec.chipset.pirqs) if spec.chipset else bytes(PCI_SLOTS),
        pins=bytes(spec.chipset.pins) if spec.chipset else bytes(_PIRQS),
    )


def _pairs(stores: list[tuple[int, int]]) -> bytes:
    return b"".join(address.to_bytes(4, "little") + value.to_bytes(4, "little") for address, value in stores)


def _routes(chipset: Chipset) -> list[tuple[int, int]]:
    irqs = int.from_bytes(bytes(PIRQ_IRQS), "little")
    return [(config_address(*chipset.isa, register), irqs) for register in chipset.pirq]


def _writes(chipset: Chipset) -> list[tuple[int, int]]:
    """Each stores to 32 bits of which the others are 0 after reset, and stay it."""

    def store(function: PciFunction, register: int, value: int) -> tuple[int, int]:
        return config_address(*function, register), value << 8 * (register & 3)

    writes = [
        store(chipset.pm, chipset.pm_base, PM_BASE | PM_BASE_IO),
        store(chipset.pm, chipset.pm_control, chipset.pm_enable),
    ]
    pam: dict[int, int] = {}  # by 32-bit register
    for piece in PAM_PIECES:  # all of it becomes RAM
        register = chipset.pam + piece.register
        bits = (PAM_READ | PAM_WRITE) << piece.shift << 8 * (register & 3)
        pam[register & ~3] = pam.get(register & ~3, 0) | bits
    writes += [store(chipset.host, register, value) for register, value in sorted(pam.items())]
    if chipset.pciexbar is not None:
        writes.append(store(chipset.host, chipset.pciexbar, PCIEXBAR | PCIEXBAR_ENABLE))
    return writes
