"""Kernels whose PHYS32_ENTRY is there, and is such that some loader does not find it, or misreads it."""

import struct

from forge_elf import ENTRY, GNU_NOTE, PADDR, XEN_NOTES, entry_note, forge, load_segment, note_segment, with_note_section
from pvhboot.shim.elfwriter import note

LOW = 0x8000  # where two bytes reach
UNPADDED = struct.pack("<III", 3, 8, 18) + b"Xen" + ENTRY.to_bytes(8, "little")
PADDED_TO_8 = struct.pack("<III", 4, 8, 18) + b"Xen\0\0\0\0\0" + ENTRY.to_bytes(8, "little")
MALFORMED = {  # the file, and what is to be said of the old note: its place, its value, its faults
    "descriptor-of-2": (
        lambda: forge(notes=entry_note(LOW + 1, 2), loads=[load_segment(LOW)]),
        [("PT_NOTE 0", LOW + 1, "a descriptor of 2 bytes")],
    ),
    "descriptor-of-4-in-elf64": (
        lambda: forge(notes=entry_note(size=4)),
        [("PT_NOTE 0", ENTRY, "a descriptor of 4 bytes")],
    ),
    "descriptor-of-8-in-elf32": (
        lambda: forge(32, notes=entry_note(size=8)),
        [("PT_NOTE 0", ENTRY, "a descriptor of 8 bytes")],
    ),
    "name-not-terminated": (lambda: forge(notes=entry_note(name=b"Xen")), [("PT_NOTE 0", ENTRY, "the name b'Xen'")]),
    "name-terminated-twice": (
        lambda: forge(notes=entry_note(name=b"Xen\0\0")),
        [("PT_NOTE 0", ENTRY, r"the name b'Xen\x00\x00'")],
    ),
    "name-not-padded": (
        lambda: forge(notes=UNPADDED),
        [("PT_NOTE 0", ENTRY, "the name b'Xen', a name padded to 1 bytes")],
    ),
    "name-padded-to-8": (lambda: forge(notes=PADDED_TO_8), [("PT_NOTE 0", ENTRY, "a name padded to 8 bytes")]),
    "p_align-8": (lambda: forge(note_align=8), [("PT_NOTE 0", ENTRY, "p_align 8")]),
    "p_align-8-behind-another": (
        lambda: forge(notes=note(b"GNU\0", 1, bytes(4)) + entry_note(), note_align=8),
        [("PT_NOTE 0", ENTRY, "p_align 8")],
    ),
    "p_align-0": (lambda: forge(note_align=0), [("PT_NOTE 0", ENTRY, "p_align 0")]),
    "p_align-13": (lambda: forge(32, note_align=13), [("PT_NOTE 0", ENTRY, "p_align 13")]),
    "last-segment-without": (lambda: forge(more=[note_segment(GNU_NOTE)]), [("PT_NOTE 0", ENTRY, "")]),
    "first-segment-without": (
        lambda: forge(notes=GNU_NOTE, more=[note_segment(entry_note())]),
        [("PT_NOTE 1", ENTRY, "")],
    ),
    "twice": (lambda: forge(more=[note_segment(entry_note())]), [("PT_NOTE 0", ENTRY, ""), ("PT_NOTE 1", ENTRY, "")]),
    "foreign-one-first": (lambda: forge(notes=entry_note(PADDR, name=b"Zen\0") + entry_note()), [("PT_NOTE 0", ENTRY, "")]),
    "in-a-section-only": (
        lambda: with_note_section(forge(notes=b""), entry_note()),
        [("section .notes", ENTRY, "no segment")],
    ),
    "in-a-section-beside-a-segment": (
        lambda: with_note_section(forge(notes=GNU_NOTE), XEN_NOTES + entry_note()),
        [("section .notes", ENTRY, "no segment")],
    ),
    "behind-a-broken-note": (
        lambda: forge(notes=struct.pack("<III", 4, 8, 99) + b"Odd\0" + entry_note()),  # its descriptor is missing
        [("PT_NOTE 0", ENTRY, "")],
    ),
}
