"""The PAM registers of a host bridge: what C0000 to 1 MiB shows, RAM or what else is there.

A piece of which RAM takes the stores and not the loads is RAM for both here, as in QEMU (hw/pci-host/pam.c): on a real chipset
the loads would still see the ROM.
"""

from itertools import groupby

from pvhboot.loader.memory import GuestMemory, ShadowPart
from pvhboot.shim.abi.pam import PAM_PIECES, PAM_READ, PAM_WRITE, PamPiece


class Pam:
    """Shows parts of the memory's shadow RAM."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory

    def update(self, registers: bytes) -> None:
        """The seven registers have these values."""

        def is_readonly(piece: PamPiece) -> bool | None:
            bits = registers[piece.register] >> piece.shift & (PAM_READ | PAM_WRITE)
            return bits == PAM_READ if bits else None

        parts = []
        for readonly, group in groupby(PAM_PIECES, is_readonly):
            pieces = list(group)
            if readonly is not None:
                parts.append(ShadowPart(pieces[0].start, pieces[-1].end, readonly))
        self._memory.show_shadow(parts)
