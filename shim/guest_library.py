"""The library of conformance guests: which there are, what each shows, and what becomes of it. A table, and nothing else.

Those that boot are good by the System V ABI ("Program Loading", "Note Information") and Xen's docs/misc/pvh.pandoc and
xen/include/public/elfnote.h, each in one way that loaders have got wrong. Those that are refused are wrong in one way.
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from .abi import freebsd, pvh
from .abi.elf import E_MACHINE, EI_DATA, ELFDATA2MSB, EM_X86_64, GNU_NOTE_NAME, NT_GNU_BUILD_ID
from .abi.elf_layouts import NOTE_HEAD, NoteHead
from .abi.x86 import ADDRESS_4G, PAGE_SIZE
from .elfwriter import note
from .errors import BootError
from .guest_image import GuestImage
from .guest_layout import GUEST_FILE_BYTES, GUEST_MEMORY_BYTES, GUEST_PADDR
from .guest_link import ELF_ENTRY, ENTRY_RELOC, STD, Code, EntryNote, Load, Notes, Recipe, link
from .machines import GIB, MIB

_ROOM: Final = 8 * MIB  # behind the guest, for ACPI tables and whatever else a machine puts there
_MEMORY_STEP: Final = 16 * MIB
_LINUX_MAP: Final = 0xFFFFFFFF80000000  # __START_KERNEL_map, and of 32 bits PAGE_OFFSET
_LINUX_MAP_32: Final = 0xC0000000


class Guest(NamedTuple):
    """A guest: `shows` says in a phrase what is special about it. `reason` is why pvhboot refuses it, "" if it boots. `spoil`
    makes of the linked file what no linker would."""

    name: str
    shows: str
    recipe: Recipe
    reason: str = ""
    spoil: Callable[[bytes], bytes] | None = None

    @property
    def memory(self) -> int:
        """RAM in bytes that is enough, whether or not the machine has a hole below 4 GiB."""
        end = 0 if self.reason else max(load.paddr + load.memsz for load in self.recipe.loads)
        return -(-(end + _ROOM) // _MEMORY_STEP) * _MEMORY_STEP

    def build(self, image: GuestImage) -> bytes:
        """The file."""
        data = link(image, self.name, self.recipe)
        return self.spoil(data) if self.spoil else data


def _xen(kind: int, descriptor: bytes) -> bytes:
    return note(pvh.NOTE_NAME, kind, descriptor)


def _number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def _reloc(*values: int) -> bytes:
    """A PHYS32_RELOC note with these words."""
    return _xen(pvh.XEN_ELFNOTE_PHYS32_RELOC, struct.pack(f"<{len(values)}I", *values))


_BUILD_ID: Final = note(GNU_NOTE_NAME, NT_GNU_BUILD_ID, bytes(range(20)))
_ODD: Final = note(b"Vendor\0", 7, b"odd")  # a name and a descriptor that are no multiples of 4
_XEN_OTHERS: Final = _xen(pvh.XEN_ELFNOTE_GUEST_OS, b"none\0") + _xen(pvh.XEN_ELFNOTE_VIRT_BASE, _number(_LINUX_MAP))

_ENTRY_4: Final = EntryNote(4)
_ENTRY_8: Final = EntryNote(8)

_AFTER: Final = GUEST_PADDR + GUEST_MEMORY_BYTES  # where memory is free behind the code

_SHAPES: Final = (
    Guest("elf64", "ELF64, a descriptor of 8 bytes, one segment at 1 MiB, entered at its first byte", Recipe()),
    Guest("elf32", "ELF32, a descriptor of 4 bytes, else the same", Recipe(32)),
    Guest("elf64-entry-4", "ELF64 with a descriptor of 4 bytes", Recipe(notes=(Notes((_ENTRY_4,)),))),
    Guest("elf32-entry-8", "ELF32 with a descriptor of 8 bytes", Recipe(32, notes=(Notes((_ENTRY_8,)),))),
    Guest("elf-entry", "e_entry is another address than the note's, and leaves with 125", Recipe(elf_entry=ELF_ENTRY)),
    Guest("vaddr", "virtual addresses as Linux has them: p_paddr counts", Recipe(vaddr=_LINUX_MAP, elf_entry=ELF_ENTRY)),
    Guest("elf32-vaddr", "the same in an ELF32, from 3 GiB up", Recipe(32, vaddr=_LINUX_MAP_32, elf_entry=ELF_ENTRY)),
    # Notes.
    Guest("note-align-0", "a PT_NOTE with p_align 0", Recipe(notes=(Notes((_ENTRY_8,), 0),))),
    Guest("note-align-8", "a PT_NOTE with p_align 8", Recipe(notes=(Notes((_ENTRY_8,), 8),))),
    Guest("note-align-13", "a PT_NOTE with p_align 13", Recipe(notes=(Notes((_ENTRY_8,), 13),))),
    Guest(
        "note-align-8-second",
        "p_align 8 over notes that are packed to 4, the entry behind one of 36 bytes",
        Recipe(notes=(Notes((_BUILD_ID, _ENTRY_8), 8),)),
    ),
    Guest("note-skewed", "a PT_NOTE at an odd offset of the file", Recipe(notes=(Notes((_ENTRY_8,), skew=5),))),
    Guest(
        "note-last",
        "the entry behind notes of other vendors and others of Xen's, in one PT_NOTE",
        Recipe(notes=(Notes((_ODD, _BUILD_ID, _XEN_OTHERS, _ENTRY_8)),)),
    ),
    Guest(
        "notes-entry-first",
        "two PT_NOTEs, the entry in the first",
        Recipe(notes=(Notes((_ENTRY_8,)), Notes((_BUILD_ID,)))),
    ),
    Guest(
        "notes-entry-second",
        "two PT_NOTEs, the entry in the second",
        Recipe(notes=(Notes((_BUILD_ID,)), Notes((_ENTRY_8,)))),
    ),
    Guest(
        "note-foreign-twin",
        "a note of type 18 of another vendor, which names another address, in front of Xen's",
        Recipe(notes=(Notes((EntryNote(8, 0x10000, b"Zen\0"), _ENTRY_8)),)),
    ),
    Guest(
        "note-section",
        "no PT_NOTE: the entry in a section of type SHT_NOTE",
        Recipe(notes=(), note_sections=(Notes((_ENTRY_8,)),)),
    ),
    Guest(
        "note-section-beside",
        "a PT_NOTE without the entry, and a section with it",
        Recipe(notes=(Notes((_BUILD_ID,)),), note_sections=(Notes((_ODD, _ENTRY_8)),)),
    ),
    # Segments.
    Guest(
        "loads-unsorted",
        "PT_LOADs that do not ascend",
        Recipe(loads=(Load(3 * MIB, 0x1801, 0x1801), Code(), Load(2 * MIB, 0x901, 0x2000))),
    ),
    Guest(
        "loads-touching",
        "PT_LOADs without a byte between them, at odd addresses",
        Recipe(
            loads=(
                Load(GUEST_PADDR, 0x1235, 0x1235),
                Load(GUEST_PADDR + 0x1235, 0x11, 0x1DCB),
                Code(GUEST_PADDR + 0x3000, GUEST_FILE_BYTES),
                Load(GUEST_PADDR + 0x3000 + GUEST_FILE_BYTES, 0x777, 0x777),
            )
        ),
    ),
    Guest(
        "loads-bss",
        "zeros behind an odd number of bytes, a PT_LOAD of zeros only, and gaps that belong to nobody",
        Recipe(loads=(Code(), Load(2 * MIB, 0x1003, 0x11001), Load(3 * MIB + 1, 0, 0x8002))),
    ),
    Guest(
        "loads-empty",
        "PT_LOADs of no bytes in memory, within another and beyond it",
        Recipe(loads=(Code(), Load(GUEST_PADDR + 0x800, 0, 0), Load(_AFTER, 0, 0))),
    ),
    Guest("loads-empty-at-0", "a PT_LOAD of no bytes at address 0", Recipe(loads=(Load(0, 0, 0), Code()))),
    Guest(
        "loads-many",
        "48 PT_LOADs, the highest first",
        Recipe(loads=(Code(), *(Load(2 * MIB + number * PAGE_SIZE, 0x41, 0x81) for number in reversed(range(47))))),
    ),
    Guest(
        "at-16m", "linked at 16 MiB, with data behind the code", Recipe(loads=(Code(16 * MIB), Load(17 * MIB, 0x401, 0x1000)))
    ),
    Guest(
        "at-1g", "ends with the first GiB", Recipe(loads=(Load(GIB - 2 * MIB, 0x401, 0x1000), Code(GIB - GUEST_MEMORY_BYTES)))
    ),
    Guest(
        "above-4g",
        "a PT_LOAD above 4 GiB, which the guest reads by paging",
        Recipe(loads=(Code(), Load(ADDRESS_4G + 2 * MIB + 0x801, 0x1001, 0x2801))),
    ),
    Guest(
        "entry-first",
        "entered at the first byte of a segment that another one touches from below",
        Recipe(loads=(Load(GUEST_PADDR, PAGE_SIZE, PAGE_SIZE), Code(GUEST_PADDR + PAGE_SIZE))),
    ),
    Guest(
        "entry-last",
        "entered at the last byte of a segment, which another one touches from above",
        Recipe(loads=(Load(GUEST_PADDR, PAGE_SIZE, PAGE_SIZE, STD), Code(GUEST_PADDR + PAGE_SIZE)), entry_add=-len(STD)),
    ),
)


def _anywhere(align: int) -> pvh.Relocation:
    return pvh.Relocation(align, pvh.PHYS32_RELOC_MIN, pvh.PHYS32_RELOC_MAX)


def _relocatable(
    name: str, shows: str, words: tuple[int, ...], relocation: pvh.Relocation, *, bits: int = 64, align: int = 1
) -> Guest:
    """One linked at 16 MiB with data 1 MiB behind its code."""
    loads = (Code(16 * MIB, align=align), Load(17 * MIB, 0x1003, 0x3000))
    notes = (Notes((_reloc(*words), EntryNote(bits // 8))),)
    return Guest(name, shows, Recipe(bits, loads, notes, entry=ENTRY_RELOC, elf_entry=ENTRY_RELOC, relocation=relocation))


_LINUX_PLACE: Final = pvh.Relocation(2 * MIB, 16 * MIB, GIB - 1)  # as Debian's 6.12 has it

_RELOCATABLE: Final = (
    _relocatable(
        "reloc-0",
        "PHYS32_RELOC without a word: 2 MiB, anywhere below 4 GiB",
        (),
        _anywhere(pvh.PHYS32_RELOC_ALIGN),
    ),
    _relocatable(
        "reloc-0-align",
        "the same, with a p_align of 64 KiB that counts",
        (),
        _anywhere(0x10000),
        align=0x10000,
    ),
    _relocatable("reloc-4", "PHYS32_RELOC with an alignment of 4 KiB", (PAGE_SIZE,), _anywhere(PAGE_SIZE)),
    _relocatable(
        "reloc-8",
        "PHYS32_RELOC with an alignment of 1 MiB, from 8 MiB up",
        (MIB, 8 * MIB),
        _anywhere(MIB)._replace(min=8 * MIB),
    ),
    _relocatable("reloc-12", "PHYS32_RELOC with all three words, those of a Linux", tuple(_LINUX_PLACE), _LINUX_PLACE),
    _relocatable("elf32-reloc-12", "the same in an ELF32", tuple(_LINUX_PLACE), _LINUX_PLACE, bits=32),
)

_FREEBSD_TEXT: Final = freebsd.KERNLOAD + 0x2000
_FREEBSD_DATA: Final = freebsd.KERNLOAD + 0x1F0000
_FREEBSD_VIRTUAL: Final = _number(freebsd.KERNBASE + _FREEBSD_TEXT)
_FREEBSD: Final = Guest(
    "freebsd",
    "a stand-in for FreeBSD/amd64: its ELF shape and notes, and its rules for start_info",
    Recipe(
        loads=(
            Load(freebsd.KERNLOAD, 0x1F00, 0x1F00, align=PAGE_SIZE),
            Code(_FREEBSD_TEXT, align=PAGE_SIZE),
            Load(_FREEBSD_DATA, 0x1801, freebsd.KERNLOAD + freebsd.KERNEL_END_ALIGN - _FREEBSD_DATA, align=PAGE_SIZE),
        ),
        # In the order of sys/amd64/amd64/xen-locore.S.
        notes=(
            Notes(
                (
                    _xen(pvh.XEN_ELFNOTE_GUEST_OS, b"FreeBSD\0"),
                    _xen(pvh.XEN_ELFNOTE_GUEST_VERSION, b"stand-in\0"),
                    _xen(pvh.XEN_ELFNOTE_XEN_VERSION, b"xen-3.0\0"),
                    _xen(pvh.XEN_ELFNOTE_VIRT_BASE, _number(freebsd.KERNBASE)),
                    _xen(pvh.XEN_ELFNOTE_PADDR_OFFSET, _number(0)),
                    _xen(pvh.XEN_ELFNOTE_ENTRY, _FREEBSD_VIRTUAL),
                    _xen(
                        pvh.XEN_ELFNOTE_FEATURES,
                        b"writable_descriptor_tables|auto_translated_physmap|supervisor_mode_kernel|hvm_callback_vector\0",
                    ),
                    _xen(pvh.XEN_ELFNOTE_PAE_MODE, b"yes\0"),
                    _xen(pvh.XEN_ELFNOTE_L1_MFN_VALID, _number(1, 4) + _number(1, 4)),
                    _xen(pvh.XEN_ELFNOTE_LOADER, b"generic\0"),
                    _xen(pvh.XEN_ELFNOTE_SUSPEND_CANCEL, _number(0, 4)),
                    _xen(pvh.XEN_ELFNOTE_BSD_SYMTAB, b"yes\0"),
                    _ENTRY_4,
                )
            ),
        ),
        vaddr=freebsd.KERNBASE,
        elf_entry=ELF_ENTRY,
        freebsd=True,
    ),
)


def _patched(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


_EM_AARCH64: Final = 183


def _big_endian(data: bytes) -> bytes:
    """It calls itself so; no other field than e_machine is read in that order."""
    return _patched(EI_DATA, bytes([ELFDATA2MSB]))(_patched(E_MACHINE, EM_X86_64.to_bytes(2, "big"))(data))


def _with_notes(*notes: EntryNote | bytes, bits: int = 64) -> Recipe:
    return Recipe(bits, notes=(Notes(notes),))


_REFUSED: Final = (
    Guest("refused-no-note", "no notes", Recipe(notes=()), "no ELF notes at all: a PVH kernel has a Xen note PHYS32_ENTRY"),
    Guest(
        "refused-no-entry",
        "notes of Xen's, but no PHYS32_ENTRY",
        _with_notes(_BUILD_ID, _XEN_OTHERS),
        "no PHYS32_ENTRY note, so no PVH kernel: its Xen notes are VIRT_BASE, GUEST_OS",
    ),
    Guest(
        "refused-name",
        "type 18 under another name",
        _with_notes(EntryNote(8, name=b"Zen\0")),
        "no PHYS32_ENTRY note: the note of type 18 in PT_NOTE 0 has the name b'Zen\\x00', not b'Xen\\x00'",
    ),
    Guest(
        "refused-entry-2",
        "a descriptor of 2 bytes",
        _with_notes(EntryNote(2)),
        "the PHYS32_ENTRY note in PT_NOTE 0 has a descriptor of 2 bytes: 4 or 8 would be right",
    ),
    Guest(
        "refused-entry-above-4g",
        "the note names an address of more than 32 bits",
        _with_notes(EntryNote(8, ADDRESS_4G)),
        "the PHYS32_ENTRY note in PT_NOTE 0 says 0x100100000: the entry is a 32-bit address",
    ),
    Guest(
        "refused-entry-outside",
        "the note names an address in no segment",
        _with_notes(EntryNote(8, 64 * MIB)),
        "the PVH entry 0x4100000 lies in no PT_LOAD segment: they span 0x100000-0x106000",
    ),
    Guest(
        "refused-entries-differ",
        "two PHYS32_ENTRY notes, of different addresses",
        _with_notes(_ENTRY_8, EntryNote(8, 1)),
        "two PHYS32_ENTRY notes that differ: 0x100000 in PT_NOTE 0 and 0x100001 in PT_NOTE 0: which one counts depends on the "
        "loader",
    ),
    Guest(
        "refused-note-cut",
        "the PT_NOTE ends within its note",
        _with_notes(NOTE_HEAD.pack(NoteHead(len(pvh.NOTE_NAME), 8, pvh.XEN_ELFNOTE_PHYS32_ENTRY)) + pvh.NOTE_NAME),
        "PT_NOTE 0 (file offset 0x28b0): truncated note at +0x0: name of 4 bytes and descriptor of 8 bytes, but only 4 follow",
    ),
    Guest(
        "refused-reloc-5",
        "PHYS32_RELOC with 5 bytes",
        _with_notes(_xen(pvh.XEN_ELFNOTE_PHYS32_RELOC, bytes(5)), _ENTRY_8),
        "the PHYS32_RELOC note in PT_NOTE 0 has a descriptor of 5 bytes: 0, 4, 8 or 12 would be right (alignment, lowest and "
        "highest address)",
    ),
    Guest(
        "refused-reloc-align",
        "PHYS32_RELOC with an alignment of 12 KiB",
        _with_notes(_reloc(3 * PAGE_SIZE), _ENTRY_8),
        "the PHYS32_RELOC note in PT_NOTE 0 has an alignment of 0x3000: a power of two would be right",
    ),
    Guest(
        "refused-overlap",
        "two PT_LOADs that share a byte",
        Recipe(loads=(Code(), Load(_AFTER - 1, 0x100, 0x100))),
        "PT_LOAD 0 and PT_LOAD 1 overlap in physical memory: 0x100000-0x106000 and 0x105fff-0x1060ff",
    ),
    Guest(
        "refused-filesz",
        "p_filesz is larger than p_memsz",
        Recipe(loads=(Code(), Load(2 * MIB, 0x101, 0x100))),
        "PT_LOAD 1 has more bytes in the file (0x101) than in memory (0x100)",
    ),
    Guest(
        "refused-elf32-above-4g",
        "an ELF32 with a segment that reaches beyond 4 GiB",
        Recipe(32, loads=(Code(), Load(ADDRESS_4G - PAGE_SIZE, 0x100, 2 * PAGE_SIZE))),
        "PT_LOAD 1 at 0xfffff000 with 0x2000 bytes reaches beyond 4 GiB",
    ),
    Guest(
        "refused-cut",
        "the file ends within a PT_LOAD",
        Recipe(),
        "PT_LOAD 0 lies at 0xb0-0x28b0 of the file, which ends at 0x1400",
        lambda data: data[: GUEST_FILE_BYTES // 2],
    ),
    Guest(
        "refused-big-endian",
        "big-endian",
        Recipe(),
        "big-endian ELF for EM_X86_64: PVH is for x86, which is little-endian",
        _big_endian,
    ),
    Guest(
        "refused-machine",
        "for AArch64",
        Recipe(),
        "ELF for the machine EM_AARCH64: PVH is for EM_386 and EM_X86_64",
        _patched(E_MACHINE, _number(_EM_AARCH64, 2)),
    ),
)

LIBRARY: Final[tuple[Guest, ...]] = (*_SHAPES, *_RELOCATABLE, _FREEBSD, *_REFUSED)


def guest(name: str) -> Guest:
    """The guest of that name; BootError if there is none."""
    for one in LIBRARY:
        if one.name == name:
            return one
    raise BootError(f"no conformance guest named {name!r}: `pvhboot guests --list` names them")
