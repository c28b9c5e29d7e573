"""Physical memory as the page draws it: what lies where by the plan and by the firmware's manifest."""

import os
from collections.abc import Iterator
from typing import NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.printable import one_line
from pvhboot.shim.abi import apic
from pvhboot.shim.abi.firmware import PARAMS
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import Span, low_hole, low_rom_span, reserved_spans, rom_span

from ..owners import firmware_memory
from .columns import plain


class Region(NamedTuple):
    """[start, end) of physical addresses: `kind` is ram, hole, rom, alias, kernel, module, firmware, reserved or device; `what`
    is a sentence, or empty."""

    start: int
    end: int
    name: str
    kind: str
    what: str = ""


def regions(plan: BootPlan, blob: Blob) -> list[Region]:
    """By address, the wider one first; some lie within others."""
    return sorted(_regions(plan, blob), key=lambda region: (region.start, -region.end))


def regions_json(found: list[Region]) -> list[list[object]]:
    """The same as plain data."""
    return [[plain(region.start), plain(region.end), *region[2:]] for region in found]


def _regions(plan: BootPlan, blob: Blob) -> Iterator[Region]:
    size = len(plan.rom)
    for span in plan.ram:
        yield _region(span, "ram")
    rom, alias, hole = rom_span(size), low_rom_span(plan.spec, size), low_hole(plan.spec, size)
    yield _region(rom, "rom", "The firmware, at the end of the first 4 GiB, where the CPU starts.")
    if alias is not None:
        yield _region(alias, "alias", f"The last {alias.size // 1024} KiB of the ROM once more, below 1 MiB.")
    if hole is not None and hole != alias:
        yield _region(hole, "hole", "No RAM to a kernel: video memory, option ROMs, the BIOS.")
    for number, segment in enumerate(plan.segments):
        zeros = segment.memsz - segment.filesz
        what = f"{segment.filesz} bytes of the kernel's file" + (f", then {zeros} zeros" if zeros else "")
        yield Region(segment.paddr, segment.end, f"kernel segment {number}", "kernel", f"{what}: there before the reset.")
    for module in plan.modules:
        when = "there before the reset" if plan.source == PARAMS else "the firmware puts it there"
        name = one_line(os.path.basename(module.payload.path))
        yield Region(*module.span.bounds, name, "module", f"{module.payload.size} bytes of {name}: {when}.")
    for span in plan.reserved:
        yield _region(span, "reserved", "The memory map calls it reserved.")
    if "low_memory" in blob.manifest:
        for span in firmware_memory(blob.manifest):
            yield _region(span, "firmware", "The firmware keeps this here.")
    yield _region(Span("I/O APIC", apic.IO_APIC, apic.IO_APIC + apic.IO_APIC_BYTES), "device")
    yield _region(Span("local APIC", apic.LOCAL_APIC, apic.LOCAL_APIC + apic.LOCAL_APIC_BYTES), "device")
    for span in reserved_spans(plan.spec, size):
        if span not in (rom, alias):
            yield _region(span, "device", "PCI configuration space, once the firmware has opened it.")


def _region(span: Span, kind: str, what: str = "") -> Region:
    return Region(*span.bounds, one_line(span.name), kind, what)
