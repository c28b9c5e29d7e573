"""What a host's fw_cfg holds instead of what it should: honest variants that must boot, and anything."""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from hypothesis import strategies as st
from pvhboot.loader.fw_cfg import fw_cfg_items, item_bytes, retold
from pvhboot.loader.image import BytesImage, SizedSource
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.acpi_loader import LOADER_FILE, RSDP_FILE
from pvhboot.shim.abi.smbios import SMBIOS_ANCHOR_FILE, SMBIOS_TABLES_FILE
from pvhboot.shim.abi.x86 import ADDRESS_4G, PAGE_SIZE
from pvhboot.shim.machines import MIB, UNIVERSAL, Span, firmware_end

from .items import TABLES_FILE, setup_headers, smbios_anchors, table_loaders
from .memory_maps import FIRST_END, e820_file, e820_files, memory_maps

_FILES: Final = (LOADER_FILE, TABLES_FILE, RSDP_FILE, SMBIOS_ANCHOR_FILE, SMBIOS_TABLES_FILE, fw_cfg.E820_FILE)
_MANY: Final = 300  # files
_TABLES_ROOM: Final = 4 * MIB  # behind the kernel, more than any ACPI tables
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Contents(NamedTuple):
    """How a host's fw_cfg differs from the one that a plan is honestly booted with.

    `numbers` are items of 32 bits by key, `items` other ones (None: there is none); `files` by name, None where there is none;
    `sizes` and `names` are what the directory says of some files instead of the truth; `others` is a number of further files,
    opt/000 and so on; `file_count` is how many files there are by the directory's word, None: as many as there are.
    """

    numbers: Mapping[int, int] = _NOTHING
    items: Mapping[int, bytes | None] = _NOTHING
    files: Mapping[bytes, bytes | None] = _NOTHING
    sizes: Mapping[bytes, int] = _NOTHING
    names: Mapping[bytes, bytes] = _NOTHING
    others: int = 0
    file_count: int | None = None

    def fw_cfg_items(self, plan: BootPlan, recording: Recording | None = None) -> dict[int, SizedSource]:
        """All items by key, for Board: the plan's and the recording's (the machine's default), but for what is told here."""
        files: dict[bytes, SizedSource | None] = {
            name: None if data is None else BytesImage(data) for name, data in self.files.items()
        }
        files |= {b"opt/%03d" % number: BytesImage(b"?") for number in range(self.others)}
        items = retold(fw_cfg_items(plan, recording, files), self._told)
        if self.file_count is not None:
            told = bytearray(item_bytes(items[fw_cfg.FW_CFG_FILE_DIR]))
            told[: fw_cfg.FW_CFG_FILE_COUNT_BYTES] = self.file_count.to_bytes(fw_cfg.FW_CFG_FILE_COUNT_BYTES, "big")
            items[fw_cfg.FW_CFG_FILE_DIR] = BytesImage(told)
        items |= {key: BytesImage(value.to_bytes(4, "little")) for key, value in self.numbers.items()}
        for key, data in self.items.items():
            items.pop(key, None)
            if data is not None:
                items[key] = BytesImage(data)
        return items

    def _told(self, file: fw_cfg.FwCfgFile) -> fw_cfg.FwCfgFile:
        """What the directory says of a file."""
        name = file.name.rstrip(b"\0")
        return file._replace(size=self.sizes.get(name, file.size), name=self.names.get(name, file.name))


HONEST: Final = Contents()


_NAME_BYTES: Final = b"abcxyz019-_./"
_FILE_NAMES: Final = st.lists(
    st.sampled_from(_NAME_BYTES), min_size=1, max_size=fw_cfg.FW_CFG_MAX_FILE_PATH - 1 - len(b"opt/")
).map(lambda letters: b"opt/" + bytes(letters))


@st.composite
def contents(draw: st.DrawFn, plan: BootPlan) -> Contents:
    """Of an honest host that boots the plan: any memory map that the machine may have (memory_maps), and files that the
    firmware has no use for, of any names, up to hundreds. A firmware must boot with it."""
    kept = [Span("", segment.paddr, segment.end) for segment in plan.segments] + [module.span for module in plan.modules]
    first_end = max(FIRST_END, plan.segments[-1].end + _TABLES_ROOM)
    maps = memory_maps(plan.spec, plan.ram_size, kept, first_end=first_end)
    told = draw(st.just(None) | maps)
    files: dict[bytes, bytes | None] = dict(draw(st.dictionaries(_FILE_NAMES, st.binary(max_size=16), max_size=3)))
    if told is not None:
        files[fw_cfg.E820_FILE] = e820_file(told)
    return Contents(files=files, others=draw(st.just(0) | st.integers(0, 40) | st.just(_MANY)))


@st.composite
def hostile_contents(draw: st.DrawFn, memory: int, kernel: Span) -> Contents:
    """Of a host that says anything, on a machine with `memory` bytes of RAM and the kernel there. Most are wrong in one or two
    things only: those get far. Addresses and sizes at the edges of what there is; items and files that are missing, empty, too
    short, of other bytes; sizes that the directory tells wrongly, up to 4 GiB; names without a NUL, or twice the same; more
    files than there are, or fewer."""
    return draw(_hostile(memory, kernel))


@cache
def _hostile(memory: int, kernel: Span) -> st.SearchStrategy[Contents]:
    nothing: st.SearchStrategy[Mapping[Any, Any]] = st.just({})
    mp_table, work_end = UNIVERSAL.low.mp_table, firmware_end(UNIVERSAL)
    assert mp_table is not None
    low = (0, 1, work_end - 1, work_end, mp_table.start - 1, mp_table.end, MIB - 1, MIB)
    edges = (kernel.start - 1, kernel.start, kernel.end, memory - 1, memory)
    far = (1 << 31, 0xB0000000, 0xFFFF0000, ADDRESS_4G - 2, ADDRESS_4G - 1)
    words = st.sampled_from((*low, *edges, *far)) | st.integers(0, ADDRESS_4G - 1)
    numbers = (
        fw_cfg.FW_CFG_KERNEL_ADDR,
        fw_cfg.FW_CFG_KERNEL_SIZE,
        fw_cfg.FW_CFG_CMDLINE_SIZE,
        fw_cfg.FW_CFG_INITRD_ADDR,
        fw_cfg.FW_CFG_INITRD_SIZE,
    )
    raw = (fw_cfg.FW_CFG_CMDLINE_DATA, fw_cfg.FW_CFG_KERNEL_DATA, fw_cfg.FW_CFG_FILE_DIR, fw_cfg.FW_CFG_SIGNATURE)
    name_bytes = fw_cfg.FW_CFG_MAX_FILE_PATH
    names = st.binary(min_size=name_bytes, max_size=name_bytes) | st.just(fw_cfg.E820_FILE.ljust(name_bytes, b"x"))
    cpus = st.sampled_from((0, 2, 255, 256, 65535))
    counts = (None, None, None, None, 0, 1, 5, 41, _MANY)
    limit = fw_cfg.FW_CFG_MAX_FILES
    return st.builds(
        Contents,
        numbers=nothing | nothing | _some(numbers, words) | _some((fw_cfg.FW_CFG_NB_CPUS,), cpus),
        items=st.one_of(
            nothing,
            nothing,
            nothing,
            _some(raw, st.none() | st.binary(max_size=70)),
            st.fixed_dictionaries({fw_cfg.FW_CFG_SETUP_DATA: setup_headers(memory, kernel.start)}),
        ),
        files=st.one_of(
            nothing,
            st.fixed_dictionaries({fw_cfg.E820_FILE: e820_files(memory)}),
            st.fixed_dictionaries(
                {LOADER_FILE: table_loaders(), TABLES_FILE: st.binary(max_size=64).map(lambda data: data * 64)}
            ),
            st.fixed_dictionaries({SMBIOS_ANCHOR_FILE: smbios_anchors()}),
            _some(_FILES, st.none() | st.binary(max_size=64)),
        ),
        sizes=nothing | nothing | nothing | _some(_FILES, st.sampled_from(_SIZES)),
        names=nothing | nothing | nothing | _some(_FILES, names),
        others=st.sampled_from((0, 0, 0, 30, _MANY)),
        file_count=st.sampled_from((*counts, limit - 1, limit, limit + 1, 1 << 31, ADDRESS_4G - 1)),
    )


_SIZES: Final = (0, 1, 19, 20, 24, 31, 36, 127, 128, PAGE_SIZE, 16384, 16385, 32768, 1 << 31, ADDRESS_4G - 1)


def _some(keys: Iterable[_Key], values: st.SearchStrategy[_Value], most: int = 2) -> st.SearchStrategy[Mapping[_Key, _Value]]:
    return st.dictionaries(st.sampled_from(tuple(keys)), values, max_size=most)
