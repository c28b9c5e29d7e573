"""rust-vmm's linux-loader 0.13.2, as Firecracker, Cloud Hypervisor and libkrun call it.

Sources: linux-loader src/loader/elf/mod.rs and src/loader/bzimage/mod.rs (its errors keep their names); Firecracker
src/vmm/src/arch/x86_64/mod.rs, load_kernel (by PVH since 1.12; a bzImage at commit cc535f03); Cloud Hypervisor vmm/src/vm.rs,
Vm::load_kernel (commit dea50dfc); libkrun src/vmm/src/builder.rs, load_external_kernel (commit 00903dbb).

RAM is taken to be as large as need be, up to the hole below 4 GiB, and above 4 GiB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.elf import ELF_MAGIC, ELFCLASS32, ELFDATA2LSB, NOTE_ALIGN, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.elf_layouts import LAYOUTS, NOTE_HEAD
from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G

from .base import (
    ACCEPTS,
    ELF64_ENTRY,
    LINUX_BOOT,
    MASK32,
    OFFSET_MAX,
    PVH,
    UNKNOWN,
    HeaderRule,
    Model,
    Rule,
    Ruling,
    Verdict,
    Walk,
    entry_remarks,
    refuses,
)
from .raw import NOTES_MAX, RawFile

_HIGH_MEMORY: Final = 0x100000  # what Firecracker and Cloud Hypervisor give as highmem_start_address
_HOLE_START: Final = 0xC0000000  # of Cloud Hypervisor and newer Firecrackers, the lowest
_LAYOUTS: Final = LAYOUTS[64]  # whatever the class
_OLDER: Final = "InvalidElfMagicNumber): give them the ELF file in it, if there is one, by `pvhboot extract`"


@dataclass
class Case:
    """The file, and what the crate has found out so far.

    `unpacked` is the ELF image in a file that is none itself, None if there is none; `codec` what that is packed with, or "".
    """

    raw: RawFile
    unpacked: RawFile | None
    codec: str
    capability: str = "PvhEntryIgnored (there is no PT_NOTE)"
    pvh: int | None = None
    source: str = ""
    notes: int = 0

    @property
    def header(self) -> Any:
        """Elf64_Ehdr, whatever the class."""
        header = self.raw.header(64)
        assert header is not None
        return header


def _error(variant: str, why: str) -> Ruling:
    return refuses(f"{variant}: {why}")


def _read_header(case: Case) -> Ruling | None:
    if case.raw.header(64) is None:
        return _error("ReadElfHeader", f"the file has {case.raw.size} bytes, Elf64_Ehdr {_LAYOUTS.header.size}")
    return None


def _endian(case: Case) -> Ruling | None:
    if case.header.ei_data != ELFDATA2LSB:
        return _error("BigEndianElfOnLittle", f"EI_DATA is {case.header.ei_data}, not 1 (little-endian)")
    return None


def _header_size(case: Case) -> Ruling | None:
    size, right = case.header.e_phentsize, _LAYOUTS.program_header.size
    if size == right:
        return None
    why = ": an ELF32, read as an ELF64" if case.header.ei_class == ELFCLASS32 else ""
    return _error("InvalidProgramHeaderSize", f"e_phentsize is {size}, not {right}{why}")


def _header_offset(case: Case) -> Ruling | None:
    if case.header.e_phoff < _LAYOUTS.header.size:
        return _error("InvalidProgramHeaderOffset", f"e_phoff is {case.header.e_phoff:#x}, within the ELF header")
    return None


def _high_memory(case: Case) -> Ruling | None:
    if case.header.e_entry < _HIGH_MEMORY:
        return _error("InvalidEntryAddress", f"e_entry is {case.header.e_entry:#x}, below {_HIGH_MEMORY:#x}")
    return None


def _headers(case: Case) -> Ruling | None:
    if case.header.e_phoff > OFFSET_MAX:
        return _error("SeekProgramHeader", f"e_phoff is {case.header.e_phoff:#x}")
    found, count = len(case.raw.program_headers(64)), case.header.e_phnum
    if found < count:
        return _error("ReadProgramHeader", f"of {count} program headers, {found} lie in the file")
    return None


def _load(case: Case, name: str, header: Any) -> Ruling | None:
    size, start = header.p_filesz, header.p_paddr
    if header.p_type != PT_LOAD or not size:
        return None
    if header.p_offset > OFFSET_MAX:
        return _error("SeekKernelStart", f"{name} lies at {header.p_offset:#x} of the file")
    if header.p_offset + size > case.raw.size:
        return _error("ReadKernelImage", f"{name} reaches to {header.p_offset + size:#x} of the file, which ends before")
    if start < ADDRESS_4G and start + size > _HOLE_START:
        return _error("ReadKernelImage", f"{name} goes to {start:#x}-{start + size:#x}, where no RAM is")
    if start + header.p_memsz >= 1 << 64:
        return _error("MemoryOverflow", f"{name} at {start:#x} with {header.p_memsz:#x} bytes wraps around")
    return None


def _note(case: Case, name: str, header: Any) -> Ruling | None:
    if header.p_type != PT_NOTE:
        return None
    case.pvh, at, walked = None, header.p_offset, 0
    case.capability = f"PvhEntryNotPresent (by {name}, the last PT_NOTE)"
    if at > OFFSET_MAX:
        return _error("SeekNoteHeader", f"{name} lies at {at:#x} of the file")
    while walked < header.p_filesz:
        case.notes += 1
        if case.notes > NOTES_MAX:
            return Ruling(UNKNOWN, f"more than {NOTES_MAX} notes up to {name}: not followed further")
        head = case.raw.take(at + walked, NOTE_HEAD.size + len(NOTE_NAME))
        if len(head) < NOTE_HEAD.size:
            return _error("ReadNoteHeader", f"the file ends within the header of a note in {name}")
        namesz, descsz, kind = NOTE_HEAD.unpack(head)
        if kind == XEN_ELFNOTE_PHYS32_ENTRY and namesz == len(NOTE_NAME):
            if len(head) < NOTE_HEAD.size + namesz:
                return _error("ReadNoteHeader", f"the file ends within the name of a note in {name}")
            if head[NOTE_HEAD.size :] == NOTE_NAME:
                return _entry(case, name, at + walked + len(head), descsz)
        # Since 0.9.0; before, by the p_align.
        sizes = [size + -size % NOTE_ALIGN for size in (namesz, descsz)]
        if max(sizes) > MASK32:
            return _error("Overflow", f"a note in {name} has a name of {namesz} bytes and a descriptor of {descsz}")
        walked += NOTE_HEAD.size + sum(sizes)
        if at + walked > OFFSET_MAX:
            return _error("SeekNoteHeader", f"a note in {name} lies at {at + walked:#x} of the file")
    return None


def _entry(case: Case, name: str, at: int, descsz: int) -> Ruling | None:
    if descsz < 4:
        return _error("InvalidPvhNote", f"the descriptor of the PHYS32_ENTRY note in {name} has {descsz} bytes, 4 are read")
    value = case.raw.number(at, 4)
    if value is None:
        return _error("ReadNoteHeader", f"the file ends within the descriptor of the PHYS32_ENTRY note in {name}")
    case.pvh, case.source = value, name
    return None


def _pvh(case: Case) -> Ruling | None:
    if case.pvh is None:
        return None
    return Ruling(ACCEPTS, f"PvhEntryPresent, by {case.source}", PVH, case.pvh, _remarks(case, case.pvh))


def _remarks(case: Case, entry: int) -> tuple[str, ...]:
    loads = (header for _, header in case.raw.program_headers(64) if header.p_type == PT_LOAD and header.p_filesz)
    return entry_remarks(entry, ((header.p_paddr, header.p_paddr + header.p_memsz) for header in loads))


def _elf_entry(case: Case) -> Ruling:
    entry = case.header.e_entry
    reason = f"{case.capability}: so 64-bit Linux boot at e_entry"
    return Ruling(ACCEPTS, reason, ELF64_ENTRY, entry, _remarks(case, entry))


def _no_pvh_header(case: Case) -> Ruling:
    return refuses(f"KernelMissingPvhHeader: Kernel lacks PVH header; {case.capability}")


def _is_elf(case: Case) -> bool:
    return case.raw.take(0, len(ELF_MAGIC)) == ELF_MAGIC


def _bzimage(case: Case) -> Ruling | None:
    """The crate's BzImage::load: an error, or None."""
    offset, magic = boot_params.HEADER_MAGIC
    if case.raw.take(offset, len(magic)) != magic:
        return _error("InvalidElfMagicNumber", "no ELF file; and no bzImage (InvalidBzImage)")
    protocol, flags = case.raw.field(boot_params.VERSION), case.raw.field(boot_params.LOADFLAGS)
    if protocol < boot_params.PROTOCOL_HEADER or not flags & boot_params.LOADED_HIGH:
        return _error("InvalidBzImage", f"boot protocol {protocol:#x}, loadflags {flags:#x}: no bzImage but a zImage")
    setup = boot_params.setup_bytes(case.raw.field(boot_params.SETUP_SECTS))
    if setup > case.raw.size:
        return _error("Underflow", f"its setup ends at {setup:#x}, the file at {case.raw.size:#x}")
    start = case.raw.field(boot_params.CODE32_START)
    if start < _HIGH_MEMORY:
        return _error("InvalidKernelStartAddress", f"code32_start is {start:#x}, below {_HIGH_MEMORY:#x}")
    end = start + case.raw.size - setup
    if start < ADDRESS_4G and end > _HOLE_START:
        return _error("ReadBzImageCompressedKernel", f"it goes to {start:#x}-{end:#x}, where no RAM is")
    return None


def _firecracker_other(case: Case) -> Ruling | None:
    if _is_elf(case):
        return None
    if error := _bzimage(case):
        return error
    flags = case.raw.field(boot_params.XLOADFLAGS)
    if case.raw.field(boot_params.VERSION) < boot_params.PROTOCOL_XLOADFLAGS or not flags & boot_params.XLF_KERNEL_64:
        return _error("BzImageMissing64BitEntry", "xloadflags has no XLF_KERNEL_64, or the boot protocol is older than 2.12")
    entry = case.raw.field(boot_params.CODE32_START) + boot_params.ENTRY_64_OFFSET
    remark = f"only its newest code takes one; versions before refuse every bzImage ({_OLDER}"
    return Ruling(
        ACCEPTS, "a bzImage, entered in 64-bit mode; a PVH note in it is not looked for", LINUX_BOOT, entry, (remark,)
    )


def _cloud_hypervisor_other(case: Case) -> Ruling | None:
    if _is_elf(case):
        return None
    if error := _bzimage(case):
        return error
    entry = case.raw.field(boot_params.CODE32_START)
    remark = f"only newer versions take one; those before refuse every bzImage ({_OLDER}"
    return Ruling(
        ACCEPTS, "a bzImage, entered in 32-bit mode; a PVH note in it is not looked for", LINUX_BOOT, entry, (remark,)
    )


def _libkrun_other(case: Case) -> Ruling | None:
    if _is_elf(case):
        return None
    formats = {"gzip": "image-gz", "bzip2": "image-bz2", "zstd": "image-zstd"}
    if case.unpacked is None or case.codec not in formats:
        what = "no ELF file, and nothing with one in it" if case.unpacked is None else f"an ELF file packed with {case.codec}"
        return refuses(f"{what}: of its kernel formats elf, image-gz, image-bz2 and image-zstd none fits")
    inner = _LIBRARY.judge(Case(case.unpacked, None, ""))
    if inner.outcome != ACCEPTS:
        return Ruling(inner.outcome, f"unpacked by the format {formats[case.codec]}: {inner.reason}")
    header = case.unpacked.header(64)
    assert header is not None
    reason = f"by the kernel format {formats[case.codec]}, which unpacks it and never goes by PVH: 64-bit Linux boot at e_entry"
    return Ruling(ACCEPTS, reason, ELF64_ENTRY, header.e_entry)


_ELF: Final = "linux-loader src/loader/elf/mod.rs: "
_VALIDATE: Final = _ELF + "Elf::validate_header"
_LOAD: Final = _ELF + "Elf::load"
_PARSE: Final = _ELF + "parse_elf_note"


def _not_elf(case: Case) -> Ruling | None:
    return None if _is_elf(case) else _error("InvalidElfMagicNumber", "no ELF file")


# Comes before the magic is looked at, and before a VMM tries anything else.
_WHOLE: Final = Rule("the file must have an Elf64_Ehdr whole, whatever it is", _LOAD, _read_header)


def _model(by: str, name: str, first: Sequence[Rule[Case]], high: bool, last: Rule[Case]) -> Model[Case]:
    """The rules of the crate's ELF loader, with what one VMM does of its own: `first` are those up to the magic."""
    checks: tuple[Rule[Case], ...] = (
        Rule("the file must be little-endian; class and machine are not looked at", _VALIDATE, _endian),
        Rule("a program header must have the size of Elf64_Phdr: no ELF32", _VALIDATE, _header_size),
        Rule("the program headers must not begin within the ELF header", _VALIDATE, _header_offset),
    )
    if high:
        checks += (Rule("e_entry must not lie below highmem_start_address, even if it is not used", _LOAD, _high_memory),)
    return Model(
        by,
        name,
        (
            *first,
            *checks,
            Rule("all program headers must lie in the file", _LOAD, _headers),
            Walk(
                lambda case: case.raw.program_headers(64),
                (
                    HeaderRule("the bytes of a PT_LOAD must lie in the file and go to RAM", _LOAD, _load),
                    HeaderRule(
                        'a PT_NOTE is searched for type 18 with namesz 4 and "Xen\\0", in steps of 4 whatever its p_align; the '
                        "descriptor must have 4 bytes or more; the last PT_NOTE counts, even if the note is not in it; "
                        "sections are not looked at",
                        _PARSE,
                        _note,
                    ),
                ),
            ),
            Rule("the entry is the first 4 bytes of the descriptor in the last PT_NOTE", _PARSE, _pvh),
            last,
        ),
    )


def _accept_library(case: Case) -> Ruling:
    return Ruling(ACCEPTS, case.capability, ELF64_ENTRY, case.header.e_entry)


_FIRECRACKER_LOAD: Final = "Firecracker src/vmm/src/arch/x86_64/mod.rs: load_kernel"
_CLOUD_HYPERVISOR_LOAD: Final = "Cloud Hypervisor vmm/src/vm.rs: Vm::load_kernel"
_LIBKRUN_LOAD: Final = "libkrun src/vmm/src/builder.rs: load_external_kernel"

_LIBRARY: Final = _model(
    "linux-loader",
    "linux-loader 0.13.2",
    (_WHOLE, Rule("the file must begin with the ELF magic", _VALIDATE, _not_elf)),
    False,
    Rule("without a PVH entry the result is e_entry", _LOAD, _accept_library),
)
MODELS: Final[tuple[Model[Case], ...]] = (
    _model(
        "firecracker",
        "Firecracker (linux-loader)",
        (
            _WHOLE,
            Rule(
                "what is no ELF file must be a bzImage with a 64-bit entry",
                f"{_FIRECRACKER_LOAD}; linux-loader src/loader/bzimage/mod.rs: BzImage::load",
                _firecracker_other,
            ),
        ),
        True,
        Rule("without a PVH entry it boots Linux in 64-bit mode at e_entry", _FIRECRACKER_LOAD, _elf_entry),
    ),
    _model(
        "cloud-hypervisor",
        "Cloud Hypervisor (linux-loader)",
        (
            _WHOLE,
            Rule(
                "what is no ELF file must be a bzImage",
                f"{_CLOUD_HYPERVISOR_LOAD}; linux-loader src/loader/bzimage/mod.rs: BzImage::load",
                _cloud_hypervisor_other,
            ),
        ),
        True,
        Rule("an ELF file must have a PVH entry", _CLOUD_HYPERVISOR_LOAD, _no_pvh_header),
    ),
    _model(
        "libkrun",
        "libkrun (linux-loader)",
        (Rule("what is no ELF file must be of a format that it unpacks", _LIBKRUN_LOAD, _libkrun_other), _WHOLE),
        False,
        Rule("without a PVH entry it boots Linux in 64-bit mode at e_entry", _LIBKRUN_LOAD, _elf_entry),
    ),
)


def judge_linux_loader(raw: RawFile, unpacked: RawFile | None, codec: str) -> list[Verdict]:
    """The verdict of each VMM that uses the crate."""
    return [model.judge(Case(raw, unpacked, codec)) for model in MODELS]


def judge_library(raw: RawFile) -> Verdict:
    """What the crate's Elf::load itself gives, without an offset or a start of high memory."""
    return _LIBRARY.judge(Case(raw, None, ""))
