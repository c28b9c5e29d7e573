"""The conformance guest: a tiny PVH kernel that looks at the handoff, tells COM1 what it found, and leaves by debug-exit.

Its code is asm/guest*.s, 32-bit in both variants: they differ in the ELF class and the note's descriptor, and print which.
"""

from typing import Final, NamedTuple

from .abi import devices, params, pvh, x86
from .abi.layout import Layout
from .assembler import Assembly, assemble
from .defs import abi_symbols
from .elfwriter import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ElfSegment, note, write_elf
from .errors import BootError
from .image import asm_source
from .source import Unit

GUEST_FORMAT: Final = 1  # the version of what the guest prints, in its first line
GUEST_PADDR: Final = 0x100000
GUEST_STATE_PADDR: Final = 0x102000  # behind the code
GUEST_STACK_TOP: Final = 0x104000
GUEST_NO_STACK: Final = 127  # debug-exit value: ss does not reach what ds wrote, so nothing can be printed
GUEST_DESCRIPTOR_BYTES: Final = {32: 4, 64: 8}  # of the PHYS32_ENTRY note, by ELF class

# The kinds of a template's fields (asm/guest_data.s); that of a hexadecimal one is its size in bytes.
_FIELDS: Final = {"FIELD_END": 0, "FIELD_DECIMAL": 1, "FIELD_HEX16": 2, "FIELD_HEX32": 4, "FIELD_HEX64": 8}
_CHARS: Final = {"CHAR_NEWLINE": ord("\n"), "CHAR_SPACE": ord(" "), "CHAR_QUOTE": ord('"')}
_FILES: Final = ("guest.s", "guest_survey.s", "guest_checks.s", "guest_report.s", "guest_serial.s", "guest_data.s")
_PAGE: Final = x86.PAGE_SIZE


class GuestState(NamedTuple):
    """What the guest keeps in its bss: the registers as it was entered, then what it found out. All but the MTRR are u32."""

    eax: int
    ebx: int
    ecx: int
    edx: int
    esi: int
    edi: int
    ebp: int
    esp: int
    eip: int
    cr0: int
    cr4: int
    eflags: int
    cs: int
    ds: int
    es: int
    ss: int
    fs: int
    gs: int
    tr: int
    mark: int
    mark_cs: int
    mark_es: int
    mark_ss: int
    start_info: int
    memmap: int
    memmap_count: int
    modlist: int
    modlist_count: int
    has_mtrr: int
    mtrr_def_type: int
    number: int
    sum: int
    failed: int
    serial_dead: int


GUEST_STATE: Final = Layout(GuestState, "I" * 29 + "Q" + "I" * 4, "STATE")
assert GUEST_PADDR < GUEST_STATE_PADDR < GUEST_STATE_PADDR + GUEST_STATE.size + _PAGE <= GUEST_STACK_TOP


def guest_symbols(bits: int) -> dict[str, int]:
    """The symbols that the guest's assembly uses, for its variant of 32 or 64 bits."""
    registers = {name: value for name, value in vars(devices).items() if name.startswith("UART_") and isinstance(value, int)}
    return {
        **abi_symbols(),
        **registers,
        **GUEST_STATE.symbols(),
        **_FIELDS,
        **_CHARS,
        "COM1_PORT": devices.COM1_PORT,
        "DEBUG_EXIT_PORT": devices.DEBUG_EXIT_PORT,
        "BOOT_STRUCTURES_END": pvh.BOOT_STRUCTURES_END,
        "GUEST_BITS": bits,
        "GUEST_FORMAT": GUEST_FORMAT,
        "GUEST_STACK_TOP": GUEST_STACK_TOP,
        "GUEST_NO_STACK": GUEST_NO_STACK,
        "GUEST_MARK": int.from_bytes(b"PVHG", "little"),
        "GUEST_MAX_MODULES": params.PARAMS_MAX_MODULES,
        "GUEST_MAX_STRING": 0x10000,  # bytes of a command line that are printed
        "GUEST_SUM_BYTES": 0x1000,  # bytes of a module that are summed
        "GUEST_SERIAL_POLLS": 0x10000,  # FIFO, 16 bytes at 115200 baud: 1.4 ms; a port read takes about 1 us
        "SELECTOR_RPL": 3,
        "STATE": GUEST_STATE_PADDR,
    }


def guest_units() -> list[Unit]:
    """The guest's source files in order, at the address that it is linked to."""
    first, *rest = _FILES
    return [Unit(first, asm_source(first), GUEST_PADDR), *(Unit(name, asm_source(name)) for name in rest)]


def assemble_guest(bits: int) -> Assembly:
    """The guest's code with its labels and its listing; BootError unless `bits` is 32 or 64."""
    if bits not in GUEST_DESCRIPTOR_BYTES:
        raise BootError(f"no conformance guest of {bits!r} bits: there is one of 32 and one of 64")
    return assemble(guest_units(), guest_symbols(bits))


def build_guest(bits: int) -> bytes:
    """The guest as an ELF executable of 32 or 64 bits. The same input gives the same bytes.

    Raises BootError for any other number, and AssemblyError if the source does not assemble.
    """
    assembly = assemble_guest(bits)
    code = b"".join(data for _, data in assembly.pieces)
    if GUEST_PADDR + len(code) > GUEST_STATE_PADDR:
        raise BootError(
            f"the guest's code takes {len(code)} bytes: there are {GUEST_STATE_PADDR - GUEST_PADDR} before its state"
        )
    entry = assembly.labels["guest_entry"]
    descriptor = entry.to_bytes(GUEST_DESCRIPTOR_BYTES[bits], "little")
    phys32_entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, descriptor)
    segments = (
        ElfSegment(PT_LOAD, GUEST_PADDR, code, GUEST_STACK_TOP - GUEST_PADDR, PF_R | PF_W | PF_X, 1),
        ElfSegment(PT_NOTE, 0, phys32_entry, len(phys32_entry), PF_R, 4),
    )
    return write_elf(bits, entry, segments, assembly.labels)
