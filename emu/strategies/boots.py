"""Boots that must end at the kernel's entry with nothing to complain of: machine, memory, kernel, modules, command line."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from hypothesis import strategies as st
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import HLT, PAGE_SIZE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.machines import GIB, MACHINES, MIB, MachineSpec

from .cmdlines import cmdlines

_MEMORY: Final = (16 * MIB, 17 * MIB, 64 * MIB, 512 * MIB, 2 * GIB, 3 * GIB, 3 * GIB + 512 * MIB, 4 * GIB, 5 * GIB)
_KERNEL_END: Final = 8 * MIB  # what is drawn of a kernel ends below; modules go behind
_NOTE_ALIGN: Final = 4
_MODULE_WORDS: Final = 60  # bytes of a module's command line; the parameter block of `bare` has room for few more
_BARE_WORDS: Final = 900


class DrawnModule(NamedTuple):
    """A module's bytes, and its command line (None: it has none)."""

    data: bytes
    cmdline: str | None


class DrawnSegment(NamedTuple):
    """A piece of the kernel: pages between it and the one before (or 1 MiB), bytes, zeros behind them."""

    gap: int
    size: int
    bss: int


class Boot(NamedTuple):
    """`memory` in bytes; `bits` and `segments` are the kernel's, an ELF file of nothing but hlt, entered `entry` bytes behind
    the start of its first segment by a note with a descriptor of so many bytes."""

    spec: MachineSpec
    memory: int
    dma: bool
    bits: int
    segments: tuple[DrawnSegment, ...]
    entry: int
    descriptor: int
    modules: tuple[DrawnModule, ...]
    cmdline: str | None

    def kernel(self) -> bytes:
        """The kernel's file."""
        pieces = []
        at = MIB
        for segment in self.segments:
            at += segment.gap * PAGE_SIZE
            data = HLT * segment.size
            pieces.append(ElfSegment(PT_LOAD, at, data, len(data) + segment.bss, PF_R | PF_W | PF_X, PAGE_SIZE))
            at += -(-(segment.size + segment.bss) // PAGE_SIZE) * PAGE_SIZE
        entry = pieces[0].paddr + self.entry
        told = note(NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY, entry.to_bytes(self.descriptor, "little"))
        pieces.append(ElfSegment(PT_NOTE, 0, told, len(told), PF_R, _NOTE_ALIGN))
        return write_elf(self.bits, entry, pieces, {})

    @contextmanager
    def plan(self, firmware: bytes, directory: str) -> Iterator[BootPlan]:
        """The boot with a ROM, planned; its modules are files in the directory, open as long as the context lasts."""
        modules = []
        for number, module in enumerate(self.modules):
            path = os.path.join(directory, f"module-{number}")
            with open(path, "wb") as file:
                file.write(module.data)
            modules.append(Module(path, module.cmdline))
        with Kernel.from_bytes(self.kernel(), "kernel") as kernel:
            yield make_plan(
                self.spec,
                firmware,
                kernel,
                memory=self.memory,
                modules=modules,
                cmdline=self.cmdline,
                dma=self.dma,
            )


_SEGMENTS: Final = st.lists(
    st.builds(
        DrawnSegment,
        st.sampled_from((0, 0, 1, 16)) | st.integers(0, 600),
        st.integers(1, 5000),
        st.sampled_from((0, 1, PAGE_SIZE, 0x10000)) | st.integers(0, 0x8000),
    ),
    min_size=1,
    max_size=3,
)


def _modules(spec: MachineSpec) -> st.SearchStrategy[tuple[DrawnModule, ...]]:
    data = st.builds(lambda unit, times: unit * times, st.binary(min_size=1, max_size=8), st.integers(1, 600))
    if spec.source == FW_CFG:
        return st.just(()) | data.map(lambda initrd: (DrawnModule(initrd, None),))
    return st.lists(st.builds(DrawnModule, data, st.none() | cmdlines(_MODULE_WORDS)), max_size=3).map(tuple)


def _of(spec: MachineSpec) -> st.SearchStrategy[Boot]:
    has_fw_cfg = spec.source == FW_CFG
    return st.builds(
        _boot,
        st.just(spec),
        memory=st.sampled_from(_MEMORY)
        | st.integers(16 * MIB // PAGE_SIZE, 64 * MIB // PAGE_SIZE).map(lambda n: n * PAGE_SIZE),
        dma=st.sampled_from((True, False)) if has_fw_cfg else st.just(True),
        bits=st.sampled_from((64, 32)),
        segments=_SEGMENTS,
        entry=st.integers(0, 5000),
        descriptor=st.sampled_from((4, 8)),
        modules=_modules(spec),
        cmdline=st.none() | (cmdlines() if has_fw_cfg else cmdlines(_BARE_WORDS)),
    )


def _boot(spec: MachineSpec, segments: list[DrawnSegment], entry: int, **more: object) -> Boot:
    return Boot(spec=spec, segments=tuple(segments), entry=entry % segments[0].size, **more)  # type: ignore[arg-type]


@st.composite
def boots(draw: st.DrawFn, machines: Sequence[MachineSpec] = tuple(MACHINES.values())) -> Boot:
    """Boots on these machines: 16 MiB to 5 GiB of RAM, around the hole below 4 GiB too; kernels of both classes in one to three
    pieces, entered anywhere in the first; fw_cfg with its DMA and without; no module or as many as the machine has room for,
    with command lines on `bare`; cmdlines. The simplest is the first machine with 16 MiB and a kernel of one byte."""
    return draw(st.sampled_from(tuple(machines)).flatmap(_of))
