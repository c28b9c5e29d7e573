"""The QEMU command line for a plan, and the files that it names.

Source: QEMU's man page qemu-system-x86_64(1); docs/system/i386/microvm.rst, docs/system/generic-loader.rst.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Final

from pvhboot.loader.image import pieces
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi import multiboot
from pvhboot.shim.abi.devices import DEBUG_EXIT_PORT
from pvhboot.shim.abi.firmware import DEBUGCON_PORT, PARAMS
from pvhboot.shim.errors import BootError, UnavailableError
from pvhboot.shim.machines import KIB, MICROVM, ROM_GRANULE, Span, low_hole

PROGRAM: Final = "qemu-system-x86_64"
# The character devices: two that are talked with, and three that are only listened to.
SOCKETS: Final = ("qmp", "gdb")
PIPES: Final = ("console", "debug", "exit")
LOG_FILE: Final = "log"
_RAM_GRANULE: Final = 8 * KIB  # softmmu/vl.c, set_memory_options


def find_program() -> str:
    """QEMU's path; UnavailableError says how to get it."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise UnavailableError(
            f"the qemu engine needs {PROGRAM} on the PATH: install it (qemu-system-x86), or use --engine unicorn"
        )
    return path


def command_line(program: str, plan: BootPlan, accelerator: str, directory: str, descriptors: Mapping[str, int]) -> list[str]:
    """What starts QEMU, stopped before the first instruction; writes the files that it names into `directory`.

    `descriptors` are QEMU's ends of SOCKETS and PIPES. Raises BootError for a plan that QEMU's machine cannot hold.
    """
    _check(plan)
    rom = os.path.join(directory, "rom")
    with open(rom, "wb") as file:
        file.write(plan.rom)
    line = [program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", plan.spec.qemu, "-smp", "1"]
    line += ["-accel", accelerator, "-m", f"{plan.ram_size >> 10}K", "-bios", rom]
    line += ["-S", "-no-reboot", "-no-shutdown", "-d", "cpu_reset", "-D", os.path.join(directory, LOG_FILE)]
    for name in SOCKETS:
        line += ["-chardev", f"socket,id={name},fd={descriptors[name]}"]
    for name in PIPES:
        line += ["-chardev", f"file,id={name},path=/dev/fd/{descriptors[name]}"]
    line += ["-mon", "chardev=qmp,mode=control", "-gdb", "chardev:gdb", "-serial", "chardev:console"]
    line += ["-device", f"isa-debugcon,iobase={DEBUGCON_PORT:#x},chardev=debug"]
    # Not isa-debug-exit: that ends QEMU, with seven bits of the value, and nothing is left to look at.
    line += ["-device", f"isa-debugcon,iobase={DEBUG_EXIT_PORT:#x},chardev=exit"]
    return line + _loading(plan, directory)


def _check(plan: BootPlan) -> None:
    """QEMU rounds RAM up, and its microvm has a copy of the ROM below 1 MiB, whatever the plan's machine has."""
    if plan.ram_size % _RAM_GRANULE:
        raise UnavailableError(f"QEMU takes no memory of {show_size(plan.ram_size)}: it wants a multiple of 8 KiB")
    if len(plan.rom) % ROM_GRANULE:
        raise BootError(f"QEMU takes no firmware of {len(plan.rom)} bytes: it wants a multiple of 64 KiB")
    hole = low_hole(MICROVM if plan.spec.chipset is None else plan.spec, len(plan.rom))
    assert hole is not None
    spans = [Span(f"{plan.kernel.path}: a segment", segment.paddr, segment.end) for segment in plan.segments]
    for span in [*spans, *(module.span for module in plan.modules)]:
        if span.start < hole.end and hole.start < span.end:
            raise UnavailableError(
                f"{span.name} at {span.start:#x}-{span.end:#x} lies where QEMU has a copy of the ROM: "
                "use the engine unicorn or kvm"
            )


def _loading(plan: BootPlan, directory: str) -> list[str]:
    if plan.source == PARAMS:
        if plan.moved_by:
            options = [word for path, paddr in _segment_files(plan, directory) for word in _raw(path, paddr)]
        else:
            options = ["-device", f"loader,file={_escaped(_kernel_file(plan, directory))}"]
        for module in plan.modules:
            options += _raw(module.payload.path, module.paddr)
        return options
    if plan.moved_by:
        raise UnavailableError(
            f"{plan.kernel.path}: is to run at {plan.segments[0].paddr:#x}, but QEMU loads a kernel where it is linked: "
            "use --machine bare, or the engine unicorn or kvm"
        )
    if plan.reserved:
        raise UnavailableError(
            "QEMU's own fw_cfg tells what RAM there is: reserve some on --machine bare, or with unicorn or kvm"
        )
    head = bytearray(multiboot.SEARCH_BYTES)
    plan.kernel.read_into(0, memoryview(head)[: plan.kernel.image_size])
    if (at := multiboot.find_header(head)) is not None:
        raise BootError(
            f"{plan.kernel.path}: a Multiboot header at {at:#x}, by which QEMU would load it instead of by PVH: "
            "use --machine bare"
        )
    options = ["-kernel", _kernel_file(plan, directory), "-append", (plan.cmdline or b"").decode("utf-8", "surrogateescape")]
    for module in plan.modules:
        options += ["-initrd", module.payload.path]
    if not plan.dma:
        options += ["-global", "fw_cfg_io.dma_enabled=off"]
    return options


def _raw(path: str, paddr: int) -> list[str]:
    """Loads a file as it is."""
    return ["-device", f"loader,file={_escaped(path)},addr={paddr:#x},force-raw=on"]


def _escaped(path: str) -> str:
    """A value within an option: a comma ends it unless there are two."""
    return path.replace(",", ",,")


def _kernel_file(plan: BootPlan, directory: str) -> str:
    """The path of the kernel's ELF image: its own file, or one that is written here if it was wrapped."""
    kernel = plan.kernel
    if kernel.is_plain_file:
        return kernel.path
    path = os.path.join(directory, "kernel")
    _copy(kernel, 0, kernel.image_size, path)
    return path


def _segment_files(plan: BootPlan, directory: str) -> Iterator[tuple[str, int]]:
    """Of each segment what the kernel's file has, in a file of its own, and its physical address: the rest is zero at reset."""
    for number, segment in enumerate(plan.segments):
        if segment.filesz:
            path = os.path.join(directory, f"segment-{number}")
            _copy(plan.kernel, segment.offset, segment.filesz, path)
            yield path, segment.paddr


def _copy(kernel: Kernel, offset: int, size: int, path: str) -> None:
    """Writes a part of the kernel's ELF image to a file."""
    with open(path, "wb") as file:
        file.writelines(pieces(kernel, offset, size))
