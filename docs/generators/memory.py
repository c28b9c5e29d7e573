"""Where the firmware has what, from machines.py: tables, and a drawing of each machine's physical memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pvhboot.loader.sizes import DEFAULT_MEMORY, parse_memory, show_size
from pvhboot.shim.abi import apic
from pvhboot.shim.abi.x86 import ADDRESS_4G, RESET_VECTOR
from pvhboot.shim.machines import (
    BARE,
    MACHINES,
    MIB,
    PARAMS_PADDR,
    ROM_GRANULE,
    MachineSpec,
    Span,
    firmware_end,
    low_hole,
    low_rom_span,
    ram_spans,
    reserved_spans,
    rom_span,
)

from .markdown import block, code, table

_WIDTH: Final = 70  # of what stands in a box
_USES: Final = {
    "gdt": "what GDTR holds at the handoff, with the TSS descriptor that `ltr` marks busy",
    "stack": "grows downwards from its end, where %esp begins",
    "start_info": "`hvm_start_info`: what %ebx holds at the handoff",
    "modlist": "a `hvm_modlist_entry` for each module",
    "memmap": "up to 126 `hvm_memmap_table_entry`",
    "strings": "the command line; on `bare` those of modules, too",
    "boot_params": "a bzImage's boot_params, with its setup header",
    "setup_data": "pieces of setup_data that would be overwritten where they lie; before that the setup header is read here",
    "control": "the descriptor of DMA, and single numbers",
    "transfer": "the directory, 40 entries at once; without ACPI etc/e820, too",
    "e820": "etc/e820, where the directory is needed later",
    "script": "etc/table-loader",
    "allocated": "a list of the files that have got memory, for pointers and checksums",
    "upper": "ACPI tables, downwards from its end: RAM to the guest, after PAM opened it, but in no range of RAM of the map",
    "f_segment": "RSDP, SMBIOS and MP table, downwards from its end: where an operating system looks for them",
    "mp_table": "the MP table with several processors and no ACPI; the map has it reserved then",
}
assert set(_USES) == set(BARE.low._fields)


def low_table(_argument: str) -> str:
    """Each structure, on each machine."""
    rows = []
    for field, use in _USES.items():
        places: dict[Span, list[str]] = {}
        for name, spec in MACHINES.items():
            if (span := getattr(spec.low, field)) is not None:
                places.setdefault(span, []).append(name)
        for span, names in places.items():
            where = "all" if len(names) == len(MACHINES) else ", ".join(map(code, names))
            rows.append((span, where, use))
    rows.sort(key=lambda row: row[0].bounds)
    return table(
        ("from", "to", "bytes", "what", "machine", "what for"),
        (
            (code(f"{span.start:#x}"), code(f"{span.end:#x}"), f"{span.size:,}", span.name, where, use)
            for span, where, use in rows
        ),
    )


def machine_table(_argument: str) -> str:
    """What differs above the firmware's own data."""
    rows = []
    for name, spec in MACHINES.items():
        whole = spec.low_ram_whole if spec.low_ram_whole != spec.low_ram_max else 0
        parted = f"up to {code(f'{spec.low_ram_max:#x}')}, the rest from 4 GiB on"
        parted += f", if there are {show_size(whole)} or more" if whole else ""
        low = low_rom_span(spec, spec.low_rom_max or ROM_GRANULE)
        rows.append(
            (
                code(name),
                parted,
                "none" if low is None else f"up to {show_size(low.size)} below 1 MiB",
                "changes it" if spec.rom_writable else "is dropped",
                code(f"{firmware_end(spec):#x}"),
            )
        )
    return table(("machine", "RAM", "the ROM's end also", "a store to the ROM", "kernel and initrd from"), rows)


def drawing(argument: str) -> str:
    """The physical memory of a machine with the default RAM, highest address first: in front of each region its begin."""
    spec = MACHINES[argument]
    border = f"+{'-' * (_WIDTH + 2)}+"
    lines = [f"{ADDRESS_4G:#11x} {border}"]
    for span, words in _regions(spec):
        *above, last = _wrapped(words)
        lines += [f"{'':11} | {each:<{_WIDTH}} |" for each in above]
        lines.append(f"{span.start:#11x} | {last:<{_WIDTH}} |")
        if span.start in (MIB, firmware_end(spec), 0):
            lines.append(f"{'':11} {border}")
    return block(lines)


def _regions(spec: MachineSpec) -> Iterator[tuple[Span, str]]:
    """From 4 GiB downwards, without a gap."""
    known = sorted(_known(spec), key=lambda region: region[0].start, reverse=True)
    at = ADDRESS_4G
    for span, words in known:
        if span.end < at:
            ram = parse_memory(DEFAULT_MEMORY)
            yield Span("", span.end, at), "free RAM" if at <= ram else "-"
        yield span, words
        at = span.start
    if at:
        yield Span("", 0, at), "free RAM"


def _known(spec: MachineSpec) -> Iterator[tuple[Span, str]]:
    rom = rom_span(ROM_GRANULE)
    reset = f"ROM, {show_size(rom.size)}, reset vector at {RESET_VECTOR:#x}"
    yield rom, reset + (f", parameter block at {PARAMS_PADDR:#x}" if spec is BARE else "")
    yield Span("", apic.LOCAL_APIC, apic.LOCAL_APIC + apic.LOCAL_APIC_BYTES), "local APIC"
    yield Span("", apic.IO_APIC, apic.IO_APIC + apic.IO_APIC_BYTES), "I/O APIC"
    low_rom = low_rom_span(spec, ROM_GRANULE)
    for span in reserved_spans(spec, ROM_GRANULE):
        if span not in (rom, low_rom):
            yield span, f"{span.name}: PCI configuration space; the firmware opens it"
    (ram,) = ram_spans(spec, parse_memory(DEFAULT_MEMORY))
    kept = f"; the last {show_size(spec.initrd_reserve)} QEMU keeps free of it" if spec.initrd_reserve else ""
    tables = "; the ACPI tables below it" if spec.acpi and spec.chipset is None else ""
    yield (
        Span("", MIB, ram.end),
        f"RAM: the kernel where it is linked, the initrd as high as there is room{kept}{tables}",
    )
    if low_rom is not None and spec.chipset is None:
        yield low_rom, "the ROM's end once more"
    if (hole := low_hole(spec, ROM_GRANULE)) is not None and spec.chipset is not None:
        upper = spec.low.upper
        assert upper is not None
        yield Span("", hole.start, upper.start), "video memory: no RAM"
    for span in spec.low.spans():
        yield span, f"{span.name}{_alias(spec, span)}, {show_size(span.size)}"


def _alias(spec: MachineSpec, span: Span) -> str:
    return " (a copy of the ROM until PAM opens it)" if span == spec.low.f_segment else ""


def _wrapped(words: str) -> Iterator[str]:
    line = ""
    for word in words.split():
        if line and len(line) + 1 + len(word) > _WIDTH:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    yield line


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {
    "memory-low": low_table,
    "memory-machines": machine_table,
    "memory-map": drawing,
}
