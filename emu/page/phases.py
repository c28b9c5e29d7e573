"""The parts of a firmware's way: of one that pvhboot has built by its source files, of any other by what it does; and the modes
of the CPU on it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.shim.abi import x86
from pvhboot.shim.abi.x86 import Segment

from ..disassembly import words_of
from ..recorded import Recorded
from ..report.state import mode_text
from .accesses import DEVICES
from .sources import SourceFiles

_MOST: Final = 20  # phases that a page has room for

# What each source file is for that the CPU walks through, in a few words, and why there has to be such a thing.
_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "reset.s": ("The reset vector", "Every x86 CPU starts 16 bytes below 4 GiB: no place to work in, so it jumps."),
    "realmode.s": ("Protected mode", "The kernel wants flat 32-bit code, and the CPU starts with the 8086's segments."),
    "flat32.s": ("Flat segments", "Data segments over all 4 GiB, and a stack, which everything else needs."),
    "params.s": ("What to boot", "The parameter block in the ROM says it: the entry, the memory map, the modules."),
    "memmap.s": ("The memory map", "The kernel has to know what is RAM: e820 entries become those of PVH."),
    "modules.s": ("Modules", "The module list and the command lines go from the ROM to RAM, where the kernel looks."),
    "chipset.s": ("The chipset", "On a PC ports and memory windows have no address until a firmware gives them one."),
    "fw_cfg.s": ("Find fw_cfg", "QEMU tells a firmware by this device what to boot; DMA reads it in one go."),
    "e820.s": ("The memory map", "The kernel has to know what is RAM: the host's etc/e820 becomes the map of PVH."),
    "fw_cfg_kernel.s": ("What to boot", "fw_cfg says where the kernel's entry is, and has command line and initrd."),
    "acpi.s": ("ACPI tables", "The host describes itself to the operating system; the firmware puts that into RAM."),
    "smbios.s": ("SMBIOS tables", "What the machine is called; an operating system looks for it in the F segment."),
    "mptable.s": ("The MP table", "Without ACPI this says which processors there are, and where interrupts go."),
    "start_info.s": ("start_info", "What the kernel finds by %ebx: where memory map, modules and command line are."),
    "handoff.s": ("The handoff", "The rest of the state that PVH asks for, the TSS and the memory type; then the jump."),
    "bzimage.s": ("A bzImage", "A kernel without a PVH entry is put into RAM by the Linux boot protocol."),
    "linux.s": ("Linux's own handoff", "boot_params takes the place of start_info."),
    "panic.s": ("A panic", "Something is wrong that the firmware cannot mend: it says so, and stops."),
}
_KERNEL: Final = ("The kernel", "The firmware is over: these are the kernel's first instructions.")


class Phase(NamedTuple):
    """From the record of an index on: a name that is fit for a link, a title, and why it is there."""

    first: int
    id: str
    title: str
    why: str


def phases_json(recorded: Recorded, sources: SourceFiles) -> list[list[object]]:
    """First record, id, title, why and number of records of each."""
    count = len(recorded.records)
    own = list(_by_file(recorded, sources) if sources.names else _by_deeds(recorded))
    if recorded.kernel:
        own.append(Phase(len(recorded.firmware), "kernel", *_KERNEL))
    ends = [phase.first for phase in own[1:]] + [count]
    return [[*phase, end - phase.first] for phase, end in zip(own, ends, strict=False)]


def _by_file(recorded: Recorded, sources: SourceFiles) -> Iterator[Phase]:
    """A new one where the CPU comes to another file, other than by a call or on the way back from one."""
    depth, current = 0, ""
    for index, record in enumerate(recorded.firmware):
        number, _ = sources.locate(record.address)
        name = sources.names[number] if number >= 0 else current
        if name != current and (name in sources.stages or (depth <= 0 and name in _FILES)):
            current, depth = name, 0
            title, why = _FILES.get(name, (name, "A stage: assembly of one's own, which this firmware was built with."))
            yield Phase(index, name.removesuffix(".s"), title, why)
        elif not index:
            yield Phase(0, "start", "The start", "The first instruction.")
        called = words_of(record.text).name
        depth += (called == "call") - (called == "ret")


def _by_deeds(recorded: Recorded) -> Iterator[Phase]:
    """A new one where the mode changes, and where a device is spoken to for the first time; of too many, the first."""
    found = {0: Phase(0, "reset", "The reset vector", "Every x86 CPU starts 16 bytes below 4 GiB.")}
    modes = [(index, words) for index, words in _modes(recorded) if index and index < len(recorded.firmware)]
    for index, words in modes[: _MOST // 2]:
        title = ",".join(words.split(",")[:2]).capitalize()
        found[index] = Phase(index, f"mode-{index}", title, f"The CPU is in another mode: {words}.")
    met: set[str] = set()
    for index, record in enumerate(recorded.firmware):
        for effect in record.effects:
            if effect.device and effect.device not in met:
                met.add(effect.device)
                words = DEVICES.get(effect.device, effect.device)
                if index not in found and len(found) < _MOST - 1:
                    title = words[0].upper() + words[1:]
                    found[index] = Phase(
                        index, f"device-{effect.device}", title, "The firmware speaks to this device for the first time."
                    )
    return iter(sorted(found.values()))


def modes_json(recorded: Recorded) -> list[list[object]]:
    """From which record on the CPU is in which mode, in words."""
    return [[index, words] for index, words in _modes(recorded)]


def _modes(recorded: Recorded) -> Sequence[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    last: tuple[int, ...] = ()
    for index, (record, state) in enumerate(zip(recorded.records, recorded.states(), strict=False)):
        now = (
            record.bits,
            state["cr0"] & (x86.CR0_PE | x86.CR0_PG),
            state["efer"],
            state["cs_base"],
            state["eflags"] & x86.EFLAGS_VM,
        )
        if now == last:
            continue
        last = now
        long, wide = record.bits == 64, record.bits == 32
        code = Segment(state["cs"], state["cs_base"], state["cs_limit"], 0, True, True, wide, long, False)
        words = mode_text(state, {"cs": code})
        if not found or found[-1][1] != words:
            found.append((index, words))
    return found
