"""The symbols that the assembly may use: the ABI and the machine, with every sum made here."""

from typing import NamedTuple

from . import machines, mp_tables
from .abi import acpi_loader, apic, boot_params, chipset, e820, firmware, fw_cfg, mptable, params, pci, pvh, smbios, x86
from .machine_records import MACHINE_RECORD, told_apart
from .machines import GDT_ENTRIES, ROM_GRANULE, MachineSpec, firmware_end

# Code and data are where the Linux boot protocol wants them (Documentation/arch/x86/boot.rst, "32-bit Boot Protocol").
SEL_TSS = 0x08
SEL_CODE32 = 0x10
SEL_DATA32 = 0x18

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
    *("SIGNATURE", "FILE_DIR", "KERNEL_ENTRY", "KERNEL_ADDR", "KERNEL_SIZE", "KERNEL_DATA", "SETUP_DATA"),
    "NB_CPUS",
    *("CMDLINE_SIZE", "CMDLINE_DATA", "INITRD_ADDR", "INITRD_SIZE", "INITRD_DATA"),
)
_FW_CFG_DMA_POLLS = 1 << 16  # looks at a transfer that is under way


def _little(data: bytes) -> int:
    """The number as which a little-endian CPU loads these bytes."""
    return int.from_bytes(data, "little")


def _swapped(value: int) -> int:
    """The number that a little-endian CPU stores for a big-endian reader, of 32 bits."""
    return _little(value.to_bytes(4, "big"))


def _words(spec: MachineSpec, start: int) -> dict[str, int]:
    names = machines.control_words(acpi=spec.acpi, chipset=spec.has_chipset, detects=bool(spec.detects))
    return {name: start + 4 * at for at, name in enumerate(names)}


def _fw_cfg_symbols(spec: MachineSpec) -> dict[str, int]:
    control, transfer = spec.low.control, spec.low.transfer
    assert control is not None
    assert transfer is not None
    read, select = fw_cfg.FW_CFG_DMA_CTL_READ, fw_cfg.FW_CFG_DMA_CTL_SELECT
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
        **MACHINE_RECORD.symbols(),
        **{name: getattr(fw_cfg, name) for name in names},
        **reads,
        "FW_CFG_NUMBER_BYTES": _swapped(4),
        "FW_CFG_DIR_FIRST_BYTES": _swapped(machines.DIRECTORY_BYTES),
        "FW_CFG_DIR_NEXT_BYTES": _swapped(machines.DIRECTORY_BYTES - fw_cfg.FW_CFG_FILE_COUNT_BYTES),
        "BOOT_HEADER_BYTES": _swapped(boot_params.HEADER_MAX),
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
        **_linux_symbols(spec),
        **_words(spec, control.start + fw_cfg.FW_CFG_DMA.size),
        "FIRMWARE_END": firmware_end(spec),
        "TRANSFER_PADDR": transfer.start,
        "CMDLINE_MAX": machines.CMDLINE_MAX,
        "LOW_HOLE_END": machines.MIB,
        "E820_PADDR": (spec.low.e820 or transfer).start,
    }


_SETUP_DATA_MAX = 32  # pieces; QEMU has two at the most


def _linux_symbols(spec: MachineSpec) -> dict[str, int]:
    """The Linux boot protocol: offsets in boot_params."""
    params, setup_data = spec.low.boot_params, spec.low.setup_data
    assert params is not None
    assert setup_data is not None
    fields = (
        *("VERSION", "LOADFLAGS", "TYPE_OF_LOADER", "RAMDISK_IMAGE", "RAMDISK_SIZE", "CMD_LINE_PTR", "ALIGNMENT"),
        *("RELOCATABLE", "SETUP_DATA", "PREF_ADDRESS", "INIT_SIZE", "ACPI_RSDP_ADDR", "E820_ENTRIES", "HEADER_MAGIC"),
    )
    values = (
        *("HEADER", "HEADER_JUMP", "HEADER_MIN", "HEADER_MAX", "E820_TABLE", "LOADED_HIGH", "LOADER_UNDEFINED"),
        *("PROTOCOL_MIN", "PROTOCOL_INIT_SIZE"),
    )
    return {
        **{f"BOOT_{name}": getattr(boot_params, name)[0] for name in fields},
        **{f"BOOT_{name}": getattr(boot_params, name) for name in values},
        **boot_params.SETUP_DATA_HEAD.symbols(),
        "BOOT_HEADER_MAGIC_VALUE": _little(boot_params.HEADER_MAGIC[1]),
        "SIZEOF_BOOT_PARAMS": boot_params.BOOT_PARAMS_BYTES,
        "BOOT_PARAMS_PADDR": params.start,
        "SETUP_DATA_PADDR": setup_data.start,
        "SETUP_DATA_END": setup_data.end,
        "SETUP_DATA_MAX": _SETUP_DATA_MAX,
    }


def _acpi_symbols(spec: MachineSpec) -> dict[str, int]:
    script, allocated = spec.low.script, spec.low.allocated
    assert script is not None
    assert allocated is not None
    symbols = {
        name: value for name, value in vars(acpi_loader).items() if name.startswith("LOADER_") and isinstance(value, int)
    }
    for layout in (acpi_loader.ALLOCATE, acpi_loader.ADD_POINTER, acpi_loader.ADD_CHECKSUM, acpi_loader.WRITE_POINTER):
        symbols |= layout.symbols()
    return {
        **symbols,
        **firmware.ALLOCATED_FILE.symbols(),
        "MEMMAP_TYPE_ACPI": pvh.MEMMAP_TYPE_ACPI,
        "PAGE_SIZE": x86.PAGE_SIZE,
        "LOADER_MAX_BYTES": machines.LOADER_MAX_BYTES,
        "LOADER_PADDR": script.start,
        "ALLOCATED_PADDR": allocated.start,
        "ALLOCATED_END": allocated.end,
        # The RAM that begins at 1 MiB: behind the RAM from 0 and the low ROM.
        "ACPI_RAM": spec.low.memmap.start + 2 * pvh.HVM_MEMMAP_ENTRY.size,
        "FW_CFG_READ_TO_SKIP": _swapped(fw_cfg.FW_CFG_DMA_CTL_READ ^ fw_cfg.FW_CFG_DMA_CTL_SKIP),
        "FW_CFG_WRITE_ON": _swapped(fw_cfg.FW_CFG_DMA_CTL_WRITE),
    }


def _chipset_symbols(spec: MachineSpec) -> dict[str, int]:
    return {
        **smbios.SMBIOS_21.symbols(),
        **smbios.SMBIOS_30.symbols(),
        "SMBIOS_21_ANCHOR_VALUE": _little(smbios.SMBIOS_21_ANCHOR),
        "SMBIOS_30_ANCHOR_VALUE": _little(smbios.SMBIOS_30_ANCHOR[:4]),
        "F_SEGMENT": chipset.F_SEGMENT,
        "UPPER_MEMORY": chipset.UPPER_MEMORY,
        "PCI_CONFIG_ADDRESS": pci.PCI_CONFIG_ADDRESS,
        "PCI_CONFIG_DATA": pci.PCI_CONFIG_DATA,
        "PCI_SLOTS": pci.PCI_SLOTS,
        "PCI_INTX": pci.PCI_SLOTS * 4,
        "CONFIG_INTERRUPTS": pci.config_address(0, 0, pci.PCI_INTERRUPT_LINE),
        "CONFIG_HEADER": pci.config_address(0, 0, pci.PCI_HEADER_TYPE),
        "CONFIG_MULTI_FUNCTION": pci.PCI_HEADER_MULTI_FUNCTION << 8 * (pci.PCI_HEADER_TYPE & 3),
        "CONFIG_FUNCTION_STEP": 1 << pci.PCI_CONFIG_FUNCTION_SHIFT,
        "CONFIG_FUNCTION_MASK": (pci.PCI_FUNCTIONS - 1) << pci.PCI_CONFIG_FUNCTION_SHIFT,
        "CONFIG_SLOT_SHIFT": pci.PCI_CONFIG_SLOT_SHIFT,
        "CONFIG_SLOT_STEP": 1 << pci.PCI_CONFIG_SLOT_SHIFT,
        "ELCR_HIGH_PORT": chipset.ELCR_PORT + 1,
        "ELCR_HIGH_VALUE": sum({1 << irq for irq in chipset.PIRQ_IRQS}) >> 8,
        "HOST_BRIDGE": pci.config_address(0, 0, pci.PCI_VENDOR_ID),
        "MACHINE_RECORDS": len(told_apart(spec)),
    }


_CPU_POLLS = 1 << 24  # looks at how many processors have answered
_AP_BYTES = 0x100  # for what a started processor begins with; behind it a byte for each APIC id, and these words
_CPU_WORDS = ("CPU_COUNT", "CPU_SIGNATURE", "CPU_FEATURES", "CPU_FOUND")


def _mp_symbols(spec: MachineSpec) -> dict[str, int]:
    transfer = spec.low.transfer
    assert transfer is not None
    symbols: dict[str, int] = {}
    for layout in (mptable.MP_FLOATING, mptable.MP_TABLE, mptable.MP_PROCESSOR_ENTRY, mptable.MP_INTERRUPT_ENTRY):
        symbols |= layout.symbols()
    names = (
        *("APIC_SVR", "APIC_SVR_ENABLE", "APIC_ICR", "APIC_ICR_INIT", "APIC_ICR_STARTUP", "APIC_ICR_ASSERT", "APIC_IDS"),
        *("APIC_ICR_ALL_BUT_SELF", "CPUID_1_EBX_APIC_ID_SHIFT", "LOCAL_APIC_VERSION"),
    )
    low = spec.low.mp_table
    if low is not None:  # with as many processors as there are ids, it ends before its pointer
        assert low.start + mp_tables.mp_most_bytes() <= mptable.MP_BASE_MEMORY
    present = transfer.start + _AP_BYTES
    words = {name: present + apic.APIC_IDS + 4 * at for at, name in enumerate(_CPU_WORDS)}
    return {
        **{name: getattr(apic, name) for name in names},
        **{name: value for name, value in vars(mptable).items() if name.startswith("MP_") and isinstance(value, int)},
        **symbols,
        "MP_FLOATING_SIGNATURE_VALUE": _little(mptable.MP_FLOATING_SIGNATURE),
        "MP_LOCAL_BYTES": mp_tables.MP_LOCAL_INTERRUPTS * mptable.MP_INTERRUPT_ENTRY.size,
        "MP_PCI_FLAGS": mp_tables.MP_PCI_FLAGS,
        "MP_RAM": int(low is not None),
        **({"MP_PADDR": low.start, "MP_RAM_END": low.end} if low else {}),
        "CPU_POLLS": _CPU_POLLS,
        "AP_PADDR": transfer.start,  # a page: what is there has been read by then
        "CPU_PRESENT": present,
        **words,
    }


class Options(NamedTuple):
    """How a firmware is built: bytes of its ROM, whether it tells its progress, whether it marks times."""

    size: int = ROM_GRANULE
    verbose: bool = False
    marks: bool = False


def firmware_symbols(spec: MachineSpec, options: Options) -> dict[str, int]:
    """All symbols of a firmware for this machine."""
    low = spec.low
    marks = {name: value for name, value in vars(firmware).items() if name.startswith("MARK_")}
    return {
        **abi_symbols(),
        **_gdt_symbols(),
        **(_params_symbols() if spec.source == firmware.PARAMS else _fw_cfg_symbols(spec)),
        **(_acpi_symbols(spec) if spec.acpi else {}),
        **(_chipset_symbols(spec) if spec.has_chipset else {}),
        **(_mp_symbols(spec) if spec.mp_table else {}),
        **marks,
        "ACPI": int(spec.acpi),
        "CHIPSET": int(spec.has_chipset),
        "DETECTS": int(bool(spec.detects)),
        "VERBOSE": int(options.verbose),
        "MARKS": int(options.marks),
        "FROM_FW_CFG": int(spec.source == firmware.FW_CFG),
        "ROM_MARK_VALUE": _little(firmware.ROM_MARK),
        "GDT_PADDR": low.gdt.start,
        "STACK_TOP": low.stack.end,
        "START_INFO_PADDR": low.start_info.start,
        "MODLIST_PADDR": low.modlist.start,
        "MEMMAP_PADDR": low.memmap.start,
        "STRINGS_PADDR": low.strings.start,
    }
