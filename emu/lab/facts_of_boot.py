"""Facts on what %ebx leads to, and on the payload: by the clauses that are violated."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from pvhboot.loader.placed import first_difference
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.pvh import HVM_MEMMAP_ENTRY, HVM_MODLIST_ENTRY, HVM_START_INFO, MemmapEntry, StartInfo
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE

from ..causes.scene import counted
from ..handoff import Handoff
from ..subject import Subject
from ..tables import Tables
from .fact import Fact, done_by, stored
from .past import Past, Write

_MAGIC: Final = pvh.XEN_HVM_START_MAGIC_VALUE.to_bytes(4, "little")


class BootFacts:
    """Of a handoff that violates clauses."""

    def __init__(self, past: Past, handoff: Handoff, tables: Tables, violated: dict[str, str]) -> None:
        self._past, self._handoff, self._tables, self._violated = past, handoff, tables, violated
        self._plan = past.recorded.outcome.plan
        self._ebx = handoff.registers["ebx"]

    def facts(self) -> Iterator[Fact]:
        """One for each thing that is wrong: of what follows from another, nothing is said."""
        info = self._tables.start_info
        elsewhere = self._start_info() if "start_info.magic" in self._violated else None
        if elsewhere is not None and self._ebx == self._plan.spec.low.start_info.start:
            yield stored(
                self._past, f"start_info is at {elsewhere.start:#x}, not at {self._ebx:#x}, where ebx points", elsewhere
            )
        elif elsewhere is not None:
            what = f"ebx is {self._ebx:#x}, not {elsewhere.start:#x}, where start_info lies"
            yield done_by(self._past, what, self._past.last_change("ebx"))
        elif info is None:
            what = f"ebx is {self._ebx:#x}, where no memory is, and there is no start_info"
            yield done_by(self._past, what, self._past.last_change("ebx"))
        else:
            yield from self._of_info(info)
            yield from self._memmap(info)
            yield from self._modules(info)
            yield from self._cmdline(info)
        yield from self._payload()

    def _start_info(self) -> Write | None:
        """The store of one's magic, if ebx does not lead there."""
        for write in self._past.writes:
            if write.start != self._ebx and self._handoff.try_read(write.start, len(_MAGIC)) == _MAGIC:
                return self._past.last_write(write.start, len(_MAGIC))
        return None

    def _field(self, name: str) -> Write | None:
        field = HVM_START_INFO.fields[name]
        return self._past.last_write(self._ebx + field.offset, field.size)

    def _of_info(self, info: StartInfo) -> Iterator[Fact]:
        if "start_info.location" in self._violated:
            yield done_by(self._past, self._violated["start_info.location"], self._past.last_change("ebx"))
        if "start_info.magic" in self._violated:
            what = f"the magic of start_info is {info.magic:#x}, not {pvh.XEN_HVM_START_MAGIC_VALUE:#x}"
            yield stored(self._past, what, self._field("magic"))
        if "start_info.fields" in self._violated:
            wanted = {"version": pvh.HVM_START_INFO_VERSION, "flags": 0, "reserved": 0}
            for name, value in wanted.items():
                held: int = getattr(info, name)
                if held < value or (held and not value):
                    yield stored(self._past, f"{name} of start_info is {held:#x}, not {value:#x}", self._field(name))
        if "acpi.tables" in self._violated:
            yield stored(self._past, self._violated["acpi.tables"], self._field("rsdp_paddr"))

    def _memmap(self, info: StartInfo) -> Iterator[Fact]:
        """Of the memory map one alone: the others follow from it."""
        violated, entries = [clause for clause in self._violated if clause.startswith("memmap.")], self._tables.memmap
        if not violated:
            return
        if "memmap.location" in violated:
            field = "memmap_paddr" if 1 <= info.memmap_entries <= pvh.MEMMAP_MAX_ENTRIES else "memmap_entries"
            yield stored(self._past, self._violated[violated[0]], self._field(field))
        elif (there := self._entries_there()) != info.memmap_entries:
            yield self._miscounted(info, there)
        elif found := self._overlap(entries) or self._unsound(entries) or self._unplanned():
            what, first, last = found
            writes = [self._entry(number) for number in {first, last}]
            yield stored(self._past, what, max(filter(None, writes), key=lambda one: one.record.number, default=None))
        else:
            yield stored(self._past, self._violated[violated[0]], self._field("memmap_entries"))

    def _miscounted(self, info: StartInfo, there: int) -> Fact:
        """Of a map with other than memmap_entries entries."""
        if not there:
            what = f"memmap_paddr is {info.memmap_paddr:#x}, and nobody has stored an entry there"
            return stored(self._past, what, self._field("memmap_paddr"))
        last = self._entry(there - 1)
        if there < info.memmap_entries and "memmap.count" not in self._violated and last is not None:
            what = f"entry {there} of the memory map is missing: there should be {info.memmap_entries}, as memmap_entries says"
            return done_by(self._past, what, last.record, f"entry {there - 1} is stored")
        what = f"memmap_entries is {info.memmap_entries}, but {there} {'entry is' if there == 1 else 'entries are'} there"
        return stored(self._past, what, self._field("memmap_entries"))

    def _entry(self, number: int) -> Write | None:
        info = self._tables.start_info
        assert info is not None
        return self._past.last_write(info.memmap_paddr + number * HVM_MEMMAP_ENTRY.size, HVM_MEMMAP_ENTRY.size)

    def _entries_there(self) -> int:
        """How many somebody has written, one behind the other, that say something."""
        info, count = self._tables.start_info, 0
        assert info is not None
        while count <= pvh.MEMMAP_MAX_ENTRIES and self._entry(count) is not None:
            data = self._handoff.try_read(info.memmap_paddr + count * HVM_MEMMAP_ENTRY.size, HVM_MEMMAP_ENTRY.size)
            if data is None or not any(data[: HVM_MEMMAP_ENTRY.fields["type"].offset]):
                break
            count += 1
        return count

    def _overlap(self, entries: Sequence[MemmapEntry]) -> tuple[str, int, int] | None:
        if "memmap.disjoint" not in self._violated:
            return None
        ordered = sorted(enumerate(entries), key=lambda one: one[1])
        for (first, before), (second, after) in pairwise(ordered):
            if after.addr < before.end:
                what = f"entry {first} of the memory map, {entry_text(before)}, overlaps entry {second}, {entry_text(after)}"
                return what, first, second
        return None

    def _unsound(self, entries: Sequence[MemmapEntry]) -> tuple[str, int, int] | None:
        for number, entry in enumerate(entries):
            if entry.reserved:
                return f"entry {number} of the memory map has {entry.reserved:#x} in its reserved field, not 0", number, number
            if entry.type not in pvh.MEMMAP_TYPE_NAMES:
                return f"entry {number} of the memory map has the type {entry.type}, which there is not", number, number
        for number, (before, after) in enumerate(pairwise(entries)):
            if after.addr < before.addr:
                what = f"of the memory map entry {number + 1}, {entry_text(after)}, comes after {number}, {entry_text(before)}"
                return what, number, number + 1
        return None

    def _unplanned(self) -> tuple[str, int, int] | None:
        planned = self._plan.memmap
        if planned is None:
            return None
        told = Subject(self._handoff, self._plan, self._tables).map_without_tables()
        for number, (one, other) in enumerate(zip(told, planned, strict=False)):
            if tuple(one) != tuple(other):
                found, wanted = (entry_text(MemmapEntry(*entry, 0)) for entry in (one, other))
                raw = next((at for at, entry in enumerate(self._tables.memmap) if entry.addr == one[0]), number)
                return f"entry {raw} of the memory map is {found}, not {wanted}", raw, raw
        if len(told) < len(planned):
            missing = entry_text(MemmapEntry(*planned[len(told)], 0))
            return f"the memory map has no entry for {missing}", len(told) - 1, len(told) - 1
        return None

    def _modules(self, info: StartInfo) -> Iterator[Fact]:
        planned = self._plan.modules
        if "modules.list" in self._violated:
            field = "nr_modules" if info.nr_modules != len(planned) else "modlist_paddr"
            yield stored(self._past, self._violated["modules.list"], self._field(field))
            return
        if "modules.entries" not in self._violated:
            return
        for number, entry in enumerate(self._tables.modules):
            at = info.modlist_paddr + number * HVM_MODLIST_ENTRY.size
            for name in ("paddr", "size", "cmdline_paddr", "reserved"):
                held: int = getattr(entry, name)
                wanted = 0
                if number < len(planned) and name in ("paddr", "size"):
                    wanted = planned[number].paddr if name == "paddr" else planned[number].payload.size
                if held != wanted:
                    first, last = _differing(held, wanted)
                    start = at + HVM_MODLIST_ENTRY.fields[name].offset + first
                    what = f"{name} of module {number} is {held:#x}, not {wanted:#x}"
                    if name == "paddr":
                        what += self._cut(held, entry.size)
                    yield stored(self._past, what, self._past.last_write(start, last + 1 - first))
                    return
        yield stored(self._past, self._violated["modules.entries"], None)

    def _cut(self, paddr: int, size: int) -> str:
        """Whether an address is what is left of one at the end of RAM above 4 GiB."""
        whole, ram = paddr + ADDRESS_4G, self._plan.ram[-1]
        is_last = ram.start <= whole and whole + size <= ram.end < whole + size + PAGE_SIZE
        return f": what 32 bits hold of {whole:#x}, at the end of RAM" if is_last and ram.start >= ADDRESS_4G else ""

    def _cmdline(self, info: StartInfo) -> Iterator[Fact]:
        if "cmdline" not in self._violated:
            return
        what, write = self._violated["cmdline"], None
        if info.cmdline_paddr == self._plan.spec.low.strings.start:
            told, wanted = (line + b"\0" for line in (self._tables.cmdline or b"", self._plan.cmdline or b""))
            differing = next((at for at, (one, other) in enumerate(zip(told, wanted, strict=False)) if one != other), 0)
            write = self._past.last_write(info.cmdline_paddr + differing, 1)
        if write is not None:
            yield stored(self._past, what, write)
        else:
            yield stored(self._past, f"cmdline_paddr is {info.cmdline_paddr:#x}: {what}", self._field("cmdline_paddr"))

    def _payload(self) -> Iterator[Fact]:
        if "memory.payload" not in self._violated:
            return
        for segment in self._plan.segments:
            write = self._past.last_write(segment.paddr, segment.memsz)
            if write is not None and self._violated["memory.payload"].startswith(("kernel", "the zeroed")):
                size, start = write.end - write.start, write.start
                went = counted(size, f"byte at {start:#x} goes", f"bytes at {start:#x} go")
                what = f"{went} over the kernel, which lies at {segment.paddr:#x}-{segment.end:#x}"
                module = next((one for one in self._plan.modules if one.payload.size == size and write.by_device), None)
                if module is not None:
                    what += f": they are the initrd's, and belong to {module.paddr:#x}"
                yield stored(self._past, what, write)
                return
        if "modules.entries" in self._violated or not self._plan.modules:
            return
        module = self._plan.modules[0]
        write = self._past.last_write(module.paddr, module.payload.size)
        detail = first_difference(self._plan, self._handoff.memory) or self._violated["memory.payload"]
        if write is None:
            what = f"the initrd is not at {module.paddr:#x}, where it belongs: nobody has put it there"
            yield Fact(what, "", self._past.end)
        elif write.end - write.start != module.payload.size:
            what = (
                f"of the initrd {write.end - write.start} bytes are transferred to {write.start:#x}, not {module.payload.size}"
            )
            yield stored(self._past, what, write)
        else:
            yield stored(self._past, detail, write)


def _differing(one: int, other: int) -> tuple[int, int]:
    """The first and the last byte, from the lowest, in which two numbers differ."""
    mixed = one ^ other
    return ((mixed & -mixed).bit_length() - 1) // 8, (mixed.bit_length() - 1) // 8


def entry_text(entry: MemmapEntry) -> str:
    """A range of the memory map, as in "0x0-0xa0000 (RAM)"."""
    return f"{entry.addr:#x}-{entry.end:#x} ({pvh.MEMMAP_TYPE_NAMES.get(entry.type, f'type {entry.type}')})"
