"""A broken firmware: one mistake, in one of the source files of a machine's firmware."""

from typing import NamedTuple

from pvhboot.shim.image import asm_source
from pvhboot.shim.machines import BARE, MachineSpec


class Mutant(NamedTuple):
    """Replaces a piece of one of the source files of a machine's firmware. `clauses` are all clauses that the check must name,
    in its order; `fault` is the label at or behind which the run must end in a fault instead, `panic` the panic in which.

    Some are found out only in a machine without DMA (`dma` False), with RAM that holds anything after power on (`dirty`), or
    with an initrd whose first transfer is `refused`.
    """

    name: str
    file: str
    old: str
    new: str
    clauses: tuple[str, ...] = ()
    fault: str = ""
    panic: str = ""
    machine: MachineSpec = BARE
    dma: bool = True
    dirty: bool = False
    refused: bool = False

    def sources(self) -> dict[str, str]:
        """What `build` takes as `sources`; fails if the firmware no longer has the piece, exactly once."""
        text = asm_source(self.file)
        assert text.count(self.old) == 1, f"{self.name}: {self.old!r} stands {text.count(self.old)} times in {self.file}"
        return {self.file: text.replace(self.old, self.new)}
