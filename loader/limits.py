"""What must hold before anything is written, a check each: BootError says what does not, and what would be right."""

from collections.abc import Sequence
from itertools import pairwise

from pvhboot.shim.abi.elf import ELF_MAGIC
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB, ROM_MAX, MachineSpec, Span, ram_spans

from .facts import KernelSegment
from .ranges import align_up
from .sizes import as_memory, show_size


def check_firmware(firmware: bytes, whose: str = "") -> None:
    """That it can be a ROM; `whose` goes in front of the message."""
    if firmware[:4] == ELF_MAGIC:
        raise BootError(f"{whose}the firmware is an ELF file: give the ROM image itself")
    if not firmware or len(firmware) % PAGE_SIZE or len(firmware) > ROM_MAX:
        raise BootError(
            f"{whose}a firmware of {len(firmware)} bytes is not possible: "
            f"it takes a multiple of {PAGE_SIZE}, at most {show_size(ROM_MAX)}"
        )


def check_memory(spec: MachineSpec, memory: int) -> None:
    """That the machine can have so many bytes of RAM."""
    if memory % PAGE_SIZE:
        raise BootError(f"{memory} bytes of memory: give a multiple of 4 KiB")
    if not spec.ram_min <= memory <= spec.ram_max:
        low, high = show_size(spec.ram_min), show_size(spec.ram_max)
        raise BootError(f"{show_size(memory)} of memory: the machine {spec.name} takes {low} to {high}")


def require_reservable(span: Span, ram: Sequence[Span], memory: int, *, from_host: bool) -> None:
    """That a span can be reserved; `from_host`: the firmware takes the memory map from the host, and wants one range of RAM in
    it from 0 to above 1 MiB."""
    what = f"cannot reserve {span.start:#x}-{span.end:#x}"
    if span.start % PAGE_SIZE or span.size % PAGE_SIZE or not span.size:
        raise BootError(f"{what}: memory is reserved in whole pages of 4 KiB")
    if from_host and span.start <= MIB:
        raise BootError(f"{what}: the firmware needs RAM from 0 to above 1 MiB: reserve from {MIB + PAGE_SIZE:#x} on")
    if not _inside(span, ram):
        raise BootError(f"{what}: RAM is {_shown(ram)} with {show_size(memory)} of memory")


def require_ram(span: Span, ram: Sequence[Span], path: str, memory: int, least: int | None) -> None:
    """That a piece of the kernel at `path` lies in RAM; `least` is how much memory would do (None: none)."""
    if not _inside(span, ram):
        raise BootError(
            f"{path}: {span.name} at {span.start:#x}-{span.end:#x} does not fit into {show_size(memory)} of memory: "
            f"RAM is {_shown(ram)}; {more_memory(memory, least)}"
        )


def more_memory(memory: int, least: int | None) -> str:
    """What to do about a kernel that does not fit into `memory` bytes, where `least` would do (None: no size)."""
    if least is None or least <= memory:
        return "with more it would not fit either: link it elsewhere, or try --machine bare"
    return f"give at least --memory {as_memory(least)}"


def least_memory(spec: MachineSpec, segments: Sequence[KernelSegment]) -> int | None:
    """The least RAM, in bytes, that reaches to the end of the segments; None if with that they are not all in it."""
    size = align_up(segments[-1].end, PAGE_SIZE)
    if size > ADDRESS_4G:
        size -= ADDRESS_4G - spec.low_ram_max
    size = max(size, spec.ram_min)
    if size > spec.ram_max:
        return None
    ram = ram_spans(spec, size)
    return size if all(_inside(Span("", segment.paddr, segment.end), ram) for segment in segments) else None


def require_one_range(path: str, segments: Sequence[KernelSegment], lowest: int, ram: Sequence[Span]) -> None:
    """The firmware is told one range for the whole kernel (fw_cfg's kernel address and size), and wants it in RAM."""
    start = segments[0].paddr
    whole = Span("kernel", start, start + (segments[-1].end - start) % ADDRESS_4G)  # it is told in 32 bits
    if whole.start < lowest or whole.end > ADDRESS_4G or not _inside(whole, ram):
        raise BootError(
            f"{path}: the kernel at {whole.start:#x}-{whole.end:#x} must lie in one range of RAM, from {lowest:#x} on and "
            f"below 4 GiB; RAM is {_shown(ram)}"
        )


def _inside(span: Span, ram: Sequence[Span]) -> bool:
    return any(part.start <= span.start and span.end <= part.end for part in ram)


def _shown(ram: Sequence[Span]) -> str:
    return ", ".join(f"{part.start:#x}-{part.end:#x}" for part in ram)


def require_disjoint(spans: Sequence[Span], whose: str = "", hint: str = "") -> None:
    """That no two overlap; `whose` goes in front of the message, `hint` behind it."""
    ordered = sorted((span for span in spans if span.size), key=lambda span: span.bounds)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            what = f"{after.name} at {after.start:#x}-{after.end:#x}"
            raise BootError(f"{whose}{what} overlaps {before.name} at {before.start:#x}-{before.end:#x}{hint}")
