"""Links the guest's code to an ELF file of any shape, without an assembler, and tells it what its own file says.

A recipe need not be right: what a loader has to refuse is made here too.
"""

from typing import Final, NamedTuple

from .abi import pvh
from .abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from .abi.paging import LARGE_PAGE
from .abi.x86 import ADDRESS_4G, PAGE_SIZE
from .elfwriter import ElfSegment, note, write_elf
from .errors import BootError
from .guest_image import GuestImage, get_address, put_address
from .guest_layout import (
    GUEST_FILE_BYTES,
    GUEST_MEMORY_BYTES,
    GUEST_PADDR,
    GUEST_REGION,
    GUEST_SHAPE,
    GUEST_STATE_OFFSET,
    GUEST_TABLES_OFFSET,
    SHAPE_ENTRY_STD,
    SHAPE_FREEBSD,
    SHAPE_RELOCATABLE,
    GuestRegion,
    GuestShape,
    fnv_1a,
)

ENTRY: Final = "guest_entry"
ENTRY_RELOC: Final = "guest_entry_reloc"
ELF_ENTRY: Final = "guest_elf_entry"  # leads to an exit value of its own
STD: Final = b"\xfd"  # an instruction of one byte that leaves a trace: the direction flag


class Code(NamedTuple):
    """The PT_LOAD that the guest's image is: its physical address, all its bytes in memory, its p_align."""

    paddr: int = GUEST_PADDR
    memsz: int = GUEST_MEMORY_BYTES
    align: int = 1


class Load(NamedTuple):
    """A PT_LOAD of data: `filesz` bytes in the file, no zero among them, of which the last are `tail`; zeros up to `memsz`."""

    paddr: int
    filesz: int
    memsz: int
    tail: bytes = b""
    align: int = 1


class EntryNote(NamedTuple):
    """A PHYS32_ENTRY note: bytes of its descriptor, what is added to the entry that it names, its name with terminator."""

    size: int
    add: int = 0
    name: bytes = pvh.NOTE_NAME


class Notes(NamedTuple):
    """A PT_NOTE or SHT_NOTE: its notes, packed to 4 bytes; of the segment its p_align, and by how many bytes it lies beside a
    multiple of 16 in the file."""

    notes: tuple[EntryNote | bytes, ...]
    align: int = 4
    skew: int = 0


class Recipe(NamedTuple):
    """How a guest's file is made. `loads` and `notes` are in the order of the program headers, `notes` behind `loads`.

    `notes` None: one, with the entry in as many bytes as the class has. `entry` is a label, and the PVH entry lies `entry_add`
    bytes behind it; `elf_entry` is the label that the ELF header names. `vaddr` is added to a physical address for the virtual
    one. `relocation` is that of a guest that can be moved; the note that says so is among `notes`. `freebsd`: it tries
    FreeBSD's rules.
    """

    bits: int = 64
    loads: tuple[Code | Load, ...] = (Code(),)
    notes: tuple[Notes, ...] | None = None
    note_sections: tuple[Notes, ...] = ()
    entry: str = ENTRY
    entry_add: int = 0
    elf_entry: str = ENTRY
    vaddr: int = 0
    relocation: pvh.Relocation | None = None
    freebsd: bool = False


def load_bytes(load: Load) -> bytes:
    """The bytes of a data segment: from a linear congruence that its address starts, none of them 0."""
    data = bytearray()
    value = load.paddr & 0xFFFFFFFF
    while len(data) < load.filesz - len(load.tail):
        value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
        data.append(value >> 24 | 1)
    return bytes(data) + load.tail


def link(image: GuestImage, name: str, recipe: Recipe) -> bytes:
    """The ELF file; the guest in it prints `name`. The same input gives the same bytes.

    BootError for what cannot be linked: no code or two, or no room for what the guest is told.
    """
    codes = [number for number, load in enumerate(recipe.loads) if isinstance(load, Code)]
    if len(codes) != 1:
        raise BootError(f"guest {name}: {len(codes)} segments of code: one would be right")
    (text,) = codes
    code = recipe.loads[text]
    entry = code.paddr + image.labels[recipe.entry] + recipe.entry_add
    linked = _link_image(image, name, recipe, code.paddr, entry)

    def segment(load: Code | Load) -> ElfSegment:
        data = linked if isinstance(load, Code) else load_bytes(load)
        vaddr = (load.paddr + recipe.vaddr) % (1 << recipe.bits)
        return ElfSegment(PT_LOAD, load.paddr, data, load.memsz, PF_R | PF_W | PF_X, load.align, vaddr)

    def packed(notes: Notes) -> bytes:
        return b"".join(_entry_note(one, entry) if isinstance(one, EntryNote) else one for one in notes.notes)

    all_notes = (Notes((EntryNote(recipe.bits // 8),)),) if recipe.notes is None else recipe.notes
    segments = [segment(load) for load in recipe.loads]
    segments += [
        ElfSegment(PT_NOTE, 0, data, len(data), PF_R, notes.align, skew=notes.skew)
        for notes, data in ((notes, packed(notes)) for notes in all_notes)
    ]

    def virtual(offset: int) -> int:
        return (code.paddr + offset + recipe.vaddr) % (1 << recipe.bits)

    return write_elf(
        recipe.bits,
        entry if recipe.elf_entry == recipe.entry and not recipe.vaddr else virtual(image.labels[recipe.elf_entry]),
        segments,
        {label: virtual(offset) for label, offset in image.labels.items()},
        text=text,
        note_sections=[packed(notes) for notes in recipe.note_sections],
    )


def _entry_note(piece: EntryNote, entry: int) -> bytes:
    descriptor = (entry + piece.add & (1 << 8 * piece.size) - 1).to_bytes(piece.size, "little")
    return note(piece.name, pvh.XEN_ELFNOTE_PHYS32_ENTRY, descriptor)


def _link_image(image: GuestImage, name: str, recipe: Recipe, link_paddr: int, entry: int) -> bytes:
    """The bytes of the code's segment: code, shape, regions, relocations, name; then the state and the stack, zeros."""
    _check_high(name, recipe, link_paddr)
    data = bytearray(image.code)
    for at in image.relocations:
        put_address(data, at, get_address(data, at) + link_paddr)
    shape_at = image.labels["shape"]
    regions_at = shape_at + GUEST_SHAPE.size
    regions = [_region(load) for load in recipe.loads]
    relocations_at = regions_at + GUEST_REGION.size * len(regions)
    fields = GUEST_SHAPE.fields
    told = [shape_at + fields[field].offset for field in ("page_tables", "name", "regions")]
    relocations = sorted([*image.relocations, *told]) if recipe.relocation else []
    name_at = relocations_at + 2 * len(relocations)
    low = [load for load in recipe.loads if load.memsz and load.paddr < ADDRESS_4G]
    place = recipe.relocation or pvh.Relocation(1, pvh.PHYS32_RELOC_MIN, pvh.PHYS32_RELOC_MAX)
    flags = (
        (recipe.relocation is not None) * SHAPE_RELOCATABLE
        | (recipe.entry_add == -len(STD)) * SHAPE_ENTRY_STD
        | recipe.freebsd * SHAPE_FREEBSD
    )
    shape = GuestShape(
        balance=0,
        bits=recipe.bits,
        flags=flags,
        link=link_paddr,
        entry=entry & 0xFFFFFFFF,
        first=min(load.paddr for load in low),
        last=min(max(load.paddr + load.memsz for load in low), ADDRESS_4G) - 1,
        align=place.align,
        min=place.min,
        max=place.max,
        page_tables=link_paddr + GUEST_TABLES_OFFSET,
        name=link_paddr + name_at,
        regions=link_paddr + regions_at,
        region_count=len(regions),
        relocations=link_paddr + relocations_at,
        relocation_count=len(relocations),
    )
    data += GUEST_SHAPE.pack(shape) + b"".join(map(GUEST_REGION.pack, regions))
    data += b"".join(at.to_bytes(2, "little") for at in relocations) + name.encode() + b"\0"
    if len(data) > GUEST_STATE_OFFSET:
        raise BootError(f"guest {name}: its code and shape take {len(data)} bytes: there are {GUEST_STATE_OFFSET}")
    data += bytes(GUEST_FILE_BYTES - len(data))
    words = memoryview(data[:GUEST_STATE_OFFSET]).cast("I")
    put_address(data, shape_at + fields["balance"].offset, -sum(words) & 0xFFFFFFFF)
    return bytes(data)


def _region(load: Code | Load) -> GuestRegion:
    if isinstance(load, Code):
        return GuestRegion(load.paddr, GUEST_FILE_BYTES, load.memsz, 1, 0, 0, 0)
    return GuestRegion(load.paddr, load.filesz, load.memsz, 0, fnv_1a(load_bytes(load)), 0, 0)


def _check_high(name: str, recipe: Recipe, link_paddr: int) -> None:
    """What lies above 4 GiB is looked at through one page of 2 MiB, with tables in the image's bss, which is looked at before;
    meanwhile nothing is mapped but the page that the image lies in."""
    seen = False
    for load in recipe.loads:
        seen |= isinstance(load, Code)
        if load.paddr < ADDRESS_4G:
            continue
        one_page = load.paddr // LARGE_PAGE == (load.paddr + max(load.memsz, 1) - 1) // LARGE_PAGE
        image_in_one = link_paddr // LARGE_PAGE == (link_paddr + GUEST_MEMORY_BYTES - 1) // LARGE_PAGE
        if not (seen and one_page and image_in_one and link_paddr % PAGE_SIZE == 0 and recipe.relocation is None):
            raise BootError(f"guest {name}: its segment at {load.paddr:#x} cannot be looked at from 32-bit code")
