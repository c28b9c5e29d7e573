"""Whose memory is whose while a firmware runs: what its plan and its manifest say of each physical address.

Of a firmware that pvhboot has built the manifest names each span that it uses, and nothing else is its to write, but for the
initrd, where fw_cfg says that it belongs, and for ACPI tables, which it has a device put into free RAM above 1 MiB. Of any
other firmware nobody knows that: all RAM is free to it in which no kernel lies, no initrd that is there already, and that is
not reserved.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from pvhboot.loader.image import Source
from pvhboot.loader.memory import GuestMemory, Region
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.ranges import without
from pvhboot.shim.abi.chipset import F_SEGMENT_END
from pvhboot.shim.abi.firmware import PARAMS
from pvhboot.shim.abi.interrupts import REAL_VECTOR_SIZE
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span


class Right(Enum):
    """What a store of the firmware's may do."""

    NONE = 0
    MEND = 1  # change bytes that hold something
    ANY = 2


class Payload(NamedTuple):
    """What has to lie in memory from `paddr` on: `filled` bytes of the source, from `offset` on, and zeros. `placed`: it does
    before the first instruction."""

    paddr: int
    source: Source
    offset: int
    filled: int
    placed: bool

    def expected(self, paddr: int, size: int) -> bytes | None:
        """`size` bytes of it at a physical address; None if the source cannot be read."""
        at = paddr - self.paddr
        data = bytearray(size)
        count = max(0, min(size, self.filled - at))
        try:
            if count:
                self.source.read_into(self.offset + at, memoryview(data)[:count])
        except BootError:
            return None
        return bytes(data)


class Area(NamedTuple):
    """A piece of memory, [start, end), with one owner. `stores` says what the firmware's instructions may do there, `transfers`
    whether a device may write there for it, `pushes` whether it may have its stack there. `rom`: it holds something from the
    start, code among it. `free`: nobody's."""

    name: str
    start: int
    end: int
    stores: Right
    transfers: bool
    pushes: bool = False
    rom: bool = False
    free: bool = False
    payload: Payload | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        """Start and end: what areas are sorted by."""
        return self.start, self.end

    def cut(self, start: int, end: int) -> "Area":
        """The part of it in [start, end)."""
        return self._replace(start=max(self.start, start), end=min(self.end, end))

    def __str__(self) -> str:
        return f"{self.name} ({self.start:#x}-{self.end - 1:#x})"


class Owners:
    """The areas of a board's memory. What the CPU sees may change while it runs (PAM): the areas follow.

    `is_known`: pvhboot has built the firmware. `claims` are the areas that somebody owns, seen or not.
    """

    def __init__(self, plan: BootPlan, blob: Blob, memory: GuestMemory) -> None:
        self.is_known = "low_memory" in blob.manifest
        self.claims = sorted(_claims(plan, blob, self.is_known), key=lambda claim: claim.bounds)
        self._memory = memory
        self._tables = self.is_known and bool(blob.manifest["spec"]["acpi"])
        self._rom_buffers = {id(region.buffer) for region in memory.regions if region.span not in plan.ram}
        self._regions: Sequence[Region] = ()
        self._areas: list[Area] = []
        self._starts: list[int] = []

    def find(self, paddr: int) -> Area | None:
        """Whose byte that is; None where there is no memory."""
        if self._memory.regions is not self._regions:
            self._regions = self._memory.regions
            self._areas = sorted((area for region in self._regions for area in self._parts(region)), key=lambda a: a.bounds)
            self._starts = [area.start for area in self._areas]
        number = bisect_right(self._starts, paddr) - 1
        return self._areas[number] if number >= 0 and paddr < self._areas[number].end else None

    def parts(self, paddr: int, size: int) -> Iterator[tuple[Area, int, int]]:
        """The areas that some bytes lie in, and of each the first one and how many; nothing of what is no memory."""
        end = paddr + size
        while paddr < end:
            area = self.find(paddr)
            if area is None:
                following = bisect_right(self._starts, paddr)
                paddr = self._starts[following] if following < len(self._starts) else end
            else:
                count = min(end, area.end) - paddr
                yield area, paddr, count
                paddr += count

    def before(self, paddr: int) -> Area | None:
        """Of the areas that somebody owns, the last one that ends in front of an address; None: there is none."""
        return max((claim for claim in self.claims if claim.end <= paddr), key=lambda claim: claim.end, default=None)

    def _parts(self, region: Region) -> list[Area]:
        start, end = region.span.start, region.span.end
        if id(region.buffer) in self._rom_buffers:
            # What can be written, another's firmware may use as RAM; by a store to the low end it may find out whether it can.
            theirs = not self.is_known and (not region.readonly or end <= F_SEGMENT_END)
            return [Area("the ROM", start, end, Right.ANY if theirs else Right.NONE, theirs, pushes=theirs, rom=True)]
        if region.readonly:
            return [Area("shadow RAM that is read-only", start, end, Right.NONE, False)]
        claimed = [claim.cut(start, end) for claim in self.claims if claim.start < end and start < claim.end]
        rest = without([region.span], [Span("", *area.bounds) for area in claimed])
        return claimed + [self._free(*span.bounds) for span in rest]

    def _free(self, start: int, end: int) -> Area:
        if not self.is_known:
            return Area("free RAM", start, end, Right.ANY, True, pushes=True, free=True)
        tables = self._tables and start >= F_SEGMENT_END
        return Area("free RAM", start, end, Right.MEND if tables else Right.NONE, tables, free=True)


def firmware_memory(manifest: Mapping[str, Any]) -> list[Span]:
    """What a firmware keeps in RAM, by its manifest, and what its stages do. KeyError, TypeError or ValueError for what is no
    manifest."""
    pieces = [(piece["name"], piece) for piece in manifest["low_memory"]]
    pieces += [(f"memory of {stage['file']}", piece) for stage in manifest["stages"] for piece in stage["memory"]]
    return [Span(str(name), int(piece["start"], 16), int(piece["end"], 16)) for name, piece in pieces]


def _claims(plan: BootPlan, blob: Blob, is_known: bool) -> list[Area]:
    claims = [*_payloads(plan, is_known)]
    claims += [Area("reserved RAM", span.start, span.end, Right.NONE, False) for span in plan.reserved]
    low = plan.spec.low
    if is_known:
        own = firmware_memory(blob.manifest)
        computed = [span.name for span in (low.gdt, low.stack, low.start_info, low.memmap)]
    else:
        own = [Span("the interrupt vectors", 0, REAL_VECTOR_SIZE << 8)]  # a vector's number is a byte
        computed = [own[0].name]
    for span in own:
        for part in without([span], [Span("", *claim.bounds) for claim in claims]):  # a stage's may be within another
            # No device has anything to deliver to what is computed.
            claims.append(Area(*part, Right.ANY, part.name not in computed, pushes=part.name == low.stack.name))
    return claims


def _payloads(plan: BootPlan, is_known: bool) -> Iterator[Area]:
    placed = plan.source == PARAMS
    for number, segment in enumerate(plan.segments):
        payload = Payload(segment.paddr, plan.kernel, segment.offset, segment.filesz, True)
        yield Area(f"kernel segment {number}", segment.paddr, segment.end, Right.NONE, False, payload=payload)
    for module in plan.modules:
        payload = Payload(module.paddr, module.payload, 0, module.payload.size, placed)
        # Until the initrd is there, another's firmware may use its place for something else.
        right = Right.NONE if placed or is_known else Right.ANY
        free = right is Right.ANY
        yield Area(*module.span, right, free, pushes=free, payload=payload)
