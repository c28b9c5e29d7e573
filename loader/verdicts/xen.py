"""Xen's domain builder for a PVH guest (xl, type="pvh"), as of Xen 4.17.

Sources: Xen xen/common/libelf/libelf-{loader,dominfo,tools}.c and tools/libs/guest/xg_dom_{core,hvmloader,bzimageloader,
elfloader}.c, by function as the rules name them. The loaders are asked in this order: HVM-generic, Linux bzImage, ELF-generic.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.apic import LOCAL_APIC
from pvhboot.shim.abi.elf import (
    ELF_MAGIC,
    ELFDATA2LSB,
    EM_386,
    EM_X86_64,
    NOTE_ALIGN,
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    PT_NOTE,
    SHT_NOTE,
)
from pvhboot.shim.abi.elf_layouts import LAYOUTS, NOTE_HEAD
from pvhboot.shim.abi.pvh import (
    NOTE_NAME,
    XEN_ELFNOTE_FEATURES,
    XEN_ELFNOTE_GUEST_OS,
    XEN_ELFNOTE_INIT_P2M,
    XEN_ELFNOTE_LOADER,
    XEN_ELFNOTE_PHYS32_ENTRY,
    XEN_ELFNOTE_PHYS32_RELOC,
    XEN_ELFNOTE_XEN_VERSION,
)
from pvhboot.shim.abi.x86 import PAGE_SIZE

from ..printable import printable
from ..wrapping import Wrapping
from .base import ACCEPTS, ELF32_ENTRY, MASK32, MASK64, PVH, UNKNOWN, Model, Rule, Ruling, Verdict, refuses
from .raw import RawFile, named

_NOTES_MAX: Final = 65536  # ELF_MAX_TOTAL_NOTE_COUNT
_FEATURE_SHOWN: Final = 32  # bytes
_STRING_MAX: Final = 4096  # ELF_MAX_STRING_LENGTH
_NAME: Final = NOTE_NAME.rstrip(b"\0")  # compared up to its NUL, whatever namesz says
_UNSET: Final = MASK32  # phys_entry, before there is a note
_EHDR_SIZES: Final = {bits: layouts.header.size for bits, layouts in LAYOUTS.items()}

_STRINGS: Final = {XEN_ELFNOTE_XEN_VERSION, XEN_ELFNOTE_GUEST_OS, XEN_ELFNOTE_LOADER, XEN_ELFNOTE_FEATURES}
_KNOWN_FEATURES: Final = {
    b"writable_page_tables",
    b"writable_descriptor_tables",
    b"auto_translated_physmap",
    b"supervisor_mode_kernel",
    b"pae_pgdir_above_4gb",
    b"hvm_callback_vector",
    b"dom0",
}


@dataclass
class _Case:
    """The file, what is in it, and what Xen has found out so far. `wrapping` is how the ELF image is wrapped, `unpacked` that
    image, None if there is none, `why` then says so."""

    outer: RawFile
    wrapping: Wrapping
    unpacked: RawFile | None
    why: str
    phys_entry: int = _UNSET
    strings: dict[int, bytes] = field(default_factory=dict)
    init_p2m: int | None = None
    source: str = ""
    relocatable: bool = False
    has_notes: bool = False  # any at all
    notes: int = 0
    broken: str = ""  # why elf_xen_parse fails
    start: int = MASK64
    end: int = 0

    @property
    def raw(self) -> RawFile:
        assert self.unpacked is not None
        return self.unpacked

    @property
    def bits(self) -> int:
        return self.raw.bits

    @property
    def header(self) -> Any:
        header = self.raw.header(self.bits)
        assert header is not None
        return header

    @cached_property
    def headers(self) -> list[tuple[str, Any]]:
        """As far as they lie in the file, e_phentsize bytes apart."""
        layout, header = LAYOUTS[self.bits].program_header, self.header
        table = self.raw.table(header.e_phoff, header.e_phnum, header.e_phentsize, layout.size, layout.unpack)
        return named(table)

    @cached_property
    def loads(self) -> list[tuple[str, Any]]:
        return [
            (name, header)
            for name, header in self.headers
            if header.p_type == PT_LOAD and header.p_flags & (PF_R | PF_W | PF_X)
        ]


def _unwrapped(case: _Case) -> Ruling | None:
    if case.wrapping.codec not in ("", "gzip") and not case.wrapping.in_bzimage:
        return refuses(f"no loader found: {case.wrapping.codec} is unpacked only within a bzImage")
    if case.unpacked is None:
        return refuses(f"no loader found: {case.why}")
    if not case.wrapping.in_bzimage:
        return None
    version = case.outer.number(boot_params.VERSION[0], 2) or 0
    if version < boot_params.PAYLOAD_PROTOCOL:
        return refuses(f"boot protocol too old ({version:#06x})")
    if case.outer.take(boot_params.SETUP_SECTS[0], 1) == b"\0":
        return refuses("setup_sects is 0, taken for 0, not for 4: it looks for the payload in the wrong place")
    return None


def _elf_init(case: _Case) -> Ruling | None:
    if case.raw.take(0, len(ELF_MAGIC)) != ELF_MAGIC or case.raw.size < _EHDR_SIZES[case.bits]:
        return refuses("no loader found: not an ELF binary")
    header = case.header
    if header.ei_data != ELFDATA2LSB:
        return Ruling(UNKNOWN, f"EI_DATA is {header.ei_data}: it swaps the bytes of every field, which is not modelled here")
    for what, offset, size, count in (
        ("phdr", header.e_phoff, header.e_phentsize, header.e_phnum),
        ("shdr", header.e_shoff, header.e_shentsize, header.e_shnum),
    ):
        end = offset + size * count & MASK64
        if end > case.raw.size:
            return refuses(f"no loader found: {what} overflow (off {end:x} > size {case.raw.size:x})")
    return None


def _parse(case: _Case) -> None:
    """elf_parse_binary and elf_xen_parse: what they find; nothing is decided yet."""
    for _, header in case.loads:
        case.start = min(case.start, header.p_paddr)
        case.end = max(case.end, header.p_paddr + header.p_memsz & MASK64)
    found = _parse_notes(
        case,
        ((name, each.p_offset, each.p_filesz) for name, each in case.headers if each.p_type == PT_NOTE and each.p_offset),
    )
    if not found and not case.broken:
        sections = list(enumerate(case.raw.section_headers(case.bits)))[1:]
        _parse_notes(
            case, ((f"section {number}", each.sh_offset, each.sh_size) for number, each in sections if each.sh_type == SHT_NOTE)
        )
    if not case.broken:
        case.broken = _why_not(case)


def _parse_notes(case: _Case, places: Iterable[tuple[str, int, int]]) -> int:
    """The number of Xen's notes."""
    found = 0
    for name, offset, size in places:
        case.has_notes = True
        for at, namesz, descsz, kind in _walk(case, offset, size):
            if _string(case.raw, at + NOTE_HEAD.size) != _NAME:
                continue
            found += 1
            _take(case, name, kind, at + NOTE_HEAD.size + _padded(namesz), descsz)
            if case.broken:
                return found
    return found


def _walk(case: _Case, offset: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Where each note begins, its namesz, descsz and type. What lies behind the file reads as 0, and ends it."""
    at, end = offset, offset + size
    while at < end and case.notes < _NOTES_MAX:
        case.notes += 1
        namesz, descsz, kind = case.raw.note_head(at)
        yield at, namesz, descsz, kind
        if at >= case.raw.size:
            return
        at += NOTE_HEAD.size + _padded(namesz) + _padded(descsz)


def _padded(size: int) -> int:
    return size + 3 & MASK32 & -NOTE_ALIGN


def _string(raw: RawFile, at: int) -> bytes | None:
    """Up to a NUL; None if there is none in reach."""
    text, nul, _ = raw.take(at, _STRING_MAX + 1).partition(b"\0")
    return text if nul else None


def _take(case: _Case, name: str, kind: int, at: int, descsz: int) -> None:
    if kind in _STRINGS:
        text = _string(case.raw, at)
        if text is None:
            return
        case.strings[kind] = text
        if kind == XEN_ELFNOTE_FEATURES:
            unknown = {feature[1:] for feature in text.split(b"|") if feature.startswith(b"!")} - _KNOWN_FEATURES
            if unknown:
                case.broken = f"it requires the feature {printable(min(unknown)[:_FEATURE_SHOWN])!r}"
        return
    value = (case.raw.number(at, descsz) or 0) if descsz in (1, 2, 4, 8) else 0
    if kind == XEN_ELFNOTE_PHYS32_ENTRY:
        case.phys_entry, case.source = value & MASK32, name
    elif kind == XEN_ELFNOTE_PHYS32_RELOC:
        case.relocatable = True
    elif kind == XEN_ELFNOTE_INIT_P2M:
        case.init_p2m = value


def _why_not(case: _Case) -> str:
    """elf_xen_note_check and elf_xen_addr_calc_check; "" if they pass."""
    if not case.has_notes:
        return "no ELF notes" if case.header.e_machine in (EM_386, EM_X86_64) else ""
    has_entry = case.phys_entry != _UNSET
    if not has_entry:
        loader, guest = case.strings.get(XEN_ELFNOTE_LOADER, b""), case.strings.get(XEN_ELFNOTE_GUEST_OS, b"")
        if not loader.startswith(b"generic") and not guest.startswith(b"linux"):
            return "no PHYS32_ENTRY note, and none that names the loader 'generic' or the guest 'linux'"
        if not case.strings.get(XEN_ELFNOTE_XEN_VERSION, b"").startswith(b"xen-3.0"):
            return "no PHYS32_ENTRY note, and none of the Xen version xen-3.0"
    entry = case.phys_entry if has_entry else case.header.e_entry
    if not case.start <= entry <= case.end:
        which = f"PHYS32_ENTRY {entry:#x} in {case.source}" if has_entry else f"e_entry {entry:#x}"
        return f"{which} lies outside of {case.start:#x}-{case.end:#x}"
    if case.init_p2m is not None and case.start <= case.init_p2m < case.end:
        return "its INIT_P2M note points into the kernel"
    return ""


def _hvm_generic(case: _Case) -> Ruling | None:
    """What has no good notes is taken for the firmware of an HVM guest; asked before a bzImage is unpacked."""
    if not case.broken:
        return None
    if case.wrapping.in_bzimage:
        return refuses(f"no loader found: {case.broken}")
    if case.bits != 32:
        return refuses(f"taken for HVM firmware ({case.broken}), then: ELF image is not 32bit")
    entry = case.header.e_entry
    reason = f"taken for HVM firmware: {case.broken}"
    remark = "entered at e_entry as a PVH guest would be: nothing was asked of it but to be an ELF32"
    return Ruling(ACCEPTS, reason, ELF32_ENTRY, entry, (remark,))


def _container(case: _Case) -> Ruling | None:
    if case.phys_entry == _UNSET:
        return refuses("image not capable of booting inside a HVM container: no PHYS32_ENTRY note")
    if b"!dom0" in case.strings.get(XEN_ELFNOTE_FEATURES, b"").split(b"|"):
        return refuses("Kernel does not support unprivileged (DomU) operation: it requires the feature dom0")
    return None


def _memory(case: _Case) -> Ruling | None:
    if case.start % PAGE_SIZE:
        return refuses(f"segment boundary isn't page aligned ({case.start:#x})")
    if case.end > LOCAL_APIC:
        return refuses(f"the kernel reaches to {case.end:#x}: a PVH guest's low RAM ends at {LOCAL_APIC:#x} at the latest")
    return None


def _accepted(case: _Case) -> Ruling:
    remarks = [
        f"{name} lies beyond the end of the file: none of it is copied"
        for name, header in case.loads
        if header.p_filesz and header.p_offset + header.p_filesz > case.raw.size
    ][:1]
    if case.relocatable:
        remarks.append("never moved here: of all of Xen, the builder of a PVH dom0 follows PHYS32_RELOC (since 4.19)")
    return Ruling(ACCEPTS, f"PHYS32_ENTRY in {case.source}", PVH, case.phys_entry, tuple(remarks))


_LIBELF: Final = "xen/common/libelf/"
_TOOLS: Final = "tools/libs/guest/"

XEN: Final = Model(
    "xen",
    "Xen 4.17, type=pvh",
    (
        Rule(
            "a gzip file is unpacked, and the payload of a bzImage of boot protocol 2.08 or later",
            f"{_TOOLS}xg_dom_core.c: xc_dom_kernel_file; {_TOOLS}xg_dom_bzimageloader.c: xc_dom_probe_bzimage_kernel",
            _unwrapped,
        ),
        Rule(
            "an ELF file, with its tables of program and section headers inside of it",
            f"{_LIBELF}libelf-loader.c: elf_init",
            _elf_init,
        ),
        Rule(
            'notes named "Xen", in any PT_NOTE or else in SHT_NOTE sections; the last PHYS32_ENTRY, of 1, 2, 4 or 8 bytes',
            f"{_LIBELF}libelf-dominfo.c: elf_xen_parse, elf_xen_parse_notes",
            _parse,
        ),
        Rule(
            "an ELF file without good Xen notes is firmware, and must be an ELF32",
            f"{_TOOLS}xg_dom_hvmloader.c: xc_dom_probe_hvm_kernel, xc_dom_parse_hvm_kernel",
            _hvm_generic,
        ),
        Rule(
            "a PVH guest needs PHYS32_ENTRY, and must not require to be dom0",
            f"{_TOOLS}xg_dom_elfloader.c: xc_dom_parse_elf_kernel, xc_dom_guest_type",
            _container,
        ),
        Rule(
            "all of the kernel is one piece of RAM that begins at a page",
            f"{_TOOLS}xg_dom_core.c: xc_dom_alloc_segment",
            _memory,
        ),
        Rule(
            "the entry is that of the last PHYS32_ENTRY note named Xen",
            f"{_LIBELF}libelf-dominfo.c: elf_xen_parse_note; {_LIBELF}libelf-loader.c: elf_load_binary",
            _accepted,
        ),
    ),
)


def judge_xen(outer: RawFile, wrapping: Wrapping, unpacked: RawFile | None, why: str) -> Verdict:
    """The verdict of xl's domain builder on a file and what is wrapped in it; `why` there is no ELF image in it."""
    return XEN.judge(_Case(outer, wrapping, unpacked, why))
