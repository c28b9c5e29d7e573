"""A boot that is to be told: its trace, divided into chapters, with what its host holds."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pvhboot.loader.fw_cfg import directory, fw_cfg_items, item_bytes
from pvhboot.loader.image import SizedSource
from pvhboot.shim.abi import acpi_loader
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.machines import Span, low_rom_span

from ..descriptors import Descriptor, read_gdt
from ..disassembly import words_of
from ..recorded import Recorded
from ..trace import Record
from .changes import named_spans
from .division import Part, divide
from .lines import Sources
from .traffic import Traffic

if TYPE_CHECKING:
    from pvhboot.loader.recording import Recording

    from ..diagnosis import Diagnosis

_GDT_BYTES: Final = 256  # of a table that are looked at


class Telling:
    """What the chapters are made of. The kernel's file must be open. `diagnosis`: of a boot that failed, what is said of it."""

    def __init__(self, recorded: Recorded, recording: "Recording | None" = None, diagnosis: "Diagnosis | None" = None) -> None:
        self.recorded = recorded
        self.outcome = recorded.outcome
        self.plan = recorded.outcome.plan
        self.diagnosis = diagnosis
        self.own = bool(recorded.outcome.blob.listing)
        asks = self.plan.spec.source == FW_CFG
        self.items: Mapping[int, SizedSource] = fw_cfg_items(self.plan, recording) if asks else {}
        found = directory(self.items) if asks else {}
        self.files = {key: file.name.rstrip(b"\0").decode("ascii", "backslashreplace") for key, file in found.items()}
        self.traffic = Traffic(recorded.firmware, self.plan.spec, self.items, self.files)
        self.sources = Sources(recorded)
        self.parts: Mapping[str, Part] = {part.name: part for part in divide(recorded)}
        self.spans: list[Span] = named_spans(self.outcome)

    def file(self, name: bytes) -> bytes | None:
        """A file of fw_cfg's, None if the host has none of that name."""
        key = next((key for key, known in self.files.items() if known == name.decode()), None)
        return None if key is None else item_bytes(self.items[key])

    @cached_property
    def script(self) -> bytes | None:
        """The table-loader's."""
        return self.file(acpi_loader.LOADER_FILE)

    @cached_property
    def gdt_load(self) -> Record | None:
        """The instruction that loaded a GDT first."""
        return self.first(lambda record: words_of(record.text).name.startswith("lgdt"))

    @cached_property
    def gdt(self) -> tuple[int, int, Mapping[int, Descriptor]]:
        """The first GDT that was loaded: base, limit, and its descriptors by selector; of none 0, 0 and nothing."""
        memory = self.outcome.memory
        if self.gdt_load is None or memory is None:
            return 0, 0, {}
        state = self.after(self.gdt_load)
        base, limit = state["gdtr_base"], state["gdtr_limit"]
        return base, limit, read_gdt(memory, base, min(limit, _GDT_BYTES - 1))

    def first(self, wanted: Callable[[Record], bool]) -> Record | None:
        """The first instruction of the firmware of that kind."""
        return next((record for record in self.recorded.firmware if wanted(record)), None)

    def before(self, record: Record) -> Mapping[str, int]:
        """All registers in front of an instruction."""
        for state, other in zip(self.recorded.states(), self.recorded.records, strict=False):
            if other is record:
                return dict(state)
        raise ValueError(f"instruction {record.number} is not in the trace")

    def after(self, record: Record) -> Mapping[str, int]:
        """All registers behind it."""
        return {**self.before(record), **record.changes}

    def in_low_rom(self, address: int) -> bool:
        """Whether an address lies in the ROM's copy below 1 MiB."""
        low = low_rom_span(self.plan.spec, len(self.plan.rom))
        return low is not None and low.start <= address < low.end
