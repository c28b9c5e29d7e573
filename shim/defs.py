"""The symbols that the assembly may use: the ABI and the machine, with every sum made here."""

from . import machines
from .abi import e820, firmware, params, pvh, x86
from .machines import GDT_ENTRIES, MachineSpec

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
    }


def firmware_symbols(spec: MachineSpec, verbose: bool) -> dict[str, int]:
    """All symbols of a firmware for this machine."""
    low = spec.low
    posts = {name: value for name, value in vars(firmware).items() if name.startswith("POST_")}
    return {
        **abi_symbols(),
        **_gdt_symbols(),
        **_params_symbols(),
        **posts,
        "VERBOSE": int(verbose),
        "GDT_PADDR": low.gdt.start,
        "STACK_TOP": low.stack.end,
        "START_INFO_PADDR": low.start_info.start,
        "MODLIST_PADDR": low.modlist.start,
        "MEMMAP_PADDR": low.memmap.start,
        "STRINGS_PADDR": low.strings.start,
    }
