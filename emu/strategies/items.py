"""Files and items of fw_cfg that a firmware takes apart, nearly good ones most often: table-loader scripts, SMBIOS anchors,
setup headers of a bzImage."""

import struct
from functools import cache
from typing import Final

from hypothesis import strategies as st
from pvhboot.shim.abi import acpi_loader as loader
from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.machines import MIB

# QEMU include/hw/acpi/aml-build.h, ACPI_BUILD_TABLE_FILE.
TABLES_FILE: Final = b"etc/acpi/tables"

_LAST_WORD: Final = ADDRESS_4G - 1
_NAMES: Final = st.sampled_from(
    (
        TABLES_FILE,
        loader.RSDP_FILE,
        b"etc/none",
        b"x" * loader.LOADER_FILE_NAME_BYTES,
        TABLES_FILE + b"s",
        b"",
    )
)
_OFFSETS: Final = st.integers(0, 64) | st.sampled_from((PAGE_SIZE - 3, PAGE_SIZE, 0x7FFFFFFF, _LAST_WORD))
_LENGTHS: Final = st.integers(0, 64) | st.sampled_from((PAGE_SIZE, _LAST_WORD))
_ALIGNS: Final = st.sampled_from((1, 16, 64, PAGE_SIZE, 0, 3, 1 << 31))
_ALLOCATES: Final = st.builds(loader.LoaderAllocate, st.just(loader.LOADER_ALLOCATE), _NAMES, _ALIGNS, st.integers(0, 3)).map(
    loader.ALLOCATE.pack
)
_POINTERS: Final = st.builds(
    loader.LoaderAddPointer,
    st.just(loader.LOADER_ADD_POINTER),
    _NAMES,
    _NAMES,
    _OFFSETS,
    st.sampled_from((1, 2, 4, 8, 0, 3, 255)),
).map(loader.ADD_POINTER.pack)
_CHECKSUMS: Final = st.builds(
    loader.LoaderAddChecksum, st.just(loader.LOADER_ADD_CHECKSUM), _NAMES, _OFFSETS, _OFFSETS, _LENGTHS
).map(loader.ADD_CHECKSUM.pack)
_WRITTEN: Final = st.builds(
    loader.LoaderWritePointer,
    st.just(loader.LOADER_WRITE_POINTER),
    _NAMES,
    _NAMES,
    _OFFSETS,
    _OFFSETS,
    st.integers(0, 9),
).map(loader.WRITE_POINTER.pack)
_UNKNOWN: Final = st.builds(
    lambda number, rest: struct.pack("<I", number) + rest * (loader.LOADER_ENTRY_BYTES - 4),
    st.integers(0, _LAST_WORD),
    st.binary(min_size=1, max_size=1),
)
_BOTH: Final = b"".join(
    loader.ALLOCATE.pack(loader.LoaderAllocate(loader.LOADER_ALLOCATE, name, 16, loader.LOADER_ZONE_HIGH))
    for name in (TABLES_FILE, loader.RSDP_FILE)
)
_SCRIPTS: Final[st.SearchStrategy[bytes]] = st.builds(
    lambda first, rest: first + b"".join(rest),
    st.sampled_from((_BOTH, b"")),
    st.lists(st.one_of(_ALLOCATES, _POINTERS, _CHECKSUMS, _WRITTEN, _UNKNOWN), max_size=40),
)


@st.composite
def table_loaders(draw: st.DrawFn) -> bytes:
    """Scripts for etc/table-loader: up to 40 commands of the four kinds that there are, and of none, about etc/acpi/tables,
    etc/acpi/rsdp and files that do not exist; offsets, lengths, alignments, zones and sizes good or not."""
    return draw(_SCRIPTS)


_ANCHORS: Final[st.SearchStrategy[bytes]] = st.builds(
    lambda head, rest: head + rest, st.sampled_from((b"_SM_", b"_SM3_", b"_DMI_", b"")), st.binary(max_size=40)
)


@st.composite
def smbios_anchors(draw: st.DrawFn) -> bytes:
    """Files etc/smbios/smbios-anchor: one of the signatures, or none, and up to 40 bytes."""
    return draw(_ANCHORS)


def setup_header(
    *,
    magic: int = int.from_bytes(boot_params.HEADER_MAGIC[1], "little"),
    version: int = 0x20F,
    flags: int = boot_params.LOADED_HIGH,
    jump: int = 0x6A,
    alignment: int = 0x200000,
    relocatable: int = 1,
    setup_data: int = 0,
    preferred: int = 0x1000000,
    size: int = 0x800000,
) -> bytes:
    """The beginning of a bzImage up to the last byte that its setup header can have (boot_params.HEADER_MAX); what is not the
    header is 0xee."""
    data = bytearray(b"\xee" * boot_params.HEADER_MAX)
    at, flag = boot_params.BOOT_FLAG
    data[at : at + len(flag)] = flag
    data[boot_params.HEADER_JUMP] = jump
    struct.pack_into("<I", data, boot_params.HEADER_MAGIC[0], magic)
    for (offset, code), value in (
        (boot_params.VERSION, version),
        (boot_params.LOADFLAGS, flags),
        (boot_params.ALIGNMENT, alignment),
        (boot_params.RELOCATABLE, relocatable),
        (boot_params.SETUP_DATA, setup_data),
        (boot_params.PREF_ADDRESS, preferred),
        (boot_params.INIT_SIZE, size),
    ):
        struct.pack_into(code, data, offset, value)
    return bytes(data)


@st.composite
def setup_headers(draw: st.DrawFn, memory: int, kernel: int) -> bytes:
    """What fw_cfg has of a bzImage's beginning, on a machine with `memory` bytes of RAM and the kernel at that address:
    protocols from none to the newest, addresses and sizes good or not."""
    return draw(_setup_headers(memory, kernel))


@cache
def _setup_headers(memory: int, kernel: int) -> st.SearchStrategy[bytes]:
    good = int.from_bytes(boot_params.HEADER_MAGIC[1], "little")
    return st.builds(
        setup_header,
        magic=st.sampled_from((good, good, good, int.from_bytes(b"HdrX", "little"))),
        version=st.sampled_from((0x20F, 0x20F, 0x20A, 0x209, 0x206, 0x205, 0, 0xFFFF)),
        flags=st.sampled_from((1, 1, 0x81, 0)),
        jump=st.sampled_from((0x6A, 0x6A, 0, 0xFF)),
        alignment=st.sampled_from((0x200000, PAGE_SIZE, 1, 0, 3, 1 << 31)),
        relocatable=st.integers(0, 1),
        setup_data=st.sampled_from((0, 0, kernel + PAGE_SIZE, 3 * MIB, memory - 8, 0x9F000, ADDRESS_4G, (1 << 64) - 1)),
        preferred=st.sampled_from((0x1000000, 0x1000000, MIB, 0, 0x27000, ADDRESS_4G, (1 << 64) - 1)),
        size=st.sampled_from((0x800000, 0x800000, 0, 0x2000000, _LAST_WORD)),
    )
