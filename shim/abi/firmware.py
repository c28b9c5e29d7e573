"""What the firmware says of itself: the ports it talks to, its POST codes and its panics.

Port 0x80 is the PC's POST port; 0x402 is the debug console of Bochs and QEMU (isa-debugcon), on which SeaBIOS logs too.
"""

from typing import Final, NamedTuple

POST_PORT: Final = 0x80
DEBUGCON_PORT: Final = 0x402

# Progress, written to POST_PORT in verbose builds only: each costs an exit.
POST_PROTECTED_MODE: Final = 0x10
POST_PARAMS: Final = 0x20
POST_MEMMAP: Final = 0x30
POST_START_INFO: Final = 0x40
POST_STAGE: Final = 0x50
POST_HANDOFF: Final = 0x60

PANIC_PREFIX: Final = "pvhboot panic"


class Panic(NamedTuple):
    """Why the firmware stopped: the code on POST_PORT, its name, and the words on DEBUGCON_PORT."""

    code: int
    name: str
    text: str


PANICS: Final = (
    Panic(0xE0, "NO_PARAMS", "the ROM's parameter block is empty"),
    Panic(0xE1, "PARAMS_MAGIC", "no parameter block where this firmware expects it"),
    Panic(0xE2, "PARAMS_VERSION", "the parameter block has a version that this firmware does not know"),
    Panic(0xE3, "PARAMS_SIZE", "the parts of the parameter block do not add up to its size"),
    Panic(0xE4, "NO_ENTRY", "the kernel's entry address is 0"),
    Panic(0xE5, "E820_COUNT", "the memory map must have 1 to 126 entries"),
    Panic(0xE6, "MODULE_COUNT", "too many modules"),
    Panic(0xE7, "STRING_END", "the strings do not end with a NUL"),
    Panic(0xE8, "STRING_OFFSET", "a module's command line lies outside the strings"),
    Panic(0xE9, "STAGE_END", "the custom stage ran past its end: it must end with ret"),
)


def panic_message(panic: Panic) -> str:
    """The line on the debug console, without its line feed."""
    return f"{PANIC_PREFIX} {panic.code:#04x} {panic.name}: {panic.text}"
