"""What the prose says of the host and of what the kernel gets, from the trace."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pvhboot.loader.fw_cfg import host_e820
from pvhboot.shim.abi import acpi_loader, fw_cfg, pci, pvh
from pvhboot.shim.abi.firmware import PARAMS
from pvhboot.shim.machines import PARAMS_PADDR

from ..bus import IN, OUT
from ..memmap_words import type_name
from ..recent import swapped
from ..trace import Record
from . import division as names
from .telling import Telling
from .traffic import is_fw_cfg
from .words import enumerated, range_text

_COMMANDS: Final = {
    acpi_loader.LOADER_ALLOCATE: "ALLOCATE",
    acpi_loader.LOADER_ADD_POINTER: "ADD_POINTER",
    acpi_loader.LOADER_ADD_CHECKSUM: "ADD_CHECKSUM",
    acpi_loader.LOADER_WRITE_POINTER: "WRITE_POINTER",
}


def fw_cfg_facts(telling: Telling) -> Mapping[str, Any]:
    """Whether fw_cfg is asked, and how."""
    effects = [effect for record in telling.recorded.firmware for effect in record.effects]
    said = next((one.value for one in effects if (one.kind, one.at) == (IN, fw_cfg.FW_CFG_DMA_PORT)), None)
    letters = b"" if said is None else said.to_bytes(len(fw_cfg.FW_CFG_SIGNATURE_DATA), "little")
    started = next((one.value for one in effects if (one.kind, one.at) == (OUT, fw_cfg.FW_CFG_DMA_LOW_PORT)), None)
    e820 = next((key for key, name in telling.files.items() if name == fw_cfg.E820_FILE.decode()), None)
    return {
        "fw_cfg_used": any(map(is_fw_cfg, effects)),
        "selector": fw_cfg.FW_CFG_PORT,
        "data_port": fw_cfg.FW_CFG_DATA_PORT,
        "dma_port": fw_cfg.FW_CFG_DMA_PORT,
        "dma_low_port": fw_cfg.FW_CFG_DMA_LOW_PORT,
        "dma_used": started is not None,
        "asked_for_dma": letters == fw_cfg.FW_CFG_SIGNATURE_DATA,
        "signature": said or 0,
        "signature_text": ", ".join(letters.decode("ascii", "replace")),
        "descriptor": swapped(started or 0),
        "descriptor_swapped": started or 0,
        "has_e820": e820 is not None,
        "files": len(telling.files),
        "e820_key": e820 or 0,
        "e820_size": 0 if e820 is None else telling.items[e820].size,
    }


def host_facts(telling: Telling) -> Mapping[str, Any]:
    """The machine, and what its host says of it."""
    chipset = telling.plan.spec.chipset
    return {
        "own": telling.own,
        "start_info_size": pvh.HVM_START_INFO.size,
        "bare": telling.plan.source == PARAMS,
        "params": PARAMS_PADDR,
        "pci_address": pci.PCI_CONFIG_ADDRESS,
        "pci_data": pci.PCI_CONFIG_DATA,
        "has_pciexbar": chipset is not None and chipset.pciexbar is not None,
        "host_ranges": enumerated(
            [f"{type_name(entry.type)} from {range_text(entry.addr, entry.size)}" for entry in host_e820(telling.plan)]
        ),
    }


def tables_facts(telling: Telling) -> Mapping[str, Any]:
    """ACPI, SMBIOS, and the MP table."""
    handed = telling.outcome.tables
    rsdp = 0 if handed is None or handed.start_info is None else handed.start_info.rsdp_paddr
    acpi, tables = (telling.parts[name].records if name in telling.parts else () for name in (names.ACPI, names.TABLES))
    made = bool(_of_file(tables, "cpus.s"))
    commands = _commands(telling.script or b"")
    return {
        "has_script": telling.script is not None,
        "script_commands": enumerated([f"{count} × {name}" for name, count in commands.items()]),
        "writes_pointers": "WRITE_POINTER" in commands,
        "sum_instructions": f"{_of_file(acpi, 'sum_bytes.s'):,}",
        "acpi_instructions": f"{len(acpi):,}",
        "has_rsdp": bool(rsdp),
        "rsdp": rsdp,
        "smbios": bool(_of_file(tables, "smbios.s")),
        "mp_in_rom": not rsdp and not made,
        "mp_made": not rsdp and made,
    }


def _of_file(records: Sequence[Record], file: str) -> int:
    """How many of the instructions stand in a source file."""
    return sum(record.place is not None and record.place.source.startswith(f"{file}:") for record in records)


def _commands(script: bytes) -> Counter[str]:
    """How often each stands in it."""
    starts = range(0, len(script), acpi_loader.LOADER_ENTRY_BYTES)
    kinds = (int.from_bytes(script[at : at + 4], "little") for at in starts)
    return Counter(_COMMANDS[kind] for kind in kinds if kind in _COMMANDS)


HOST_FACTS: Final[tuple[Callable[[Telling], Mapping[str, Any]], ...]] = (host_facts, fw_cfg_facts, tables_facts)
