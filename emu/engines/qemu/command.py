"""The QEMU command line for a plan, and the files that it names.

Source: QEMU's man page qemu-system-x86_64(1); docs/system/i386/microvm.rst, docs/system/generic-loader.rst.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
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


def command_line(plan: BootPlan, accelerator: str, program: str, directory: str, descriptors: Mapping[str, int]) -> list[str]:
    """What starts QEMU, stopped before the first instruction; writes the files that it names into `directory`.

    `descriptors` are QEMU's ends of SOCKETS and PIPES. Raises BootError for a plan that QEMU's machine cannot hold.
    """
    booting = boot_arguments(plan, directory)
    line = stopped_machine(program, plan.spec.qemu, accelerator, plan.ram_size)
    line += ["-no-shutdown", "-d", "cpu_reset", "-D", os.path.join(directory, LOG_FILE)]
    line += character_devices(SOCKETS, PIPES, descriptors)
    line += ["-mon", "chardev=qmp,mode=control", "-gdb", "chardev:gdb", "-serial", "chardev:console"]
    line += [*byte_port(DEBUGCON_PORT, "debug"), *byte_port(DEBUG_EXIT_PORT, "exit")]
    return line + booting


def stopped_machine(program: str, machine: str, accelerator: str, memory: int) -> list[str]:
    """QEMU with one CPU, `memory` bytes of RAM and no device that was not asked for, stopped before the first instruction."""
    line = [program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine, "-smp", "1"]
    return [*line, "-accel", accelerator, "-m", f"{memory >> 10}K", "-S", "-no-reboot"]


def character_devices(sockets: Iterable[str], pipes: Iterable[str], descriptors: Mapping[str, int]) -> list[str]:
    """One for each name, at the other end of a descriptor."""
    line: list[str] = []
    for name in sockets:
        line += ["-chardev", f"socket,id={name},fd={descriptors[name]}"]
    for name in pipes:
        line += ["-chardev", f"file,id={name},path=/dev/fd/{descriptors[name]}"]
    return line


def byte_port(port: int, name: str) -> list[str]:
    """A port: each byte that is written to it comes out of that character device. (isa-debug-exit would end QEMU, with seven
    bits of the value, and nothing would be left to look at.)"""
    return ["-device", f"isa-debugcon,iobase={port:#x},chardev={name}"]


def boot_arguments(plan: BootPlan, directory: str) -> list[str]:
    """Firmware and kernel, with the files that they are in, which are written into `directory`. BootError as command_line."""
    _check(plan)
    rom = os.path.join(directory, "rom")
    with open(rom, "wb") as file:
        file.write(plan.rom)
    return ["-bios", rom, *_loading(plan, directory)]


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
            options = ["-device", f"loader,file={_escaped(kernel_file(plan.kernel, directory))}"]
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
    options = ["-kernel", kernel_file(plan.kernel, directory)]
    options += ["-append", (plan.cmdline or b"").decode("utf-8", "surrogateescape")]
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


def kernel_file(kernel: Kernel, directory: str) -> str:
    """The path of the kernel's ELF image, which is written into the directory if it was wrapped and is in no file."""
    if (named := kernel.image_path) is not None:
        return named
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
