"""A kernel that comes to every mark of a timeline within a few instructions: 32-bit code that acts as if it were Linux."""

from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.devices import COM1_PORT, DEBUG_EXIT_PORT
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from tiny import PADDR, assembled

ENTRY = PADDR
STARTUP_64 = PADDR + 0x100
START_KERNEL = PADDR + 0x200
BANNER = "Linux version 0.0"
INIT_LINE = "[    0.000000] Run /init as init process"


def out(port: int, value: int) -> str:
    """Writes a byte to a port."""
    return f"    mov edx, {port}\n    mov al, {value}\n    out dx, al\n"


def printing(text: str) -> str:
    """Sends a text to COM1."""
    return "".join(out(COM1_PORT, byte) for byte in text.encode())


def marked_guest(*, before: str = "", after: str = "", symbols: bool = True, bits: int = 64) -> bytes:
    """`before` goes in front of the first line on COM1, `after` behind the line of init; then it leaves with 0."""
    tail = f"{printing(f'{BANNER}{chr(10)}{INIT_LINE}{chr(13)}{chr(10)}')}{after}{out(DEBUG_EXIT_PORT, 0)}    hlt\n"
    pieces = {
        ENTRY: assembled(f"    jmp {STARTUP_64}\n"),
        STARTUP_64: assembled(f"    jmp {START_KERNEL}\n", STARTUP_64),
        START_KERNEL: assembled(before + tail, START_KERNEL),
    }
    code = bytearray()
    for paddr, piece in pieces.items():
        code = code.ljust(paddr - PADDR, b"\x90") + piece
    segment = ElfSegment(PT_LOAD, PADDR, bytes(code), len(code), PF_R | PF_W | PF_X, 4)
    entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, ENTRY.to_bytes(4, "little"))
    names = {"startup_64": STARTUP_64, "start_kernel": START_KERNEL} if symbols else {}
    return write_elf(bits, STARTUP_64, (segment, ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4)), names)
