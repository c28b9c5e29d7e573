"""Rules on the memory map that the kernel is told."""

from typing import Final

from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.pvh import MemmapEntry
from pvhboot.shim.abi.x86 import ADDRESS_4G

from ..memmap_words import entry_text
from ..subject import Subject, inside
from .scene import Cause, Scene, counted


def count_of_entries(scene: Scene) -> Cause | None:
    """memmap_entries is not the number of entries that there are."""
    if "memmap.count" not in scene.violated or scene.handoff is None or scene.tables is None:
        return None
    info = scene.tables.start_info
    if info is None:
        return None
    planned = scene.plan.memmap
    more = _empty_at_end(scene.tables.memmap)
    if planned is not None:
        told = len(Subject(scene.handoff, scene.plan, scene.tables).map_without_tables())
        if told < len(planned):
            missing = [entry for entry in planned if not any(one.addr == entry.addr for one in scene.tables.memmap)]
            return Cause(
                f"the memory map lacks {counted(len(planned) - told, 'entry', 'entries')}",
                "The kernel does not see that range, or takes it for free address space.",
                (scene.violated["memmap.count"], *(f"not told: {entry_text(*entry)}" for entry in missing[:2])),
                "look at where the entries are counted: a count that is decremented, or a range that is left out",
                ("memmap.count", "memmap.plan", "memmap.ram"),
            )
        more = more or told - len(planned)
    last = scene.tables.memmap[-1] if scene.tables.memmap else None
    return Cause(
        f"memmap_entries counts {counted(more, 'entry', 'entries')} too many",
        f"It says {info.memmap_entries}; behind the last good entry the kernel reads whatever lies there.",
        (scene.violated["memmap.count"], *([f"the last one: {entry_text(last.addr, last.size, last.type)}"] if last else [])),
        "count the entries, not the slots: a counter that starts at 1, or is incremented once more at the end",
        ("memmap.count", "memmap.entries", "memmap.sorted"),
    )


def _empty_at_end(memmap: tuple[MemmapEntry, ...]) -> int:
    count = 0
    for entry in reversed(memmap):
        if entry.type in pvh.MEMMAP_TYPE_NAMES and entry.size:
            break
        count += 1
    return count


def cut_to_32_bits(scene: Scene) -> Cause | None:
    """A range above 4 GiB, or a size, has lost its upper half."""
    planned = scene.plan.memmap
    if scene.tables is None or planned is None or not {"memmap.plan", "memmap.sorted", "memmap.disjoint"} & set(scene.violated):
        return None
    for entry in planned:
        for field, value in (("address", entry.addr), ("size", entry.size)):
            if value < ADDRESS_4G:
                continue
            wanted = (value % ADDRESS_4G, entry.size) if field == "address" else (entry.addr, value % ADDRESS_4G)
            if any((told.addr, told.size) == wanted for told in scene.tables.memmap):
                return Cause(
                    f"the {field} of a range above 4 GiB is cut to 32 bits",
                    f"The memory map says {wanted[0]:#x} ({wanted[1]:#x} bytes) instead of {entry.addr:#x} ({entry.size:#x} "
                    "bytes): the upper half of the 64-bit field was not copied.",
                    (f"planned: {entry_text(*entry)}", f"told: {entry_text(*wanted, entry.type)}"),
                    "copy 8 bytes of address and size, or the upper 4, too",
                    ("memmap.plan", "memmap.sorted", "memmap.disjoint", "memmap.ram"),
                )
    return None


def unsorted_map(scene: Scene) -> Cause | None:
    """The ranges are right, and their order is not."""
    if "memmap.sorted" not in scene.violated or scene.tables is None or scene.plan.memmap is None:
        return None
    if sorted((one.addr, one.size, one.type) for one in scene.tables.memmap) != sorted(map(tuple, scene.plan.memmap)):
        return None
    return Cause(
        "the memory map is not sorted by address",
        "All ranges are there; QEMU tells them in its own order, and firmware has to sort them.",
        (scene.violated["memmap.sorted"],),
        "sort the entries by address",
        ("memmap.sorted", "memmap.plan"),
    )


def no_ram_there(scene: Scene) -> Cause | None:
    """The map calls RAM what is none."""
    if "memmap.ram" not in scene.violated or scene.tables is None or scene.handoff is None:
        return None
    ram = [entry for entry in scene.tables.memmap if entry.type == pvh.MEMMAP_TYPE_RAM]
    wrong = next((entry for entry in ram if not inside(entry.addr, entry.size, scene.plan.usable_ram)), None)
    if wrong is None:
        return None
    return Cause(
        f"the memory map says RAM where none is: {wrong.addr:#x}-{wrong.end:#x}",
        "The kernel will put pages there. It covers a hole in front of 1 MiB, the ROM, or what is reserved.",
        (entry_text(wrong.addr, wrong.size, wrong.type), scene.violated["memmap.ram"]),
        "cut the range where RAM ends, and tell what lies there as reserved",
        ("memmap.ram", "memmap.plan", "memmap.disjoint"),
    )


def tables_in_ram(scene: Scene) -> Cause | None:
    """ACPI tables lie in a range of RAM that was not cut where they are."""
    if scene.tables is None or "memmap.disjoint" not in scene.violated:
        return None
    ram = [entry for entry in scene.tables.memmap if entry.type == pvh.MEMMAP_TYPE_RAM]
    for table in scene.tables.memmap:
        if table.type not in (pvh.MEMMAP_TYPE_ACPI, pvh.MEMMAP_TYPE_NVS) or not table.size:
            continue
        around = next((entry for entry in ram if entry.addr <= table.addr and table.end <= entry.end), None)
        if around is not None and inside(around.addr, around.size, scene.plan.usable_ram):
            return Cause(
                "the ACPI tables lie in what the memory map calls RAM",
                "The map has an entry for them, and the range of RAM was not cut where they begin: a kernel that takes the one "
                "for free overwrites the other.",
                (entry_text(around.addr, around.size, around.type), entry_text(table.addr, table.size, table.type)),
                "end the range of RAM where the tables begin, and begin another one behind them",
                ("memmap.count", "memmap.disjoint", "memmap.ram", "memmap.plan"),
            )
    return None


RULES: Final = (cut_to_32_bits, tables_in_ram, count_of_entries, unsorted_map, no_ram_there)
