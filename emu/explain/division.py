"""Which instruction belongs to which chapter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import CR0_PE
from pvhboot.shim.machines import rom_span

from ..recorded import Recorded
from ..source_lines import SourceLines
from ..trace import Record
from .traffic import is_fw_cfg

RESET: Final = "reset"
A20: Final = "a20"
GDT: Final = "gdt"
PROTECTED: Final = "protected"
FLAT: Final = "flat"
SETUP: Final = "setup"  # of a firmware without sources: what it does before it asks the host
PARAMS: Final = "params"
CHIPSET: Final = "chipset"
FW_CFG: Final = "fw_cfg"
MEMMAP: Final = "memmap"
KERNEL: Final = "kernel"
ACPI: Final = "acpi"
TABLES: Final = "tables"
START_INFO: Final = "start_info"
STAGE: Final = "stage"
TSS: Final = "tss"
MTRR: Final = "mtrr"
HANDOFF: Final = "handoff"
ENTRY: Final = "entry"
CHECK: Final = "check"
END: Final = "end"

# The order in which they are told, which is that of the boot.
ORDER: Final = (
    *(RESET, A20, GDT, PROTECTED, FLAT, SETUP, PARAMS, CHIPSET, FW_CFG, MEMMAP, KERNEL, ACPI, TABLES, START_INFO, STAGE),
    *(TSS, MTRR, HANDOFF, ENTRY, CHECK, END),
)

_CALLER: Final = ""  # of a routine: the chapter that calls it

# The firmware's files: which chapter tells them, and from which line on (how that begins) another one does.
PIECES: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "reset.s": (("", RESET),),
    "realmode.s": (("", GDT), ("mov eax, CR0_PE", PROTECTED)),
    "flat32.s": (("", FLAT),),
    "params.s": (("", PARAMS),),
    "memmap.s": (("", MEMMAP),),
    "modules.s": (("", KERNEL),),
    "chipset.s": (("", CHIPSET),),
    "fw_cfg.s": (("", FW_CFG),),
    "e820.s": (("", FW_CFG), ("MACHINE esi, MACHINE_LOW", MEMMAP)),
    "fw_cfg_kernel.s": (("", KERNEL),),
    "bzimage.s": (("", KERNEL),),
    "acpi.s": (("", ACPI),),
    "smbios.s": (("", TABLES),),
    "mptable.s": (("", TABLES),),
    "start_info.s": (("", START_INFO),),
    "stage.s": (("", STAGE),),
    "handoff.s": (("", TSS), ("mov eax, CPUID_FEATURES_LEAF", MTRR), ("handoff_mtrr_done:", HANDOFF)),
    "linux.s": (("", HANDOFF),),
    "panic.s": (("", END), ("tell:", _CALLER), ("panic_end:", END)),
    **dict.fromkeys(("params_panics.s", "fw_cfg_panics.s", "acpi_panics.s", "stage_end.s"), (("", END),)),
    **dict.fromkeys(
        ("fw_cfg_read.s", "ram_range.s", "pci_store.s", "pci_irqs.s", "cpus.s", "fseg.s", "acpi_routines.s")
        + ("memmap_insert.s", "sum_bytes.s"),
        (("", _CALLER),),
    ),
}  # fmt: skip


class Part(NamedTuple):
    """The instructions of a chapter, not always in one piece; all registers behind the last of them, and the same without what
    they have changed (empty: there are none)."""

    name: str
    records: tuple[Record, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]


def chapter_at(sources: SourceLines, file: str, number: int) -> str | None:
    """The chapter that a source line belongs to; None: that of whoever calls it. What is in a file that is not the firmware's
    own is a custom stage's."""
    found = STAGE
    for start, name in PIECES.get(file, ()):
        first = sources.number_of(file, start) if start else 1
        if first is not None and first <= number:  # None: somebody has changed the source
            found = name
    return found or None


def divide(recorded: Recorded) -> list[Part]:
    """The instructions of the firmware by chapters, in their order."""
    names = _by_source(recorded) if recorded.outcome.blob.listing else _by_events(recorded)
    return _parts(recorded, names)


def _by_source(recorded: Recorded) -> list[str]:
    """Of a firmware with sources. Where it has gone astray, to what is not its ROM, the story is at its end."""
    rom = rom_span(len(recorded.outcome.plan.rom))
    known: dict[int, str | None] = {}
    names: list[str] = []
    for record in recorded.firmware:
        at = record.address
        if at not in known:
            if record.place is not None and record.place.source:  # that of what is written as data, too
                file, _, number = record.place.source.rpartition(":")
                known[at] = chapter_at(recorded.sources, file, int(number))
            else:
                known[at] = None if rom.start <= at < rom.end else END
        names.append(known[at] or (names[-1] if names else RESET))
    return names


def _by_events(recorded: Recorded) -> list[str]:
    """Of a firmware without sources: by what it does to the CPU, and by when it speaks to fw_cfg."""
    records = recorded.firmware
    table = _first(records, lambda record: "gdtr_base" in record.changes)
    mode = _first(records, lambda record: bool(record.changes.get("cr0", 0) & CR0_PE))
    spoken = [at for at, record in enumerate(records) if any(map(is_fw_cfg, record.effects))]
    begins = [
        (0, RESET),
        (min((at for at in (table, mode) if at is not None), default=None), PROTECTED),
        (_first(records, lambda record: record.bits != 16), SETUP),
        (spoken[0] if spoken else None, FW_CFG),
        (spoken[-1] + 1 if spoken else None, END if recorded.handoff is None else START_INFO),
        (None if recorded.handoff is None else recorded.handoff - 1, HANDOFF),
    ]
    names: list[str] = []
    for at in range(len(records)):
        names.append(next(name for begin, name in reversed(begins) if begin is not None and begin <= at))
    if table is not None:
        names[table] = GDT
    return names


def _first(records: Sequence[Record], wanted: Callable[[Record], bool]) -> int | None:
    return next((at for at, record in enumerate(records) if wanted(record)), None)


def _parts(recorded: Recorded, names: Sequence[str]) -> list[Part]:
    """Each chapter's instructions, with what they have made of the registers."""
    last = {name: at for at, name in enumerate(names)}
    records: dict[str, list[Record]] = {name: [] for name in last}
    first: dict[str, dict[str, int]] = {name: {} for name in last}  # registers in front of the first change
    after: dict[str, dict[str, int]] = {}
    for at, (name, record, state) in enumerate(zip(names, recorded.firmware, recorded.states(), strict=False)):
        records[name].append(record)
        for register in record.changes:
            first[name].setdefault(register, state[register])
        if at == last[name]:
            after[name] = {**state, **record.changes}
    return [Part(name, tuple(records[name]), {**after[name], **first[name]}, after[name]) for name in ORDER if name in records]
