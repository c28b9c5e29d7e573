"""Lays out code, tables and reset vector, and makes a Blob of them."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

from .abi import acpi_loader, fw_cfg, params, smbios
from .abi.firmware import ACPI, FW_CFG, PANICS, PARAMS, POSTS, Panic, panic_message, post_message
from .abi.x86 import ADDRESS_4G, RESET_VECTOR
from .assembler import Assembly, assemble
from .blob import Blob
from .defs import Options, firmware_symbols
from .errors import AssemblyError, BootError
from .machine_records import byte_lines, machine_records, told_apart
from .machines import CODE_ORIGIN, MP_STATIC_PADDR, PARAMS_PADDR, ROM_GRANULE, ROM_MAX, MachineSpec, rom_span
from .mp_tables import static_mp_table
from .source import Unit
from .stage import SLOTS, Stage
from .version import VERSION

_ASM_FILE: Final = re.compile(r"\w+\.s")
_STAGE: Final = "stage.s"
_STAGE_END: Final = "stage_end.s"
_MP_STATIC: Final = "mp_static"  # the label of the table that needs no making


def _always(_spec: MachineSpec) -> bool:
    return True


def _from_block(spec: MachineSpec) -> bool:
    return spec.source == PARAMS


def _from_fw_cfg(spec: MachineSpec) -> bool:
    return spec.source == FW_CFG


def _has_acpi(spec: MachineSpec) -> bool:
    return spec.acpi


def _has_chipset(spec: MachineSpec) -> bool:
    return spec.has_chipset


def _has_mp_table(spec: MachineSpec) -> bool:
    return spec.mp_table


# The firmware's files, and which firmware has them: the phases in the order in which the CPU walks them...
_PHASES: Final[tuple[tuple[str, Callable[[MachineSpec], bool]], ...]] = (
    ("realmode.s", _always),
    ("flat32.s", _always),
    ("params.s", _from_block),
    ("memmap.s", _from_block),
    ("modules.s", _from_block),
    ("chipset.s", _has_chipset),
    ("fw_cfg.s", _from_fw_cfg),
    ("e820.s", _from_fw_cfg),
    ("fw_cfg_kernel.s", _from_fw_cfg),
    ("acpi.s", _has_acpi),
    ("smbios.s", _has_chipset),
    ("mptable.s", _has_mp_table),
    ("start_info.s", _always),
)
# ...and behind a custom stage the last of them, what they jump to, and data.
_ENDING: Final[tuple[tuple[str, Callable[[MachineSpec], bool]], ...]] = (
    ("handoff.s", _always),
    ("memmap_insert.s", lambda spec: spec.acpi or spec.mp_table),
    ("sum_bytes.s", lambda spec: spec.acpi or spec.mp_table),
    ("pci_irqs.s", lambda spec: spec.mp_table and spec.has_chipset),
    ("cpus.s", _has_mp_table),
    ("pci_store.s", _has_chipset),
    ("fseg.s", _has_chipset),
    ("acpi_routines.s", _has_acpi),
    ("acpi_panics.s", _has_acpi),
    ("bzimage.s", _from_fw_cfg),
    ("linux.s", _from_fw_cfg),
    ("fw_cfg_read.s", _from_fw_cfg),
    ("ram_range.s", _from_fw_cfg),
    ("params_panics.s", _from_block),
    ("fw_cfg_panics.s", _from_fw_cfg),
    ("panic.s", _always),
    ("tables.s", _always),
)
_RESET: Final = "reset.s"
STAGE_LABELS: Final = {"before-handoff": "stage_before_handoff"}
assert tuple(STAGE_LABELS) == SLOTS


def asm_source(name: str) -> str:
    """The text of one of the firmware's own assembly files. FileNotFoundError if there is none of that name, which may be a
    manifest's: it leads to no other file."""
    if not _ASM_FILE.fullmatch(name):
        raise FileNotFoundError(name)
    return resources.files(__package__).joinpath("asm", name).read_text(encoding="utf-8")


def build(
    spec: MachineSpec,
    stages: Sequence[Stage] = (),
    *,
    size: int = ROM_GRANULE,
    verbose: bool = False,
    marks: bool = False,
    sources: Mapping[str, str] | None = None,
) -> Blob:
    """Assembles the firmware of a machine into a ROM of `size` bytes. The same input gives the same bytes.

    `verbose` adds progress on the POST port and the debug console, `marks` those of a boot's time; `sources` replaces files of
    the firmware by name (for experiments, and for mutants).
    Raises BootError for a size that is not possible and AssemblyError for source that does not assemble or does not fit.
    """
    if size % ROM_GRANULE or not ROM_GRANULE <= size <= ROM_MAX:
        raise BootError(f"a ROM of {size} bytes is not possible: it takes a multiple of 64 KiB, 64 KiB to 16 MiB")
    if len({stage.slot for stage in stages}) != len(stages):
        raise BootError("each stage slot takes one stage")
    options = Options(size, verbose, marks)
    assembly = assemble(firmware_units(spec, stages, sources or {}, options), firmware_symbols(spec, options))
    _require_room(assembly, stages)
    rom = bytearray(size)
    paddr = rom_span(size).start
    if spec.source == PARAMS:
        at = PARAMS_PADDR - paddr
        rom[at : at + len(params.EMPTY_PARAMS)] = params.EMPTY_PARAMS
    for address, data in assembly.pieces:
        rom[address - paddr : address - paddr + len(data)] = data
    return Blob(bytes(rom), assembly.labels, assembly.listing, _manifest(spec, stages, options, bytes(rom), assembly))


def firmware_units(spec: MachineSpec, stages: Sequence[Stage], sources: Mapping[str, str], options: Options) -> list[Unit]:
    """The source files of a firmware in order, as `build` assembles them."""
    phases, ending = ([name for name, wanted in files if wanted(spec)] for files in (_PHASES, _ENDING))
    names = ["macros.s", *phases, *([_STAGE] if stages else []), *ending]
    unknown = set(sources) - {*names, _RESET}
    if unknown:
        raise BootError(f"the firmware has no source file {', '.join(sorted(unknown))}")

    def text(name: str) -> str:
        return sources[name] if name in sources else asm_source(name)

    units = [Unit(names[0], text(names[0]), CODE_ORIGIN), *(Unit(name, text(name)) for name in names[1:])]
    units.append(Unit("panics.s", _panic_records(spec)))
    if options.verbose:
        units.append(Unit("posts.s", _post_records()))
    if spec.source == FW_CFG:
        units.append(Unit("machine_records.s", machine_records(spec, options.size)))
    if spec.acpi:
        units.append(Unit("file_names.s", _file_names(spec)))
    for stage in stages:
        label = STAGE_LABELS[stage.slot]
        units += [
            Unit(_STAGE, f".code32\n{label}:"),
            Unit(stage.name, stage.text),
            Unit(_STAGE, ".code32"),
            Unit(_STAGE_END, asm_source(_STAGE_END)),
        ]
    if spec.mp_table and any(machine.chipset is None for machine in told_apart(spec)):
        table = "\n".join(byte_lines(static_mp_table(MP_STATIC_PADDR)))
        units.append(Unit("mp_static.s", f"# Generated from mp_tables.py.\n{_MP_STATIC}:\n{table}", MP_STATIC_PADDR))
    return [*units, Unit(_RESET, text(_RESET), RESET_VECTOR)]


def _require_room(assembly: Assembly, stages: Sequence[Stage]) -> None:
    """AssemblyError unless the code ends before the reset vector, and what stands there before 4 GiB."""

    def last_at(paddr: int) -> int:
        return max((index for index, (address, _) in enumerate(assembly.pieces) if address == paddr), default=-1)

    start = last_at(RESET_VECTOR)
    if start < 0:
        raise AssemblyError(f"{_RESET}: nothing stands at the reset vector")
    limit = MP_STATIC_PADDR if _MP_STATIC in assembly.labels else RESET_VECTOR
    code, reset = assembly.pieces[: last_at(limit)], assembly.pieces[start:]
    end = max((address + len(data) for address, data in code), default=CODE_ORIGIN)
    if end > limit:
        blame = stages[-1].name if stages else "the firmware"
        free = limit - CODE_ORIGIN
        raise AssemblyError(f"{blame}: {end - CODE_ORIGIN} bytes of code do not fit: there are {free}")
    end = max(address + len(data) for address, data in reset)
    if end > ADDRESS_4G:
        raise AssemblyError(f"{_RESET}: {end - RESET_VECTOR} bytes do not fit: there are {ADDRESS_4G - RESET_VECTOR}")


def _file_names(spec: MachineSpec) -> str:
    """The files that the firmware looks for itself, padded as the directory has them."""
    names = {"acpi_script": acpi_loader.LOADER_FILE, "acpi_rsdp": acpi_loader.RSDP_FILE}
    if spec.has_chipset:
        names |= {"smbios_tables": smbios.SMBIOS_TABLES_FILE, "smbios_anchor": smbios.SMBIOS_ANCHOR_FILE}
    lines = ["# Generated from abi/."]
    for label, name in names.items():
        padding = fw_cfg.FW_CFG_MAX_FILE_PATH - len(name)
        lines += [f"{label}_name:", f'    .ascii "{name.decode()}"', f"    .skip {padding}"]
    return "\n".join(lines)


def _panic_records(spec: MachineSpec) -> str:
    """Each panic of this firmware as panic.s reads it."""
    lines = ["# Generated from abi/firmware.py."]
    for panic in panics_of(spec):
        lines += _record(f"panic_{panic.name}", panic.code, panic_message(panic))
    return "\n".join(lines)


def _post_records() -> str:
    """And what a verbose build tells."""
    lines = ["# Generated from abi/firmware.py."]
    for post in POSTS:
        lines += _record(f"post_{post.name}", post.code, post_message(post))
    return "\n".join(lines)


def _record(label: str, code: int, message: str) -> list[str]:
    """Code, length of the text in bytes, text."""
    return [f"{label}:", f"    .byte {code:#x}, {len(message) + 1}", f'    .ascii "{message}\\n"']


def panics_of(spec: MachineSpec) -> list[Panic]:
    """Those that the firmware of a machine can end in."""
    return [panic for panic in PANICS if spec.source in panic.sources or (spec.acpi and ACPI in panic.sources)]


def _manifest_spec(spec: MachineSpec) -> dict[str, Any]:
    """What the firmware is for: a machine, or those that it tells apart."""
    common = {"source": spec.source, "acpi": spec.acpi, "ram_min": hex(spec.ram_min), "ram_max": hex(spec.ram_max)}
    if spec.detects:
        return {**common, "detects": [machine.name for machine in spec.detects]}
    return {
        **common,
        "qemu": spec.qemu,
        "chipset": None if spec.chipset is None else spec.chipset.name,
        "low_ram_max": hex(spec.low_ram_max),
        "low_ram_whole": hex(spec.low_ram_whole),
        "low_rom_max": hex(spec.low_rom_max),
        "rom_writable": spec.rom_writable,
        "unclaimed": spec.unclaimed,
    }


def _manifest(spec: MachineSpec, stages: Sequence[Stage], options: Options, rom: bytes, assembly: Assembly) -> dict[str, Any]:
    block = {"paddr": hex(PARAMS_PADDR), "max_size": params.PARAMS_MAX_SIZE, "version": params.PARAMS_VERSION}
    return {
        "pvhboot": VERSION,
        "machine": spec.name,
        "verbose": options.verbose,
        "marks": options.marks,
        "stages": [
            {
                "slot": stage.slot,
                "file": stage.name,
                "sha256": hashlib.sha256(stage.text.encode()).hexdigest(),
                "memory": [{"start": hex(start), "end": hex(end)} for start, end in stage.clobbers.memory],
            }
            for stage in stages
        ],
        "rom": {"paddr": hex(rom_span(len(rom)).start), "size": len(rom), "sha256": hashlib.sha256(rom).hexdigest()},
        "code_bytes": sum(len(data) for _, data in assembly.pieces),
        **({"params": block} if spec.source == PARAMS else {}),
        "low_memory": [{"name": span.name, "start": hex(span.start), "end": hex(span.end)} for span in spec.low.spans()],
        "spec": _manifest_spec(spec),
        "symbols": {name: hex(value) for name, value in sorted(assembly.labels.items(), key=lambda item: (item[1], item[0]))},
    }
