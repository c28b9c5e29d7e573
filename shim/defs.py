"""The symbols that the assembly may use: the ABI and the machine, with every sum made here."""

from . import machines
from .abi import acpi_loader, e820, firmware, fw_cfg, params, pvh, x86
from .machines import GDT_ENTRIES, MachineSpec, firmware_end, low_rom_span, rom_span

SEL_CODE32 = 0x08
SEL_DATA32 = 0x10
SEL_TSS = 0x18

_FLAT_BITS = x86.DESC_S | x86.DESC_P | x86.DESC_DB | x86.DESC_G
_FLAT_PAGES = x86.FLAT_LIMIT // x86.PAGE_SIZE


def abi_symbols() -> dict[str, int]:
    """What holds on every machine, and for a guest too: structures, x86 bits, ports."""
    symbols = {
        "XEN_HVM_START_MAGIC_VALUE": pvh.XEN_HVM_START_MAGIC_VALUE,
        "HVM_START_INFO_VERSION_VALUE": pvh.HVM_START_INFO_VERSION,
        "MEMMAP_TYPE_RAM": pvh.MEMMAP_TYPE_RAM,
        "MEMMAP_TYPE_RESERVED": pvh.MEMMAP_TYPE_RESERVED,
        "MEMMAP_TYPE_PMEM": pvh.MEMMAP_TYPE_PMEM,
        "MEMMAP_MAX_ENTRIES": pvh.MEMMAP_MAX_ENTRIES,
        "TSS_LIMIT": pvh.TSS_LIMIT,
        "MTRR_DEF_TYPE_VALUE": x86.MTRR_DEF_TYPE_WRITE_BACK,
        "POST_PORT": firmware.POST_PORT,
        "DEBUGCON_PORT": firmware.DEBUGCON_PORT,
    }
    for layout in (pvh.HVM_START_INFO, pvh.HVM_MODLIST_ENTRY, pvh.HVM_MEMMAP_ENTRY, e820.E820_ENTRY):
        symbols |= layout.symbols()
    names = ("RESET_CS_BASE", "CPUID_FEATURES_LEAF", "CPUID_1_EDX_MTRR", "MSR_MTRR_DEF_TYPE")
    symbols |= {name: getattr(x86, name) for name in names}
    symbols |= {
        name: value for name, value in vars(x86).items() if name.startswith(("CR0_", "EFLAGS_")) and isinstance(value, int)
    }
    return symbols


def _gdt_symbols() -> dict[str, int]:
    code = x86.TYPE_CODE | x86.TYPE_READABLE | x86.TYPE_ACCESSED
    data = x86.TYPE_WRITABLE | x86.TYPE_ACCESSED
    return {
        "SEL_CODE32": SEL_CODE32,
        "SEL_DATA32": SEL_DATA32,
        "SEL_TSS": SEL_TSS,
        "DESC_CODE32": x86.descriptor(0, _FLAT_PAGES, code, _FLAT_BITS),
        "DESC_DATA32": x86.descriptor(0, _FLAT_PAGES, data, _FLAT_BITS),
        "DESC_TSS": x86.descriptor(0, pvh.TSS_LIMIT, x86.TYPE_TSS32_AVAILABLE, x86.DESC_P),
        "GDT_SIZE": GDT_ENTRIES * x86.DESC_SIZE,
    }


def _params_symbols() -> dict[str, int]:
    return {
        **params.PARAMS_HEADER.symbols(),
        **params.PARAMS_MODULE.symbols(),
        "PARAMS_MAGIC": params.PARAMS_MAGIC,
        "PARAMS_VERSION": params.PARAMS_VERSION,
        "PARAMS_MAX_SIZE": params.PARAMS_MAX_SIZE,
        "PARAMS_MAX_E820": params.PARAMS_MAX_E820,
        "PARAMS_MAX_MODULES": params.PARAMS_MAX_MODULES,
        "PARAMS_PADDR": machines.PARAMS_PADDR,
        "ENTRY_POINTER": machines.PARAMS_PADDR + params.PARAMS_HEADER.fields["entry"].offset,
    }


_FW_CFG_READ_ITEMS = (
    *("SIGNATURE", "FILE_DIR", "KERNEL_ENTRY", "KERNEL_ADDR", "KERNEL_SIZE"),
    *("CMDLINE_SIZE", "CMDLINE_DATA", "INITRD_ADDR", "INITRD_SIZE", "INITRD_DATA"),
)
_FW_CFG_DMA_POLLS = 1 << 16  # looks at a transfer that is under way


def _little(data: bytes) -> int:
    """The number as which a little-endian CPU loads these bytes."""
    return int.from_bytes(data, "little")


def _swapped(value: int) -> int:
    """The number that a little-endian CPU stores for a big-endian reader, of 32 bits."""
    return _little(value.to_bytes(4, "big"))


def _fw_cfg_symbols(spec: MachineSpec, rom_size: int) -> dict[str, int]:
    control, transfer = spec.low.control, spec.low.transfer
    low_rom = low_rom_span(spec, rom_size)
    assert control is not None
    assert transfer is not None
    assert low_rom is not None
    read, select = fw_cfg.FW_CFG_DMA_CTL_READ, fw_cfg.FW_CFG_DMA_CTL_SELECT
    words = control.start + fw_cfg.FW_CFG_DMA.size
    reads = {
        f"FW_CFG_READ_{name}": _swapped(getattr(fw_cfg, f"FW_CFG_{name}") << fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT | select | read)
        for name in _FW_CFG_READ_ITEMS
    }
    names = (
        *("FW_CFG_PORT", "FW_CFG_DATA_PORT", "FW_CFG_DMA_PORT", "FW_CFG_DMA_LOW_PORT", "FW_CFG_FILE_COUNT_BYTES"),
        *("FW_CFG_MAX_FILES", "FW_CFG_DMA_CTL_ERROR", "FW_CFG_DMA_CTL_SELECT", "FW_CFG_DMA_CTL_KEY_SHIFT"),
    )
    return {
        **fw_cfg.FW_CFG_FILE.symbols(),
        **fw_cfg.FW_CFG_DMA.symbols(),
        **{name: getattr(fw_cfg, name) for name in names},
        **reads,
        "FW_CFG_READ_ON": _swapped(read),
        "FW_CFG_READ_SELECTED": _swapped(select | read),
        "FW_CFG_SIGNATURE_VALUE": _little(fw_cfg.FW_CFG_SIGNATURE_DATA),
        "FW_CFG_DMA_SIGNATURE_VALUE": _little(fw_cfg.FW_CFG_DMA_SIGNATURE[:4]),
        "FW_CFG_DMA_POLLS": _FW_CFG_DMA_POLLS,
        "FW_CFG_DIR_CHUNK": machines.FW_CFG_DIR_CHUNK,
        "FW_CFG_MAX_E820": machines.FW_CFG_MAX_E820,
        "E820_FILE_0": _little(fw_cfg.E820_FILE[:4]),
        "E820_FILE_4": _little(fw_cfg.E820_FILE[4:]),
        "FW_CFG_DMA_PADDR": control.start,
        "FW_CFG_DMA_PADDR_SWAPPED": _swapped(control.start),
        "FW_CFG_WORD_PADDR": words,
        "ENTRY_POINTER": words + 4,
        "KERNEL_ADDR_PADDR": words + 8,
        "KERNEL_SIZE_PADDR": words + 12,
        "FIRMWARE_END": firmware_end(spec),
        "TRANSFER_PADDR": transfer.start,
        "CMDLINE_MAX": machines.CMDLINE_MAX,
        "LOW_ROM_START": low_rom.start,
        "LOW_ROM_END": low_rom.end,
        "ROM_PADDR": rom_span(rom_size).start,
        "ROM_SIZE": rom_size,
        "E820_PADDR": (spec.low.e820 or transfer).start,
    }


def _acpi_symbols(spec: MachineSpec) -> dict[str, int]:
    control, script, allocated = spec.low.control, spec.low.script, spec.low.allocated
    assert control is not None
    assert script is not None
    assert allocated is not None
    words = control.start + fw_cfg.FW_CFG_DMA.size + machines.FW_CFG_WORDS * 4
    symbols = {
        name: value for name, value in vars(acpi_loader).items() if name.startswith("LOADER_") and isinstance(value, int)
    }
    for layout in (acpi_loader.ALLOCATE, acpi_loader.ADD_POINTER, acpi_loader.ADD_CHECKSUM, acpi_loader.WRITE_POINTER):
        symbols |= layout.symbols()
    return {
        **symbols,
        **acpi_loader.ALLOCATED_FILE.symbols(),
        "MEMMAP_TYPE_ACPI": pvh.MEMMAP_TYPE_ACPI,
        "PAGE_SIZE": x86.PAGE_SIZE,
        "LOADER_MAX_BYTES": machines.LOADER_MAX_BYTES,
        "LOADER_PADDR": script.start,
        "ALLOCATED_PADDR": allocated.start,
        "ALLOCATED_END": allocated.end,
        "RSDP_PADDR": words,
        "ACPI_TOP": words + 4,
        "ACPI_BOTTOM": words + 8,
        "ACPI_FLOOR": words + 12,
        "ACPI_POINTER": words + 16,  # 8 bytes
        # The RAM that begins at 1 MiB: behind the RAM from 0 and the low ROM.
        "ACPI_RAM": spec.low.memmap.start + 2 * pvh.HVM_MEMMAP_ENTRY.size,
        "FW_CFG_READ_TO_SKIP": _swapped(fw_cfg.FW_CFG_DMA_CTL_READ ^ fw_cfg.FW_CFG_DMA_CTL_SKIP),
        "FW_CFG_WRITE_ON": _swapped(fw_cfg.FW_CFG_DMA_CTL_WRITE),
    }


def firmware_symbols(spec: MachineSpec, verbose: bool, rom_size: int) -> dict[str, int]:
    """All symbols of a firmware for this machine, in a ROM of `rom_size` bytes."""
    low = spec.low
    posts = {name: value for name, value in vars(firmware).items() if name.startswith("POST_")}
    return {
        **abi_symbols(),
        **_gdt_symbols(),
        **(_params_symbols() if spec.source == firmware.PARAMS else _fw_cfg_symbols(spec, rom_size)),
        **(_acpi_symbols(spec) if spec.acpi else {}),
        **posts,
        "ACPI": int(spec.acpi),
        "VERBOSE": int(verbose),
        "ROM_MARK_VALUE": _little(firmware.ROM_MARK),
        "GDT_PADDR": low.gdt.start,
        "STACK_TOP": low.stack.end,
        "START_INFO_PADDR": low.start_info.start,
        "MODLIST_PADDR": low.modlist.start,
        "MEMMAP_PADDR": low.memmap.start,
        "STRINGS_PADDR": low.strings.start,
    }
