"""PAM: what lies between C0000 and 1 MiB on a PC with an i440FX or a Q35, piece by piece.

Sources: Intel 82441FX (PMC) datasheet 290549, section 3.2.17 (PAM registers); Intel Q35 (82Q35) datasheet 316966, section 5.1
(PAM0-PAM6, with the same layout); QEMU hw/i386/pc.c (the ROM for options from C0000 to DFFFF, empty and read-only).
"""

from typing import Final, NamedTuple

from .chipset import F_SEGMENT, F_SEGMENT_END, UPPER_MEMORY

SHADOW_START: Final = UPPER_MEMORY  # physical addresses
SHADOW_END: Final = F_SEGMENT_END
OPTION_ROMS_END: Final = 0xE0000  # from SHADOW_START

PAM_READ: Final = 1 << 0  # bits of a piece, at its `shift`: loads go to RAM
PAM_WRITE: Final = 1 << 1  # stores go to RAM
_PIECE: Final = 16 << 10  # bytes


class PamPiece(NamedTuple):
    """Where the bits of a piece are (the register among the seven, and the bit) and what it spans."""

    register: int
    shift: int
    start: int
    end: int


def _pieces() -> tuple[PamPiece, ...]:
    """By address: two 16 KiB pieces a register, the lower one in the lower half; the F segment is the first register's."""
    starts = range(SHADOW_START, F_SEGMENT, _PIECE)
    small = [PamPiece(1 + at // 2, at % 2 * 4, start, start + _PIECE) for at, start in enumerate(starts)]
    return (*small, PamPiece(0, 4, F_SEGMENT, F_SEGMENT_END))


PAM_PIECES: Final = _pieces()
