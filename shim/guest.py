"""The conformance guest's code: asm/guest*.s assembled once, and kept so that it can be linked anywhere without an assembler.

It is 32-bit code for guests of either ELF class. guest_link.py makes ELF files of it, guest_library.py says which.
"""

from typing import Final

from .abi import devices, freebsd, paging, params, pvh, x86
from .assembler import Assembly, assemble
from .defs import abi_symbols
from .errors import BootError
from .guest_image import GuestImage, get_address, put_address
from .guest_layout import (
    FNV_OFFSET_BASIS,
    FNV_PRIME,
    FREEBSD_FREE_BYTES,
    GUEST_ELF_ENTRY,
    GUEST_FORMAT,
    GUEST_FREEBSD_HALT,
    GUEST_NO_STACK,
    GUEST_PADDR,
    GUEST_REGION,
    GUEST_SHAPE,
    GUEST_STACK_TOP_OFFSET,
    GUEST_STATE,
    GUEST_STATE_OFFSET,
    SHAPE_ENTRY_STD,
    SHAPE_FREEBSD,
    SHAPE_RELOCATABLE,
)
from .image import asm_source
from .source import Unit

# The kinds of a template's fields (asm/guest_data.s); that of a hexadecimal one is its size in bytes.
_FIELDS: Final = {"FIELD_END": 0, "FIELD_DECIMAL": 1, "FIELD_HEX16": 2, "FIELD_HEX32": 4, "FIELD_HEX64": 8}
_CHARS: Final = {"CHAR_NEWLINE": ord("\n"), "CHAR_SPACE": ord(" "), "CHAR_QUOTE": ord('"')}
_FILES: Final = (
    *("guest.s", "guest_reloc.s", "guest_loads.s", "guest_survey.s", "guest_checks.s", "guest_report.s", "guest_freebsd.s"),
    *("guest_serial.s", "guest_data.s"),
)
_PAGING: Final = (
    *("CR4_PAE", "EFER_LME", "PTE_PRESENT", "PTE_WRITABLE", "PTE_LARGE", "TABLE_ENTRIES", "PDPT_SHIFT"),
    *("LARGE_PAGE", "LARGE_PAGE_SHIFT"),
)
_ELSEWHERE: Final = 1 << 24  # a multiple of it moves an address without a carry into its other bytes: only the top one changes


def guest_symbols(origin: int = GUEST_PADDR) -> dict[str, int]:
    """The symbols that the guest's assembly uses, if it is linked at the physical address `origin`."""
    registers = {name: value for name, value in vars(devices).items() if name.startswith("UART_") and isinstance(value, int)}
    return {
        **abi_symbols(),
        **registers,
        **GUEST_STATE.symbols(),
        **GUEST_SHAPE.symbols(),
        **GUEST_REGION.symbols(),
        **freebsd.MODINFO.symbols(),
        **freebsd.XEN_HEADER.symbols(),
        **_FIELDS,
        **_CHARS,
        **{name: getattr(paging, name) for name in _PAGING},
        "PAGE_SIZE": x86.PAGE_SIZE,
        "MSR_EFER": x86.MSR_EFER,
        "MODINFO_ALIGN": freebsd.MODINFO_ALIGN,
        "MODINFO_TYPE": freebsd.MODINFO_TYPE,
        "XENHEADER_HAS_MODULEP_OFFSET": freebsd.XENHEADER_HAS_MODULEP_OFFSET,
        "FREEBSD_FREE_BYTES": FREEBSD_FREE_BYTES,
        "FNV_OFFSET_BASIS": FNV_OFFSET_BASIS,
        "FNV_PRIME": FNV_PRIME,
        "SHAPE_RELOCATABLE": SHAPE_RELOCATABLE,
        "SHAPE_ENTRY_STD": SHAPE_ENTRY_STD,
        "SHAPE_FREEBSD": SHAPE_FREEBSD,
        "COM1_PORT": devices.COM1_PORT,
        "DEBUG_EXIT_PORT": devices.DEBUG_EXIT_PORT,
        "BOOT_STRUCTURES_END": pvh.BOOT_STRUCTURES_END,
        "GUEST_FORMAT": GUEST_FORMAT,
        "GUEST_NO_STACK": GUEST_NO_STACK,
        "GUEST_ELF_ENTRY": GUEST_ELF_ENTRY,
        "GUEST_FREEBSD_HALT": GUEST_FREEBSD_HALT,
        "GUEST_MARK": int.from_bytes(b"PVHG", "little"),
        "GUEST_MAX_MODULES": params.PARAMS_MAX_MODULES,
        "GUEST_MAX_STRING": 0x10000,  # bytes of a command line that are printed
        "GUEST_SUM_BYTES": 0x1000,  # bytes of a module that are summed
        "GUEST_SERIAL_POLLS": 0x10000,  # FIFO, 16 bytes at 115200 baud: 1.4 ms; a port read takes about 1 us
        "SELECTOR_RPL": x86.SELECTOR_RPL,
        "STATE_OFFSET": GUEST_STATE_OFFSET,
        "STACK_TOP_OFFSET": GUEST_STACK_TOP_OFFSET,
        "STATE": origin + GUEST_STATE_OFFSET,
    }


def guest_units(origin: int = GUEST_PADDR) -> list[Unit]:
    """The guest's source files in order, at the address that it is linked to."""
    first, *rest = _FILES
    return [Unit(first, asm_source(first), origin), *(Unit(name, asm_source(name)) for name in rest)]


def assemble_guest(origin: int = GUEST_PADDR) -> Assembly:
    """The guest's code at a physical address, with labels and listing; AssemblyError if the source does not assemble."""
    return assemble(guest_units(origin), guest_symbols(origin))


def build_image() -> GuestImage:
    """The guest's code, assembled at two places: where they differ is an address. The same source gives the same image.

    Raises AssemblyError if it does not assemble, and BootError if it cannot be linked anywhere, or has no room for a shape.
    """
    here, there = (assemble_guest(GUEST_PADDR + moved) for moved in (0, _ELSEWHERE))
    code, other = (b"".join(data for _, data in assembly.pieces) for assembly in (here, there))
    tops = [at for at, (one, two) in enumerate(zip(code, other, strict=True)) if one != two]
    relocations = tuple(at - 3 for at in tops)
    linked = bytearray(code)
    for at in relocations:
        put_address(linked, at, get_address(code, at) + _ELSEWHERE)
    if bytes(linked) != other:
        raise BootError("the guest's code differs at another address by more than its addresses: it cannot be linked")
    for at in relocations:
        put_address(linked, at, get_address(code, at) - GUEST_PADDR)
    labels = {name: address - GUEST_PADDR for name, address in here.labels.items()}
    return GuestImage(bytes(linked), labels, relocations)
