"""What a kernel file is, told in a few lines."""

from pvhboot.loader.inspection import Inspection
from pvhboot.loader.modules import GUESTS
from pvhboot.loader.verdicts.base import ACCEPTS, PVH


def kernel_line(found: Inspection) -> str:
    """What the file is, and whether it can be PVH-booted."""
    return f"{found.path}: {found.kind}, {'bootable' if found.bootable else 'not bootable'}: {found.reason}"


def verdict_lines(found: Inspection) -> list[str]:
    """Which loaders enter a bootable file at its PVH entry; of each other one, what it does and why."""
    verdicts = [verdict for verdict in found.verdicts if verdict.by not in GUESTS]
    good = [verdict for verdict in verdicts if verdict[2:5] == (ACCEPTS, PVH, found.entry)]
    lines = [f"entered there by {', '.join(verdict.by for verdict in good)}"] if good else []
    for verdict in verdicts:
        if verdict not in good:
            road = f", by its {verdict.road}" if verdict.road else ""
            lines.append(f"{verdict.by} {verdict.outcome}{road}: {verdict.reason}")
    return [f"{found.path}: {line}" for line in lines]
