"""What the guest's assembly and whoever links it or reads its report share: its exit values, the layout of its image.

The image is one segment of the guest: code, then the shape (what the linker says of the file), then, from GUEST_STATE_OFFSET
on, state and stack. All of that is in the file, so that the bss behind it can be found as it was loaded.
"""

from typing import Final, NamedTuple

from .abi import x86
from .abi.layout import Layout

GUEST_FORMAT: Final = 2  # the version of what the guest prints, in its first line
GUEST_PADDR: Final = 0x100000  # where the default guests are linked

# Offsets in the image, in bytes.
GUEST_STATE_OFFSET: Final = 0x2400
GUEST_STACK_TOP_OFFSET: Final = 0x2800
GUEST_FILE_BYTES: Final = GUEST_STACK_TOP_OFFSET
GUEST_TABLES_OFFSET: Final = 0x3000  # in the bss: page tables, where a region lies above 4 GiB
GUEST_MEMORY_BYTES: Final = GUEST_TABLES_OFFSET + 3 * x86.PAGE_SIZE

# What debug-exit gets is 0, the number of failed checks, or one of these.
GUEST_ELF_ENTRY: Final = 125  # the guest was entered where its ELF header says, not where its note does
GUEST_FREEBSD_HALT: Final = 126  # FreeBSD would have stopped: the last line says why
GUEST_NO_STACK: Final = 127  # ss does not reach what ds wrote, so nothing can be printed

FREEBSD_FREE_BYTES: Final = 128 * x86.PAGE_SIZE  # what the stand-in for FreeBSD takes from its first free page on

# The flags of a shape.
SHAPE_RELOCATABLE: Final = 1 << 0
SHAPE_ENTRY_STD: Final = 1 << 1  # the entry is the instruction `std` in front of the image
SHAPE_FREEBSD: Final = 1 << 2  # FreeBSD's rules are tried too


class GuestState(NamedTuple):
    """What the guest keeps: the registers as it was entered, then what it found out. All but the MTRR are u32."""

    eax: int
    ebx: int
    ecx: int
    edx: int
    esi: int
    edi: int
    ebp: int
    esp: int
    eip: int
    cr0: int
    cr4: int
    eflags: int
    cs: int
    ds: int
    es: int
    ss: int
    fs: int
    gs: int
    tr: int
    mark: int
    mark_cs: int
    mark_es: int
    mark_ss: int
    base: int
    displacement: int
    image_sum: int
    start_info: int
    memmap: int
    memmap_count: int
    modlist: int
    modlist_count: int
    has_mtrr: int
    mtrr_def_type: int
    number: int
    module_sum: int
    physfree: int
    metadata: int
    failed: int
    serial_dead: int


class GuestShape(NamedTuple):
    """What the linker tells the guest of its own file. Addresses are physical, and as linked.

    `balance` makes the sum of the image's dwords up to its state 0. `first` and `last` are the lowest and the highest byte of
    the kernel below 4 GiB; `align`, `min` and `max` say where that may lie in the end (as PHYS32_RELOC has them).
    """

    balance: int
    bits: int
    flags: int
    link: int
    entry: int
    first: int
    last: int
    align: int
    min: int
    max: int
    page_tables: int
    name: int
    regions: int
    region_count: int
    relocations: int
    relocation_count: int


class GuestRegion(NamedTuple):
    """A PT_LOAD as the guest knows it: `hash` is the FNV-1a of its bytes in the file, 0 for the one that the image is. What is
    found, the guest writes."""

    paddr: int
    filesz: int
    memsz: int
    is_image: int
    hash: int
    found_hash: int
    found_zeros: int


GUEST_STATE: Final = Layout(GuestState, "I" * 32 + "Q" + "I" * 6, "STATE")
GUEST_SHAPE: Final = Layout(GuestShape, "I" * 16, "SHAPE")
GUEST_REGION: Final = Layout(GuestRegion, "QIIIIII", "REGION")

# FNV-1a, 32 bits (RFC 9923, or Fowler, Noll and Vo's own page): a hash that an assembly loop of six instructions computes.
FNV_OFFSET_BASIS: Final = 0x811C9DC5
FNV_PRIME: Final = 0x01000193


def fnv_1a(data: bytes) -> int:
    """The 32-bit FNV-1a hash, with which the guest compares the bytes of a segment."""
    value = FNV_OFFSET_BASIS
    for byte in data:
        value = (value ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return value


# Words that are read as they are written: the sum of the image, and a state and a stack that do not meet.
assert GUEST_STATE_OFFSET % 4 == 0
assert GUEST_STATE_OFFSET + GUEST_STATE.size <= GUEST_STACK_TOP_OFFSET - 0x200
