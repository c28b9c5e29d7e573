"""An inspection told to a person: what the file is, its segments and their place in memory, its notes, and the verdicts."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.pvh import XEN_ELFNOTE_PHYS32_ENTRY

from .bzimage import SetupHeader
from .elf import ProgramHeader
from .inspection import BzImageFacts, DecodedNote, Inspection
from .modules import GUESTS
from .picture import cut, draw, show_flags
from .printable import one_line
from .symbols import KALLSYMS
from .verdicts.base import ACCEPTS, REFUSES, Verdict

_WIDTH: Final = 100  # columns
_LABEL: Final = 10  # columns of a label, with its colon
_PLACES: Final = 3  # of a note, where it has more than one more
_PLACES_WIDTH: Final = 30  # columns for them, at least
_FIRST_NOTES: Final = 36  # where there are many; a Linux has 20
_ENTRIES: Final = 8  # marked in the picture
_FATES: Final = {ACCEPTS: "fits", REFUSES: "does not fit"}


def as_text(found: Inspection) -> str:
    """Lines, without a newline at the end."""
    rows = [("file", one_line(found.path)), ("size", f"{found.size} bytes"), ("kind", found.kind)]
    if found.bzimage is not None:
        rows += _bzimage(found.bzimage)
    if found.elf_class is not None:
        rows.append(("ELF", f"{found.elf_class}, {found.type}, {found.machine}, e_entry {found.elf_entry:#x}"))
    rows.append(("bootable", f"{'yes' if found.bootable else 'no'}: {found.reason}"))
    if found.bootable:
        rows.append(("moves", _moves(found)))
    if found.symbols is not None:
        kind, number = found.symbols
        rows.append(("symbols", f"{kind}, {number} {'functions' if kind == KALLSYMS else 'symbols'}"))
    rows += [("problem", problem) for problem in found.problems]
    out = [line for name, value in rows for line in _row(name, value)]
    if found.headers:
        out += ["", *_segments(found.headers)]
        if picture := draw([header for header in found.headers if header.type == "PT_LOAD"], _entries(found)):
            out += ["", "physical memory", *(f"  {line}" for line in picture)]
    if found.notes:
        out += ["", *_notes(found.notes)]
    return "\n".join([*out, "", *_verdicts(found.verdicts)])


def _row(name: str, value: str) -> Iterator[str]:
    """A label and its value, which goes on in further lines; a path is left whole."""
    label = f"{name + ':' if name else '':<{_LABEL}}"
    if name == "file":
        yield label + value
    else:
        yield from textwrap.wrap(label + value, _WIDTH, subsequent_indent=" " * _LABEL, break_on_hyphens=False)


def _segments(headers: Sequence[ProgramHeader]) -> Iterator[str]:
    """A table; of two lines for each if its numbers are so large that one does not do."""
    shown, hidden = cut(headers)
    head = ("segment", "paddr", "memory", "offset", "in file", "flags", "align")
    more = (f"… {hidden} more", *[""] * 6)
    table: list[tuple[str, ...]] = [head, *(more if header is None else _segment(header) for header in shown)]
    lines = _aligned(table, range(1, 5))
    if max(map(len, lines)) > _WIDTH:
        halves = [(row[:3] + row[5:6], ("", *row[3:5], row[6])) for row in table]
        lines = [line for line in _aligned([half for pair in halves for half in pair], range(1, 3)) if line]
    yield from lines


def _segment(header: ProgramHeader) -> tuple[str, ...]:
    numbers = (f"{number:#x}" for number in (header.paddr, header.memsz, header.offset, header.filesz))
    return (header.name, *numbers, show_flags(header.flags), f"{header.align:#x}")


def _notes(notes: Sequence[DecodedNote]) -> Iterator[str]:
    """A table; what is too long for its column goes on in the next line."""
    shown, hidden = cut(notes, _FIRST_NOTES)
    table = [("note", "type", "descriptor", "where")]
    for note in shown:
        table.append((f"… {hidden} more", "", "", "") if note is None else (note.owner, note.type, note.text, _places(note)))
    owner, kind, text, where = (max(map(len, column)) for column in zip(*table, strict=True))
    room = _WIDTH - owner - kind - 3 * len("  ")
    where = min(where, max(room - text, _PLACES_WIDTH))
    folded = []
    for *names, text_cell, where_cell in table:
        columns = [[name] for name in names] + [_wrap(text_cell, room - where), _wrap(where_cell, where)]
        folded += list(zip_longest(*columns, fillvalue=""))
    yield from _aligned(folded, range(0))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _places(note: DecodedNote) -> str:
    places = note.places
    if len(places) <= _PLACES + 1:
        return ", ".join(places)
    return f"{', '.join(places[:_PLACES])}, … ({len(places)} places)"


def _entries(found: Inspection) -> Mapping[str, int]:
    """Each PVH entry that a note has, up to some, and that of the ELF header."""
    found_values = (note.value for note in found.notes if note.number == XEN_ELFNOTE_PHYS32_ENTRY)
    values = list(dict.fromkeys(value for value in found_values if value is not None))[:_ENTRIES]
    entries = {"PVH entry" if len(values) == 1 else f"PVH entry {at}": value for at, value in enumerate(values)}
    if found.elf_entry is not None and found.elf_entry not in entries.values():
        entries["e_entry"] = found.elf_entry
    return entries


def _moves(found: Inspection) -> str:
    if found.relocation is None:
        return "never: without a PHYS32_RELOC note it runs where it is linked"
    align, low, high = found.relocation
    return f"to any multiple of {align:#x}, all of it from {low:#x} to {high:#x} (PHYS32_RELOC)"


def _bzimage(facts: BzImageFacts) -> list[tuple[str, str]]:
    rows = [("bzImage", f"boot protocol {facts.protocol}, {facts.kernel_version or 'without a version string'}")]
    rows += [("", line) for line in _setup(facts.header)]
    if facts.codec is not None:
        unpacked = "not unpacked" if facts.unpacked_size is None else f"{facts.unpacked_size} unpacked"
        rows.append(("payload", f"{facts.codec}, {facts.packed_size} bytes at {facts.payload_offset:#x}, {unpacked}"))
    return rows


def _setup(header: SetupHeader) -> list[str]:
    """The fields that this protocol has."""
    flags = [f"setup {header.setup_size // boot_params.SECTOR_BYTES - 1} sectors and the boot sector"]
    if header.loadflags is not None:
        flags.append(f"loadflags {header.loadflags:#x}{_names(header.loadflags, boot_params.LOADFLAG_NAMES)}")
    if header.xloadflags is not None:
        flags.append(f"xloadflags {header.xloadflags:#x}{_names(header.xloadflags, boot_params.XLOADFLAG_NAMES)}")
    place = []
    if header.code32_start is not None:
        place.append(f"loaded at {header.code32_start:#x}")
    if header.relocatable_kernel is not None:
        place.append(f"{'' if header.relocatable_kernel else 'not '}relocatable, alignment {header.kernel_alignment:#x}")
    if header.pref_address is not None:
        place.append(f"wants to run at {header.pref_address:#x}, needs {header.init_size:#x} bytes there")
    rest = []
    if header.cmdline_size is not None:
        rest.append(f"command line of at most {header.cmdline_size} bytes")
    if header.handover_offset is not None:
        rest.append(f"EFI handover offset {header.handover_offset:#x}" if header.handover_offset else "no EFI handover")
    return ["; ".join(group) for group in (flags, place, rest) if group]


def _names(value: int, names: Mapping[int, str]) -> str:
    known = [name for bit, name in names.items() if value & bit]
    return f" ({', '.join(known)})" if known else ""


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """A table of who says what; then why, those with the same reason together, and by which rule."""
    table: list[tuple[str, ...]] = [("verdict of", "", "by", "entry")]
    reasons: dict[tuple[str, ...], list[str]] = {}
    for verdict in verdicts:
        is_guest = verdict.by in GUESTS
        outcome = _FATES.get(verdict.outcome, verdict.outcome) if is_guest else verdict.outcome
        entry = "" if verdict.entry is None or is_guest else f"{verdict.entry:#x}"
        table.append((verdict.name, outcome, "" if is_guest else verdict.road or "", entry))
        why = (verdict.reason, *(f"but: {remark}" for remark in verdict.remarks), f"rule: {verdict.rule} [{verdict.source}]")
        reasons.setdefault(why, []).append(verdict.name)
    yield from _aligned(table, range(0))
    yield ""
    for why, names in reasons.items():
        yield from textwrap.wrap(", ".join(names), _WIDTH)
        for text in why:
            yield from textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent=" " * 6, break_on_hyphens=False)


def _aligned(table: list[tuple[str, ...]], numbers: range) -> list[str]:
    """Rows with columns as wide as their widest cell, the columns of `numbers` to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = zip(row, widths, strict=True)
        shown = [cell.rjust(width) if at in numbers else cell.ljust(width) for at, (cell, width) in enumerate(cells)]
        lines.append("  ".join(shown).rstrip())
    return lines
