"""QEMU's -kernel on its x86 machines, as QEMU 7.2 does it (Debian 12 has 7.2.22; what it says was compared with that one).

Sources: QEMU hw/i386/x86.c, hw/i386/multiboot.c, include/hw/elf_ops.h, hw/core/loader.c, by function as the rules name them.
"""

import struct
from typing import Final

from pvhboot.shim.abi import boot_params, multiboot
from pvhboot.shim.abi.elf import E_MACHINE, ELF_MAGIC, ELFDATA2LSB, EM_386, EM_X86_64
from pvhboot.shim.abi.pvh import XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G

from . import qemu_elf
from .base import (
    ACCEPTS,
    LINUX_BOOT,
    MULTIBOOT,
    PVH,
    HeaderRule,
    Model,
    Rule,
    Ruling,
    Verdict,
    Walk,
    entry_remarks,
    refuses,
)
from .qemu_elf import QemuCase
from .raw import RawFile

_WRONG_FLAGS: Final = 0x00010004  # of e_flags


def _empty(case: QemuCase) -> Ruling | None:
    return refuses("an empty file: could not load kernel") if not case.raw.size else None


def _linux(case: QemuCase) -> Ruling | None:
    offset, magic = boot_params.HEADER_MAGIC
    if case.raw.take(offset, len(magic)) != magic:
        return None
    return _as_linux(case, case.raw.field(boot_params.VERSION))


def _as_linux(case: QemuCase, protocol: int) -> Ruling:
    setup = boot_params.setup_bytes(case.raw.field(boot_params.SETUP_SECTS))
    if setup > case.raw.size:
        return refuses(f"invalid kernel header: a setup of {setup:#x} bytes in a file of {case.raw.size:#x}")
    high = protocol >= boot_params.PROTOCOL_HEADER and case.raw.field(boot_params.LOADFLAGS) & boot_params.LOADED_HIGH
    start = boot_params.LOAD_PADDR_HIGH if high else boot_params.LOAD_PADDR_LOW
    if not protocol:
        return Ruling(
            ACCEPTS,
            f"no format that it knows, so it takes it for a Linux from before the boot protocol 2.00: code from {setup:#x} on "
            f"goes to {start:#x}",
            LINUX_BOOT,
            start,
            ("it never asks whether that is code",),
        )
    return Ruling(
        ACCEPTS,
        f"boot protocol {boot_params.protocol_name(protocol)}: its protected-mode part goes to {start:#x}; "
        "a PVH note in it is not looked for",
        LINUX_BOOT,
        start,
    )


def _multiboot(case: QemuCase) -> Ruling | None:
    head = case.raw.take(0, multiboot.SEARCH_BYTES).ljust(multiboot.SEARCH_BYTES, b"\0")
    at = multiboot.find_header(head)
    if at is None:
        return None
    if int.from_bytes(head[at + 4 : at + 8], "little") & multiboot.MULTIBOOT_HAS_ADDR:
        offset, code = multiboot.ADDRESS_FIELDS
        return _multiboot_by_address(case, at, struct.unpack_from(code, head, at + offset))
    case.is_multiboot = True
    case.source = f"Multiboot header at {at:#x}"
    if int.from_bytes(head[E_MACHINE : E_MACHINE + 2], "little") == EM_X86_64:
        return refuses(f"{case.source} in a file for EM_X86_64: cannot load x86-64 image, give a 32bit one")
    return None


def _multiboot_by_address(case: QemuCase, at: int, fields: tuple[int, ...]) -> Ruling:
    """The header itself says what to load: header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr."""
    header, load, load_end, bss_end, entry = fields
    if header < load:
        return refuses(f"invalid load_addr address: {load:#x}, above header_addr {header:#x}")
    offset = at - (header - load)
    if load_end and load_end < load:
        return refuses(f"invalid load_end_addr address: {load_end:#x}, below load_addr {load:#x}")
    size = load_end - load if load_end else case.raw.size - offset
    if not 0 <= offset <= case.raw.size - size:
        return refuses(f"{size:#x} bytes from {offset:#x} on are not in the file")
    if bss_end and bss_end < load + size:
        return refuses(f"invalid bss_end_addr address: {bss_end:#x}, below the end {load + size:#x} of what is loaded")
    end = bss_end or load + size
    if end > ADDRESS_4G:
        return refuses("kernel does not fit in address space")
    reason = f"a Multiboot header at {at:#x}, with addresses: {load:#x}-{end:#x}"
    return Ruling(ACCEPTS, reason, MULTIBOOT, entry, entry_remarks(entry, [(load, end)]))


def _not_elf(case: QemuCase) -> Ruling | None:
    if case.raw.take(0, len(ELF_MAGIC)) == ELF_MAGIC:
        return None
    if case.is_multiboot:
        return refuses(f"{case.source} without addresses, in what is no ELF file")
    return _as_linux(case, 0)


def _flags(case: QemuCase) -> Ruling | None:
    if case.header is None or case.is_multiboot or not case.header.e_flags & _WRONG_FLAGS:
        return None
    return refuses(f"elfboot unsupported flags = {case.header.e_flags:x}")


def _header(case: QemuCase) -> Ruling | None:
    if case.header is None:
        return refuses(f"the file ends within the header of an ELF{case.bits}")
    if case.header.ei_data != ELFDATA2LSB:
        return refuses(f"EI_DATA is {case.header.ei_data}, not 1 (little-endian)")
    if case.header.e_machine not in (EM_386, EM_X86_64):
        return refuses(f"e_machine is {case.header.e_machine}: {EM_386} (EM_386) and {EM_X86_64} (EM_X86_64) are taken")
    return None


def _no_note(case: QemuCase) -> Ruling | None:
    if case.entry or case.is_multiboot:
        return None
    return refuses("Error loading uncompressed kernel without PVH ELF Note")


def _by_multiboot(case: QemuCase) -> Ruling | None:
    return _accepted(case, MULTIBOOT, f"{case.source}: a PVH note is not looked for") if case.is_multiboot else None


def _by_pvh(case: QemuCase) -> Ruling:
    return _accepted(case, PVH, f"a note of type {XEN_ELFNOTE_PHYS32_ENTRY} in {case.source}")


def _accepted(case: QemuCase, road: str, reason: str) -> Ruling:
    entry = case.entry % ADDRESS_4G
    remarks = entry_remarks(entry, [(start, start + memory) for start, memory, _ in case.roms])
    return Ruling(ACCEPTS, reason, road, entry, remarks)


_X86: Final = "hw/i386/x86.c: "
_ELF_OPS: Final = "include/hw/elf_ops.h: "

QEMU: Final = Model(
    "qemu",
    "QEMU 7.2, -kernel",
    (
        Rule("the first 8 KiB of the file must be readable", _X86 + "x86_load_linux", _empty),
        Rule("what has a Linux setup header goes by the Linux boot protocol, first of all", _X86 + "x86_load_linux", _linux),
        Rule(
            "a Multiboot 1 header within 8 KiB comes before ELF and PVH; only EM_386 may have it",
            "hw/i386/multiboot.c: load_multiboot",
            _multiboot,
        ),
        Rule("what is nothing else is an old Linux zImage, if its setup fits into it", _X86 + "x86_load_linux", _not_elf),
        Rule("e_flags must not have 0x10004", _X86 + "load_elfboot", _flags),
        Rule(
            "the ELF header must be whole, little-endian, for EM_386 or EM_X86_64 (either class)",
            "hw/core/loader.c: load_elf_ram_sym; " + _ELF_OPS + "load_elf",
            _header,
        ),
        Rule("the symbol table is read, whatever its size", _ELF_OPS + "load_symbols", qemu_elf.symbols),
        Rule("all program headers must lie in the file; e_phentsize is not looked at", _ELF_OPS + "load_elf", qemu_elf.headers),
        Walk(
            lambda case: case.raw.program_headers(case.bits),
            (
                HeaderRule("a PT_LOAD must lie in the file", _ELF_OPS + "load_elf", qemu_elf.load),
                HeaderRule(
                    "a PT_NOTE is searched for a type, never a name, in steps of its p_align; the last one found counts",
                    _ELF_OPS + "get_elf_note_type; " + _X86 + "read_pvh_start_addr",
                    qemu_elf.note,
                ),
            ),
        ),
        Rule("the memory of all segments is summed as an int", _X86 + "load_elfboot", qemu_elf.total),
        Rule("a Multiboot kernel must be one piece of memory", "hw/i386/multiboot.c: load_multiboot", qemu_elf.fetch),
        Rule(
            "some PT_NOTE must have a note of type 18, and what its descriptor begins with must not be 0",
            _X86 + "load_elfboot",
            _no_note,
        ),
        Rule(
            "what is loaded may overlap neither itself nor the firmware",
            "hw/core/loader.c: rom_check_and_register_reset",
            qemu_elf.overlap,
        ),
        Rule(
            "all is written at reset, RAM or not; what the file does not have is zeroed",
            "hw/core/loader.c: rom_reset",
            qemu_elf.hang,
        ),
        Rule(
            "a Multiboot 1 header within 8 KiB comes before PVH: the entry is that of the ELF header",
            "hw/i386/multiboot.c: load_multiboot",
            _by_multiboot,
        ),
        Rule(
            "the entry is the 32 bits behind the note of that type that was found last, whatever its name",
            f"{_ELF_OPS}get_elf_note_type; {_X86}read_pvh_start_addr, load_elfboot",
            _by_pvh,
        ),
    ),
)


def judge_qemu(raw: RawFile) -> Verdict:
    """QEMU's verdict."""
    return QEMU.judge(QemuCase(raw))
