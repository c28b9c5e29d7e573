"""What makes a firmware go each of its ways: what a host says and what happens meanwhile, each with how the run ends.

A host is one of hostile.py: whatever it says, the firmware is held to what it may write. tests/emu/test_every_way.py runs them
all, and asks whether anything is left.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from hostile import (
    ANCHOR,
    CMDLINE_DATA,
    CMDLINE_SIZE,
    INITRD_ADDR,
    INITRD_SIZE,
    KERNEL,
    KERNEL_ADDR,
    KERNEL_BYTES,
    KERNEL_DATA,
    KERNEL_ENTRY,
    KERNEL_SIZE,
    MANY,
    MEMORY,
    NB_CPUS,
    RSDP,
    SCRIPT,
    SETUP_DATA,
    SMBIOS,
    TABLES,
    setup_header,
)
from pvhboot.shim.machines import MIB

E820 = b"etc/e820"
RAM, RESERVED = 1, 2
ALL_RAM = (0, MEMORY, RAM)
ACPI_MACHINES, PCS = ("microvm-acpi", "pc", "q35"), ("pc", "q35")
MP_MACHINES = ("microvm", "pc", "q35")


class Way(NamedTuple):
    """`host`: what is otherwise than with an honest one, by the fields of Host. `end`: boot, linux or the name of a panic.
    `happens` names what happens meanwhile (happenings.py); empty for nothing."""

    host: Mapping[str, Any]
    end: str = "boot"
    happens: str = ""
    machines: tuple[str, ...] = ("microvm", "microvm-acpi", "pc", "q35")


def e820(*entries: tuple[int, int, int]) -> dict[bytes, bytes]:
    return {E820: b"".join(struct.pack("<QQI", *entry) for entry in entries)}


def reserved(count: int) -> list[tuple[int, int, int]]:
    """So many ranges, none next to another."""
    return [(0xC0000000 + 0x2000 * at, 0x1000, RESERVED) for at in range(count)]


def called(name: bytes) -> dict[bytes, bytes]:
    """The file etc/e820 has this name in the directory."""
    return {E820: name.ljust(56, b"\0")}


def numbers(*values: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {"numbers": dict(values), **more}


FW_CFG = {
    "honest": Way({}),
    "by port": Way({"dma": False, "files": {SCRIPT: None}}),
    "another device": Way({"dma": False, "items": {0: b"none"}}, "NO_FW_CFG"),
    "transfer fails": Way({"fault": "error"}, "FW_CFG_DMA"),
    "transfer ends late": Way({"fault": "never"}, "boot", "the transfer ends"),
    "transfer never ends": Way({"fault": "never"}, "FW_CFG_DMA", "the patience ends"),
    "too many files": Way({"count": 0x3FE1}, "FW_CFG_FILES"),
    "no map": Way({"files": {E820: None}, "others": MANY}, "NO_E820"),
    "a map by port, far behind": Way({"dma": False, "others": 50, "names": called(b"etc/e82")}, "NO_E820"),
    "its name goes on": Way({"names": called(b"etc/e8200")}, "NO_E820"),
    "its name begins otherwise": Way({"names": called(b"ETC/e820")}, "NO_E820"),
}

MAP = {
    "empty": Way({"sizes": {E820: 0}}, "E820_COUNT"),
    "cut": Way({"files": {E820: e820(ALL_RAM)[E820] + b"x"}}, "E820_COUNT"),
    "an empty entry": Way({"files": e820((0x1000, 0, RAM), ALL_RAM)}),
    "from 0 reserved": Way({"files": e820((0, MEMORY, RESERVED))}, "E820_LOW"),
    "from 0 too little": Way({"files": e820((0, 0x1000, RAM))}, "E820_LOW"),
    "from 0 just 1 MiB": Way({"files": e820((0, MIB, RAM))}, "E820_LOW"),
    "nothing from 0": Way({"files": e820((MIB, MIB, RAM))}, "E820_LOW"),
    "wraps": Way({"files": e820(ALL_RAM, ((1 << 64) - 1, 2, RESERVED))}, "E820_OVERLAP"),
    "unsorted": Way({"files": e820(*reversed(reserved(3)), ALL_RAM)}),
    "overlap": Way({"files": e820(ALL_RAM, (MEMORY - 1, 2, RESERVED))}, "E820_OVERLAP"),
    "touch": Way({"files": e820(ALL_RAM, (MEMORY, 0x1000, RESERVED))}),
    "in the hole": Way({"files": e820(ALL_RAM, (0xC0000, 0x1000, RESERVED))}, "E820_OVERLAP", machines=PCS),
}

WHAT = {
    "kernel too low": Way(numbers((KERNEL_ADDR, 0x27FFF)), "KERNEL_RAM"),
    "kernel wraps": Way(numbers((KERNEL_SIZE, 0xFFFFFFFF)), "KERNEL_RAM"),
    "entry before it": Way(numbers((KERNEL_ENTRY, KERNEL - 1)), "KERNEL_ENTRY"),
    "entry behind it": Way(numbers((KERNEL_ENTRY, KERNEL + KERNEL_BYTES)), "KERNEL_ENTRY"),
    "no command line": Way(numbers((CMDLINE_SIZE, 0))),
    "command line too long": Way(numbers((CMDLINE_SIZE, 0x8001)), "CMDLINE_SIZE"),
    "command line without end": Way({"items": {CMDLINE_DATA: b"abcd"}}, "STRING_END"),
    "no initrd": Way(numbers((INITRD_SIZE, 0))),
    "initrd too low": Way(numbers((INITRD_ADDR, MIB - 1)), "INITRD_RAM"),
    "initrd in the map's hole": Way(
        numbers((INITRD_ADDR, MEMORY + MIB), files=e820(ALL_RAM, (2 * MEMORY, MIB, RAM))), "INITRD_RAM"
    ),
    "initrd in what is reserved": Way(
        numbers((INITRD_ADDR, MEMORY), files=e820(ALL_RAM, (MEMORY, MIB, RESERVED))), "INITRD_RAM"
    ),
    "initrd before the kernel": Way(numbers((INITRD_ADDR, MIB), files={SCRIPT: None})),
    "initrd before the kernel, and tables": Way(numbers((INITRD_ADDR, MIB)), "ACPI_ROOM", machines=("microvm-acpi",)),
    "initrd over the kernel": Way(numbers((INITRD_ADDR, KERNEL)), "INITRD_KERNEL"),
    "a panic is for ever": Way({"count": 0x3FE1}, "FW_CFG_FILES", "a non-maskable interrupt comes"),
}


def linux(end: str = "linux", *, data: bytes = b"", values: tuple[tuple[int, int], ...] = (), **header: int) -> Way:
    """A bzImage with such a setup header, its first bytes `data`."""
    items = {SETUP_DATA: setup_header(**header), KERNEL_DATA: data.ljust(KERNEL_BYTES, b"\xf4")}
    return Way(numbers(*values, kind="bzimage", items=items), end)


def piece(following: int, size: int) -> bytes:
    """The head of a piece of setup_data."""
    return struct.pack("<QII", following, 1, size)


BZIMAGE = {
    "good": linux(),
    "no header": linux("NO_KERNEL", magic=0),
    "old": linux("BOOT_PROTOCOL", version=0x205),
    "a zImage": linux("BOOT_PROTOCOL", flags=0),
    "header too short": linux("BOOT_PROTOCOL", jump=0),
    "header long": linux(jump=0xFF),
    "too low": linux("KERNEL_RAM", values=((KERNEL_ADDR, 0x27FFF),)),
    "beyond RAM": linux("KERNEL_RAM", values=((KERNEL_ADDR, MEMORY),)),
    "does not say what it needs": linux(version=0x209),
    "wants to go high": linux("KERNEL_RAM", preferred=1 << 32),
    "cannot be moved": linux(relocatable=0),
    "loaded above": linux(preferred=0x100000),
    "needs too much": linux("KERNEL_RAM", size=0xFFFFFFFF),
    "needs little": linux(preferred=KERNEL, size=0x1000),
    "goes too low": linux("KERNEL_RAM", relocatable=0, preferred=0x27000),
    "goes beyond RAM": linux("KERNEL_RAM", preferred=MEMORY),
    "initrd too": linux(values=((INITRD_SIZE, 0),)),
    "no command line": linux(values=((CMDLINE_SIZE, 0),)),
    "data moved": linux(setup_data=KERNEL, data=piece(0, 5)),
    "data stays below": linux(setup_data=MIB),
    "data stays above": linux(setup_data=0x3000000),
    "data beyond 4 GiB": linux("SETUP_DATA", setup_data=1 << 32),
    "data too high": linux("SETUP_DATA", setup_data=KERNEL | 1 << 32),
    "data in a ring": linux("SETUP_DATA", setup_data=KERNEL, data=piece(KERNEL, 0)),
    "data too low": linux("SETUP_DATA", setup_data=0x9F000),
    "data in no RAM": linux("SETUP_DATA", setup_data=MEMORY - 8),
    "data wraps": linux("SETUP_DATA", setup_data=KERNEL, data=piece(0, 0xFFFFFFFF)),
    "data reaches out of RAM": linux("SETUP_DATA", setup_data=KERNEL, data=piece(0, MEMORY)),
    "data too long": linux("SETUP_DATA", setup_data=KERNEL, data=piece(0, MIB)),
}


# The table-loader's script: hw/acpi/bios-linker-loader.c.

HIGH, F_SEGMENT = 1, 2  # zones
LONG = b"etc/acpi/a-long-name"


def allocate(name: bytes, align: int = 16, zone: int = HIGH) -> bytes:
    return struct.pack("<I56sIB63x", 1, name, align, zone)


def pointer(size: int, offset: int = 0, dest: bytes = TABLES, src: bytes = TABLES) -> bytes:
    return struct.pack("<I56s56sIB7x", 2, dest, src, offset, size)


def checksum(offset: int, start: int, length: int, name: bytes = TABLES) -> bytes:
    return struct.pack("<I56sIII56x", 3, name, offset, start, length)


def write_pointer(size: int, dest: bytes = TABLES, offset: int = 0) -> bytes:
    return struct.pack("<I56s56sIIB3x", 4, dest, TABLES, 0, offset, size)


def script(*commands: bytes, end: str = "boot", happens: str = "", data: bytes = bytes(64), **more: Any) -> Way:
    """A host with this script, RSDP, tables (`data`), and two files whose names begin alike."""
    files = {SCRIPT: b"".join(commands), RSDP: bytes(36), TABLES: data, LONG + b"-1": b"1", LONG + b"-2": b"2"}
    return Way({**more, "files": {**files, **more.pop("files", {})}}, end, happens, ACPI_MACHINES)


def bare_script(end: str, *commands: bytes, **more: Any) -> Way:
    """The same, behind an ALLOCATE of the tables."""
    return script(allocate(TABLES), *commands, end=end, **more)


_OTHER_RAM = numbers((INITRD_ADDR, 0x2200000), files=e820((0, 0x2000000, RAM), (0x2100000, 0x1000000, RAM)))

ACPI = {
    "no script": Way({"files": {SCRIPT: None}}, machines=ACPI_MACHINES),
    "an empty one": Way({"sizes": {SCRIPT: 0}}, machines=ACPI_MACHINES),
    "one too long": Way({"sizes": {SCRIPT: 0x4001}}, "ACPI_SCRIPT", machines=ACPI_MACHINES),
    "many files": Way({"others": MANY}, machines=ACPI_MACHINES),
    "no initrd": Way(numbers((INITRD_SIZE, 0)), machines=ACPI_MACHINES),
    "initrd in other RAM": script(allocate(TABLES), **_OTHER_RAM),
    "kernel in other RAM": script(allocate(TABLES), files=e820((0, 0x180000, RAM), (KERNEL, MEMORY - KERNEL, RAM))),
    "kernel below 1 MiB": linux(
        values=((KERNEL_ADDR, 0x40000), (KERNEL_SIZE, 0x1000)), relocatable=0, preferred=0x40000, size=0x1000
    )._replace(machines=ACPI_MACHINES),
    "nothing allocated": script(bytes(128)),
    "unknown commands": bare_script("boot", b"\xff" * 128),
    "both zones": script(allocate(RSDP, zone=F_SEGMENT), allocate(TABLES)),
    "F segment alone": script(allocate(RSDP, zone=F_SEGMENT)),
    "long names": script(allocate(LONG + b"-1"), allocate(LONG + b"-2"), checksum(0, 0, 1, LONG + b"-1")),
    "too large for the upper memory": script(allocate(TABLES), data=bytes(0x80000)),
    "too large for what is free": script(allocate(TABLES), sizes={TABLES: 0xFFFFFFFF}, end="ACPI_ROOM"),
    "too large for RAM": script(allocate(TABLES), sizes={TABLES: MEMORY - MIB}, end="ACPI_ROOM"),
    "too many": script(*[allocate(TABLES)] * 33, end="ACPI_SCRIPT"),
    "an unknown file": script(allocate(b"etc/acpi/taples"), end="ACPI_FILE", others=MANY),
    "one not allocated": script(checksum(0, 0, 1), end="ACPI_FILE"),
    "alignment 0": script(allocate(TABLES, 0), end="ACPI_SCRIPT"),
    "alignment 3": script(allocate(TABLES, 3), end="ACPI_SCRIPT"),
    **{f"a pointer of {size} bytes": bare_script("boot", pointer(size)) for size in (4, 8)},
    **{f"a pointer of {size} bytes": bare_script("ACPI_SCRIPT", pointer(size)) for size in (1, 2, 3)},
    "a pointer that wraps": bare_script("ACPI_SCRIPT", pointer(4), data=b"\xff" * 64),
    "a pointer beyond the file": bare_script("ACPI_SCRIPT", pointer(4, 61)),
    "a pointer far beyond": bare_script("ACPI_SCRIPT", pointer(4, 0xFFFFFFFE)),
    "a sum": bare_script("boot", checksum(0, 0, 64)),
    "a sum beyond the file": bare_script("ACPI_SCRIPT", checksum(64, 0, 64)),
    "a pointer for the host": bare_script("boot", write_pointer(8), happens="the host takes what is written"),
    "one that it does not take": bare_script("FW_CFG_DMA", write_pointer(8)),
    "one without DMA": bare_script("boot", write_pointer(8), dma=False),
    "one of no bytes": bare_script("ACPI_SCRIPT", write_pointer(0)),
    "one for no file": bare_script("ACPI_FILE", write_pointer(8, b"etc/none")),
    "RAM behind the tables": script(allocate(TABLES), data=bytes(0x80000), numbers={INITRD_ADDR: 0x2000000}),
    "RAM up to the tables": script(allocate(TABLES), data=bytes(0x80000), numbers={INITRD_SIZE: 0}),
    "no entry for the tables": script(
        allocate(TABLES), data=bytes(0x80000), files=e820(ALL_RAM, *reserved(121)), end="E820_COUNT"
    ),
    "no entry for these or for the upper memory": script(
        allocate(TABLES), files=e820(ALL_RAM, *reserved(121)), end="E820_COUNT"
    )._replace(machines=("microvm-acpi", "q35")),
    "no entry for the upper memory": script(
        allocate(TABLES),
        allocate(RSDP),
        data=bytes(0x80000),
        numbers={INITRD_ADDR: 0x2000000},
        files=e820(ALL_RAM, *reserved(120)),
        end="E820_COUNT",
    )._replace(machines=PCS),
}


def anchor(start: bytes, size: int) -> bytes:
    return start.ljust(size, b"\0")


def smbios(*, tables: bytes | None = b"tables", head: bytes | None = None, end: str = "boot", **more: Any) -> Way:
    return Way({"files": {SMBIOS: tables, ANCHOR: head}, **more}, end, machines=PCS)


SMBIOS_WAYS = {
    "2.1": smbios(head=anchor(b"_SM_", 31)),
    "3.0": smbios(head=anchor(b"_SM3_", 24)),
    "another": smbios(head=anchor(b"_DMI_", 31)),
    "2.1 cut": smbios(head=anchor(b"_SM_", 30)),
    "cut": smbios(head=anchor(b"_SM3_", 23)),
    "no tables": smbios(tables=None, head=anchor(b"_SM3_", 24)),
    "empty tables": smbios(tables=b"", head=anchor(b"_SM3_", 24)),
    "no anchor": smbios(),
    "tables too large": smbios(tables=bytes(0x10000), head=anchor(b"_SM3_", 24)),
    "tables far too large": smbios(sizes={SMBIOS: 0x80000000}, head=anchor(b"_SM3_", 24)),
    "an anchor too large": smbios(head=anchor(b"_SM3_", 0x10000)),
}

_NO_ACPI: dict[str, Any] = {"files": {SCRIPT: None}}


def processors(end: str = "boot", happens: str = "", **more: Any) -> Way:
    """Two processors on a machine without ACPI."""
    return Way({**_NO_ACPI, **numbers((NB_CPUS, 2), **more)}, end, happens, MP_MACHINES)


MP_TABLE = {
    "one processor": Way(_NO_ACPI, machines=MP_MACHINES),
    "two": processors(happens="the other processor starts"),
    "two, of which one does not answer": processors(happens="the patience for processors ends"),
    "one that answers late": processors(happens="another processor answers late"),
    "no room in the F segment": Way(
        {"files": {SCRIPT: None, SMBIOS: bytes(0xFE00), ANCHOR: anchor(b"_SM3_", 24)}}, machines=PCS
    ),
    "a kernel below": linux(
        values=((NB_CPUS, 2), (KERNEL_ADDR, 0x40000), (KERNEL_SIZE, 0x1000)), relocatable=0, preferred=0x40000, size=0x1000
    )._replace(machines=("microvm",), happens="the other processor starts"),
    "a kernel over it": linux(
        "KERNEL_RAM",
        values=((NB_CPUS, 2), (KERNEL_ADDR, 0x40000), (KERNEL_SIZE, 0x1000)),
        relocatable=0,
        preferred=0x40000,
        size=0x60000,
    )._replace(machines=("microvm",)),
    "no entry for it": Way(
        {**numbers((NB_CPUS, 2)), "files": e820(ALL_RAM, *reserved(121))},
        "E820_COUNT",
        "the patience for processors ends",
        ("microvm",),
    ),
}

WAYS: dict[str, Way] = {
    f"{about}: {name}": way
    for about, ways in (
        ("fw_cfg", FW_CFG),
        ("memory map", MAP),
        ("what to boot", WHAT),
        ("bzImage", BZIMAGE),
        ("ACPI", ACPI),
        ("SMBIOS", SMBIOS_WAYS),
        ("MP table", MP_TABLE),
    )
    for name, way in ways.items()
}
