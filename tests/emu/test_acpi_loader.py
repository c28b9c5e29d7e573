"""The table-loader of the firmware of microvm-acpi against a model of it: where the files of fw_cfg go, what becomes of their
bytes, what the guest is told of them, and by which name the firmware panics where a script says what cannot be."""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import DirtyPlan
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.devices.fw_cfg import FwCfg
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import HALT, HANDOFF
from pvhboot.emu.session import get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.firmware import PANICS, panic_message
from pvhboot.shim.abi.x86 import HLT
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import GIB, MIB, MICROVM_ACPI
from stores import Stores
from tiny import kernel_image

PAGE = 0x1000
RAM, RESERVED, ACPI = 1, 2, 3
HIGH, FSEG = 1, 2  # zones
KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE, DIRECTORY = 0x08, 0x0A, 0x0B, 0x19
KERNEL_PADDR, KERNEL_BYTES = 0x200000, 0x10000
KERNEL_END = KERNEL_PADDR + KERNEL_BYTES
INITRD = bytes(range(1, 251)) * 2  # 500 bytes
FIRST_FILE = 0x20  # its key
SCRIPT_NAME = b"etc/table-loader"

# The script, written out as QEMU does: hw/acpi/bios-linker-loader.c.


def allocate(name, align=64, zone=HIGH):
    return struct.pack("<I56sIB63x", 1, name, align, zone)


def pointer(dest, src, offset, size=4):
    return struct.pack("<I56s56sIB7x", 2, dest, src, offset, size)


def checksum(name, offset, start, length):
    return struct.pack("<I56sIII56x", 3, name, offset, start, length)


def write_pointer(dest, src, dst_offset, src_offset, size):
    return struct.pack("<I56s56sIIB3x", 4, dest, src, dst_offset, src_offset, size)


PADDING = bytes(128)
UNKNOWN = [struct.pack("<I", number) + b"\xff" * 124 for number in (5, 0xFF, 0x100, 0x101, 0x80000001, 0xFFFFFFFF)]


# The model.


class RefusedError(Exception):
    """The firmware panics, by this name."""


class Placed(NamedTuple):
    """A file in memory."""

    name: bytes
    address: int
    data: bytearray


class Result(NamedTuple):
    """What a script has done: files in memory, the address down to which memory is in use, and what the host has been told."""

    placed: list
    bottom: int
    written: dict

    @property
    def rsdp(self):
        """0: none. Of two, the one that the commands were about."""
        return next((one.address for one in reversed(self.placed) if one.name == padded(b"etc/acpi/rsdp")), 0)


def padded(name):
    return name.ljust(56, b"\0")


def execute(script, files, top, floor, *, writable=None, dma=True):
    """`files` by name as the directory has them; `writable`: those that the host lets be written (only by DMA)."""
    if len(script) > 0x4000:
        raise RefusedError("ACPI_SCRIPT")
    files = {padded(name): data for name, data in files.items()}
    written = {padded(name): bytearray(data) for name, data in (writable or {}).items()}
    placed, bottom = [], top
    for at in range(0, len(script) - 127, 128):
        command = script[at : at + 128]
        number = int.from_bytes(command[:4], "little")
        if number == 1:
            bottom = _allocate(command, files, placed, bottom, floor)
        elif number == 2:
            _add_pointer(command, placed)
        elif number == 3:
            _add_checksum(command, placed)
        elif number == 4 and dma:
            _write_pointer(command, files, placed, written)
    return Result(placed, bottom, written)


def _allocate(command, files, placed, bottom, floor):
    name, align = struct.unpack_from("<56sI", command, 4)
    if len(placed) == 32:
        raise RefusedError("ACPI_SCRIPT")
    if name not in files:
        raise RefusedError("ACPI_FILE")
    data = files[name]
    if len(data) > bottom:
        raise RefusedError("ACPI_ROOM")
    if align.bit_count() != 1:
        raise RefusedError("ACPI_SCRIPT")
    address = (bottom - len(data)) // align * align
    if address < floor:
        raise RefusedError("ACPI_ROOM")
    placed.append(Placed(name, address, bytearray(data)))
    return address


def _find(placed, name):
    for one in reversed(placed):
        if one.name == name:
            return one
    raise RefusedError("ACPI_FILE")


def _require(condition):
    if not condition:
        raise RefusedError("ACPI_SCRIPT")


def _add_pointer(command, placed):
    dest, src, offset, size = struct.unpack_from("<56s56sIB", command, 4)
    address, data = _find(placed, src).address, _find(placed, dest).data
    _require(offset + size <= len(data) and size in (1, 2, 4, 8))
    value = int.from_bytes(data[offset : offset + size], "little") + address
    _require(size == 8 or value < 1 << 8 * size)
    data[offset : offset + size] = (value % (1 << 64)).to_bytes(8, "little")[:size]


def _add_checksum(command, placed):
    name, offset, start, length = struct.unpack_from("<56sIII", command, 4)
    data = _find(placed, name).data
    _require(offset < len(data) and start + length <= len(data))
    data[offset] = (data[offset] - sum(data[start : start + length])) % 256


def _write_pointer(command, files, placed, written):
    dest, src, dst_offset, src_offset, size = struct.unpack_from("<56s56sIIB", command, 4)
    source = _find(placed, src)
    _require(src_offset < len(source.data) and 1 <= size <= 8)
    if dest not in files:
        raise RefusedError("ACPI_FILE")
    if dest not in written or dst_offset + size > len(written[dest]):
        raise RefusedError("FW_CFG_DMA")
    written[dest][dst_offset : dst_offset + size] = (source.address + src_offset).to_bytes(8, "little")[:size]


def memory_map(host, result, top):
    """What the guest is told: of the host's entries, RAM from 0 first, with the ROM and the tables."""
    (start, size, kind), *others = host
    assert (start, kind) == (0, RAM)
    entries = [(0, 0xF0000, RAM), (0xF0000, 0x10000, RESERVED), *others, (0xFFFF0000, 0x10000, RESERVED)]
    bottom = result.bottom // PAGE * PAGE
    if bottom == top:
        return sorted([*entries, (MIB, size - MIB, RAM)])
    if len(entries) + 1 > 124:
        raise RefusedError("E820_COUNT")
    entries += [(MIB, bottom - MIB, RAM), (bottom, top - bottom, ACPI)]
    return sorted([*entries, *([(top, size - top, RAM)] if size > top else [])])


# The machine.


class Case(NamedTuple):
    """What fw_cfg holds and says. `script` None: no such file; `said`: sizes that the directory says instead of the files' own;
    `others`: so many more files before them. `e820`: the host's, RAM from 0 first; None as the memory is. `initrd`: its
    address; None as QEMU places it, 0 for no initrd. `kernel`: its address, `kernel_size` what fw_cfg says of it."""

    script: tuple | None
    files: Mapping[bytes, bytes]
    said: Mapping[bytes, int] = {}
    others: int = 0
    memory: int = 64 * MIB
    e820: tuple | None = None
    initrd: int | None = None
    kernel: int = KERNEL_PADDR
    kernel_size: int = KERNEL_BYTES
    writable: Mapping[bytes, bytes] | None = None

    @property
    def host(self):
        """etc/e820."""
        if self.e820 is not None:
            return self.e820
        low = (0, min(self.memory, 3 * GIB), RAM)
        return (low, (4 * GIB, self.memory - 3 * GIB, RAM)) if self.memory > 3 * GIB else (low,)

    @property
    def all_files(self):
        """By name, each with the bytes that the firmware reads: as many as the directory says, or more than all RAM."""
        files = {**self.files, **(self.writable or {})}
        if self.script is not None:
            files[SCRIPT_NAME] = b"".join(self.script)
        said = {name: min(size, 65 * MIB) for name, size in self.said.items()}
        return {name: data[: said.get(name)].ljust(said.get(name, 0), b"\0") for name, data in files.items()}

    def items(self):
        """Directory, files, and what fw_cfg says of kernel and initrd."""
        contents = {f"etc/a{at:03}".encode(): b"x" * 8 for at in range(self.others)}
        contents |= {**self.files, **(self.writable or {})}
        if self.script is not None:
            contents[SCRIPT_NAME] = b"".join(self.script)
        contents[b"etc/e820"] = b"".join(struct.pack("<QQI", *entry) for entry in self.host)
        entries, items = b"", {}
        for key, (name, data) in enumerate(contents.items(), FIRST_FILE):
            entries += struct.pack(">IHH56s", self.said.get(name, len(data)), key, 0, name)
            items[key] = data
        items[DIRECTORY] = struct.pack(">I", len(contents)) + entries
        items[KERNEL_SIZE] = struct.pack("<I", self.kernel_size)
        if self.initrd:
            items[INITRD_ADDR] = struct.pack("<I", self.initrd)
        return {key: BytesImage(data) for key, data in items.items()}

    def key(self, name):
        """The key of a file that can be written."""
        return FIRST_FILE + [*(None for _ in range(self.others)), *self.files, *(self.writable or {})].index(name)

    def bounds(self, plan):
        """Top and floor."""
        top = self.host[0][1]
        if plan.modules:
            top = min(top, plan.modules[0].paddr)
        floor = max(-(-(self.kernel + self.kernel_size) // PAGE) * PAGE, MIB + PAGE)
        return top // PAGE * PAGE, floor

    def expected(self, plan, dma=True):
        """The model's result, and the memory map; RefusedError."""
        top, floor = self.bounds(plan)
        if len(self.host) > 122:
            raise RefusedError("E820_COUNT")
        if self.script is None:
            result = Result([], top, {})
        else:
            files = self.all_files
            result = execute(files[SCRIPT_NAME], files, top, floor, writable=self.writable, dma=dma)
        return result, memory_map(self.host, result, top)


@pytest.fixture(scope="module")
def blob():
    return build(MICROVM_ACPI)


@pytest.fixture(scope="module")
def make(blob, tmp_path_factory):
    """Makes the plan of a case."""
    path = tmp_path_factory.mktemp("acpi") / "initrd"
    path.write_bytes(INITRD)

    def plan(case, dma=True):
        kernel = Kernel.from_bytes(kernel_image(HLT * KERNEL_BYTES, case.kernel), "kernel")
        modules = [] if case.initrd == 0 else [Module(str(path))]
        plan = make_plan(MICROVM_ACPI, blob.data, kernel, memory=case.memory, modules=modules, cmdline="a line", dma=dma)
        return plan._replace(modules=(plan.modules[0]._replace(paddr=case.initrd),)) if case.initrd else plan

    plan.blob = blob  # for the test at random: hypothesis shows arguments, and a blob is long
    return plan


# What the check says of all but ACPI: that is for the model.
CLAUSES = {
    *("entry.eip", "cpu.cr0", "cpu.cr4", "cpu.eflags", "cpu.cs", "cpu.ds", "cpu.es", "cpu.ss", "cpu.tr", "cpu.mtrr"),
    *("rom.unwritten", "start_info.location", "start_info.magic", "memmap.location", "memmap.sorted", "memmap.disjoint"),
    *("modules.list", "modules.entries", "cmdline", "memory.disjoint", "memory.payload"),
}


class WritingDma:
    """The DMA register of a fw_cfg that lets one file be written, as far as it reaches."""

    def __init__(self, items, memory, key, data):
        self._register, self._memory = FwCfg(items, memory).dma_ports, memory
        self._key, self.data = key, bytearray(data)
        self._at = None, 0
        self.read = self._register.read

    def write(self, offset, size, value):
        paddr = int.from_bytes(value.to_bytes(size, "little"), "big")
        try:
            control, length, address = struct.unpack(">IIQ", self._memory.view(paddr, 16))
            data = bytes(self._memory.read(address, length)) if control & 0x10 else b""
        except BootError:  # of a mutant, say
            self._register.write(offset, size, value)
            return
        key, at = (control >> 16, 0) if control & 8 else self._at
        self._at = key, at + length
        if not control & 0x10:
            self._register.write(offset, size, value)
            return
        fits = key == self._key and at + length <= len(self.data)
        if fits:
            self.data[at : at + length] = data
        with self._memory.writing(paddr, 4) as word:
            word[:] = (0 if fits else 1).to_bytes(4, "big")


class Seen(NamedTuple):
    """How a run ended. `told`: rsdp_paddr and the memory map, None without a handoff; `violated`: clauses that do not judge
    those two; `image`: the bytes from `start` on to the top; `stores`: address and size of each, of the firmware and of
    devices (Unicorn)."""

    board: Board
    stop: object
    told: tuple | None
    violated: list | None
    image: bytes
    stores: list
    written: bytes | None


def run(case, plan, engine="unicorn", *, dirty=False, start=None, limits=None):
    """From the reset to the handoff; `start`: from where on memory is looked at."""
    items = {**fw_cfg_items(plan), **case.items()}
    memory = (DirtyPlan.of(plan) if dirty else plan).memory()
    limits = limits or Limits(seconds=20.0)
    writing = None
    writes = case.writable is not None
    board = Board(plan._replace(dma=plan.dma and not writes), memory, fw_cfg_items=items)
    if writes:
        ((name, data),) = case.writable.items()
        writing = WritingDma(items, memory, case.key(name), data)
        board.bus.claim_ports(0x514, 8, "dma", writing, width=8)
    stores, seen = Stores(), []

    def on_handoff(handoff):
        tables = read_tables(handoff)
        told = tables.start_info.rsdp_paddr, [tuple(entry)[:3] for entry in tables.memmap]
        findings = [finding for finding in check(handoff, plan) if finding.clause in CLAUSES]
        violated = [finding for finding in findings if finding.status == VIOLATED]
        top = case.bounds(plan)[0]
        image = b"" if start is None else handoff.memory.read(start, top - start)
        seen.extend([told, violated, image])

    watchers = [stores] if engine == "unicorn" else []
    stop = get_engine(engine).run(board, Until(HANDOFF), limits, on_handoff, watchers).stop
    told, violated, image = seen or (None, None, b"")
    return Seen(board, stop, told, violated, image, stores, None if writing is None else bytes(writing.data))


def require_model(case, plan, blob, engine="unicorn", *, dma=True, dirty=False, limits=None):
    """The run ends as the model does; its result, or the name of the panic."""
    name = result = wanted = None
    top, floor = case.bounds(plan)
    try:
        result, wanted = case.expected(plan, dma)
    except RefusedError as error:
        name = str(error)
    start = None
    if result is not None:
        start = min(max(result.bottom // PAGE * PAGE - PAGE, floor), top)
        assert top - start < 32 * MIB, "the test would look at too much"
    seen = run(case, plan, engine, dirty=dirty, start=start, limits=limits)
    places = [span.bounds for span in MICROVM_ACPI.low.spans()]
    places += [(floor, top), *((module.paddr, module.paddr + len(INITRD)) for module in plan.modules)]
    stray = [store for store in set(seen.stores) if not any(low <= store[0] and sum(store) <= high for low, high in places)]
    assert not stray
    if name is not None:
        require_panic(seen, blob, name)
        return name
    assert (seen.stop.reason, seen.board.debug_console) == (HANDOFF, b"")
    assert not seen.violated
    assert seen.told == (result.rsdp, wanted)
    image = bytearray(top - start)
    for placed in result.placed:
        image[placed.address - start : placed.address - start + len(placed.data)] = placed.data
    assert seen.image == image
    if seen.written is not None:
        ((_, written),) = result.written.items()
        assert seen.written == written
    return result


def require_panic(seen, blob, name):
    panic = next(panic for panic in PANICS if panic.name == name)
    assert seen.board.debug_console.decode() == panic_message(panic) + "\n"
    assert seen.board.post_codes == [panic.code]
    assert (seen.stop.reason, seen.told) == (HALT, None)
    assert blob.locate(seen.stop.rip).symbol == "panic_halt"


# What is good.

RSDP, TABLES = b"etc/acpi/rsdp", b"etc/acpi/tables"
BODY = bytes(256) + bytes(at * 7 + 3 & 0xFF for at in range(2000))  # fields for pointers first
FILES = {RSDP: b"RSD PTR " + bytes(28), TABLES: BODY}
BOTH = (allocate(RSDP, 16, FSEG), allocate(TABLES, 64))
# As QEMU's: the FADT's pointers to FACS and DSDT, the XSDT's to the FADT, the RSDP's to the XSDT, and their checksums.
LIKE_QEMU = (
    *BOTH,
    pointer(TABLES, TABLES, 36, 4),
    pointer(TABLES, TABLES, 40, 4),
    pointer(TABLES, TABLES, 140, 8),
    checksum(TABLES, 9, 0, 244),
    pointer(TABLES, TABLES, 252, 4),
    checksum(TABLES, 265, 256, 1990),
    pointer(RSDP, TABLES, 24, 8),
    pointer(RSDP, TABLES, 16, 4),
    checksum(RSDP, 8, 0, 20),
    checksum(RSDP, 32, 0, 36),
)


def good(*script, files=FILES, **more):
    return Case(script, files, **more)


def numbered(count, size=5):
    """So many small files, and a script that places them."""
    files = {f"etc/file{at}".encode(): bytes([at + 1]) * size for at in range(count)}
    return tuple(allocate(name, 4) for name in files), files


def placed(count):
    script, files = numbered(count)
    return Case(script, files)


LONG = b"etc/" + b"n" * 50  # 54 bytes
TWINS = {LONG + b"a": b"first", LONG + b"b": b"the second", LONG: b"neither"}
UNTERMINATED = {LONG + b"xy": b"fifty-six", LONG + b"x": b"fifty-five"}
FLAT = b"etc/flat"
LENGTHS = (0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 4096, 65537)
SUMMED = bytes((at * 167 + 13) >> 3 & 0xFF for at in range(70001))


def summed(offset, start, length, data=SUMMED):
    """A checksum in a file at an odd address, of which the size is odd: its end is one, the page's."""
    return Case((allocate(FLAT, 1), checksum(FLAT, offset, start, length)), {FLAT: data}, initrd=0)


ROOM = {"initrd": KERNEL_END + 0x3000}  # three pages between kernel and initrd
LOW_KERNEL = {"kernel": 0x40000, "initrd": MIB + 0x3000}  # two: a page of the RAM is left
AT_END = {"kernel_size": 62 * MIB - 0x2800, "initrd": 0}  # the kernel ends half a page before the last two pages of RAM
ONE = (allocate(FLAT, 1),)


def sized(size, script=ONE, **where):
    return Case(script, {FLAT: bytes(at % 255 + 1 for at in range(size))}, **where)


def reserved(number):
    return [(0xD0000000 + 0x2000 * at, 0x1000, RESERVED) for at in range(number)]


def with_host(number, script=BOTH):
    """So many entries of the host."""
    return Case(script, FILES, e820=((0, 64 * MIB, RAM), *reserved(number - 1)))


TARGET = b"etc/target"


def told(*commands, **more):
    """The host is told in a file of 20 bytes."""
    return Case((*BOTH, *commands), FILES, writable={TARGET: b"\xee" * 20}, **more)


GOOD = {
    "no-script": Case(None, FILES),
    "no-script-122-entries": with_host(122, None),
    "script-empty": good(),
    "script-empty-122-entries": with_host(122, ()),
    "script-of-127-bytes": good(BOTH[0][:127]),
    "script-of-255-bytes": good(BOTH[0], BOTH[1][:127]),
    "script-of-129-bytes": good(BOTH[0], b"\x01"),
    "script-of-16-kib": good(*[PADDING] * 60, BOTH[0], *[PADDING] * 66, BOTH[1]),
    "script-larger-than-said": good(*BOTH, said={SCRIPT_NAME: 128}),
    "script-smaller-than-said": good(*BOTH, said={SCRIPT_NAME: 0x4000}),
    "padding-and-unknown": good(PADDING, BOTH[0], *UNKNOWN, PADDING, BOTH[1], *UNKNOWN),
    "only-unknown": good(PADDING, *UNKNOWN),
    "like-qemu": good(*LIKE_QEMU),
    "like-qemu-without-initrd": good(*LIKE_QEMU, initrd=0),
    "like-qemu-3-gib": good(*LIKE_QEMU, memory=3 * GIB),
    "like-qemu-5-gib": good(*LIKE_QEMU, memory=5 * GIB),
    "like-qemu-5-gib-without-initrd": good(*LIKE_QEMU, memory=5 * GIB, initrd=0),
    "like-qemu-odd-end-of-ram": good(*LIKE_QEMU, e820=((0, 63 * MIB + 0x1234, RAM),), initrd=0),
    "like-qemu-initrd-in-other-ram": good(
        *LIKE_QEMU, memory=128 * MIB, e820=((0, 64 * MIB, RAM), (96 * MIB, 32 * MIB, RAM)), initrd=100 * MIB
    ),
    "like-qemu-initrd-at-an-odd-address": good(*LIKE_QEMU, initrd=48 * MIB + 0x1001),
    "rsdp-missing": good(allocate(TABLES)),
    "rsdp-last": good(allocate(TABLES), allocate(RSDP)),
    "rsdp-twice": good(allocate(RSDP), allocate(TABLES), allocate(RSDP), pointer(RSDP, TABLES, 16)),
    "rsdp-of-0-bytes": good(allocate(RSDP), files={RSDP: b""}),
    **{f"align-{align:#x}-{zone}": good(allocate(RSDP, align, zone), allocate(TABLES, align, zone))
       for align in (1, 2, 16, 64, 4096, MIB) for zone in (HIGH, FSEG)},
    "align-mixed": Case(
        tuple(allocate(name, align) for name, align in zip(numbered(6)[1], (1, 4096, 1, 16, 2, 32), strict=True)),
        numbered(6, 37)[1],
    ),
    "zones-unknown": good(allocate(RSDP, 16, 0), allocate(TABLES, 16, 255)),
    "file-of-0-bytes": good(allocate(FLAT, 1), BOTH[0], allocate(FLAT, 4096), BOTH[1], files={**FILES, FLAT: b""}),
    "file-of-0-bytes-alone": sized(0),
    "file-of-0-bytes-far-down": sized(0, (allocate(FLAT, MIB),)),
    "file-of-0-bytes-checksum": Case((*BOTH, allocate(FLAT, 1), checksum(RSDP, 35, 36, 0)), {**FILES, FLAT: b""}),
    "file-twice": sized(100, (*ONE, *ONE, checksum(FLAT, 0, 0, 100), pointer(FLAT, FLAT, 8, 8))),
    "file-32-times": sized(3, ONE * 32),
    "file-smaller-than-said": good(*BOTH, said={TABLES: 5000}),
    "file-larger-than-said": good(*BOTH, said={TABLES: 100}),
    "files-32": placed(32),
    "names-of-1-to-9": Case(
        tuple(allocate(b"abcdefghi"[:size], 1) for size in range(1, 10)),
        {b"abcdefghi"[:size]: bytes([size]) * size for size in range(9, 0, -1)},
    ),
    "names-of-55": Case(tuple(allocate(name, 1) for name in reversed(TWINS)), TWINS),
    "names-of-56": Case(tuple(allocate(name, 1) for name in UNTERMINATED), UNTERMINATED),
    "names-twins": Case((*map(allocate, TWINS), pointer(LONG + b"b", LONG + b"a", 0), checksum(LONG + b"b", 9, 0, 10)), TWINS),
    **{f"directory-others-{others}": good(*LIKE_QEMU, others=others) for others in (37, 38, 39, 40, 41, 80, 297)},
    "room-three-pages": sized(0x3000, **ROOM),
    "room-three-pages-aligned": sized(0x2001, (allocate(FLAT, PAGE),), **ROOM),
    "room-three-pages-in-two": sized(0x1800, ONE * 2, **ROOM),
    "room-low-kernel": sized(0x2000, **LOW_KERNEL),
    "room-end-of-ram": sized(0x2000, **AT_END),
    "room-none-and-nothing-to-place": sized(0, (), initrd=KERNEL_END),
    "room-none-and-a-file-of-0-bytes": sized(0, initrd=KERNEL_END),
    "room-none-initrd-before-the-kernel": sized(9, (PADDING,), initrd=MIB),
    "pointer-4-at-the-end": sized(40, (*ONE, pointer(FLAT, FLAT, 36)), initrd=0, said={FLAT: 40}),
    "pointer-4-largest": Case((*ONE, pointer(FLAT, FLAT, 0)), {FLAT: struct.pack("<I", 0xFC000003)}, initrd=0),
    "pointer-4-largest-3-gib": Case((*ONE, pointer(FLAT, FLAT, 0)), {FLAT: struct.pack("<I", 0x40000003)},
                                    initrd=0, memory=5 * GIB),
    "pointer-8-at-the-end": Case((*ONE, pointer(FLAT, FLAT, 1, 8)), {FLAT: b"\xff" + bytes(8)}),
    "pointer-8-carries": Case((*ONE, pointer(FLAT, FLAT, 1, 8)), {FLAT: b"\x01" + b"\xff" * 4 + bytes(4) + b"\x07" * 3}),
    "pointer-8-wraps": Case((*ONE, pointer(FLAT, FLAT, 0, 8)), {FLAT: b"\xff" * 11}),
    "pointer-twice": good(*BOTH, pointer(TABLES, RSDP, 5, 4), pointer(TABLES, TABLES, 5, 4), pointer(TABLES, RSDP, 5, 8)),
    "121-entries": with_host(121),
    "121-entries-without-initrd": with_host(121)._replace(initrd=0),
}  # fmt: skip

# Sums do not depend on how the bytes came.
SUMS = {
    **{f"{length}-from-{start}": summed(0 if length % 2 else 70000, start, length)
       for start, length in enumerate(LENGTHS, 1)},
    **{f"{length}-inside": summed(1000 + length // 2, 1000, length) for length in LENGTHS},
    **{f"{size}-bytes-of-ff-from-{start}": summed(start, start, size - start, b"\xff" * size)
       for size, start in ((100_000, 0), (100_001, 1), (100_002, 1), (100_003, 2))},
    "each-of-0-to-125": Case(
        (*ONE, *(checksum(FLAT, 300 + size, size % 3, size) for size in range(126))), {FLAT: SUMMED[:501]}
    ),
    "last-byte": summed(70000, 70000, 1),
    "nothing-at-the-end": summed(70000, 70001, 0),
    "all": summed(4, 0, 70001),
    "twice": Case((*ONE, *[checksum(FLAT, 9, 0, 99)] * 2), {FLAT: SUMMED[:99]}),
}  # fmt: skip

# What the host is told: with DMA; without, the commands are passed over.
TOLD = {
    **{f"size-{size}": told(write_pointer(TARGET, TABLES, 0, 0, size)) for size in range(1, 9)},
    "dst-offset": told(write_pointer(TARGET, TABLES, 5, 0, 8)),
    "dst-offset-at-the-end": told(write_pointer(TARGET, TABLES, 16, 0, 4)),
    "dst-offset-last-byte": told(write_pointer(TARGET, RSDP, 19, 35, 1)),
    "src-offset": told(write_pointer(TARGET, RSDP, 0, 8, 8)),
    "src-offset-last-byte": told(write_pointer(TARGET, RSDP, 0, 35, 4)),
    "more-than-one": told(write_pointer(TARGET, RSDP, 0, 0, 4), write_pointer(TARGET, TABLES, 4, 9, 8), *LIKE_QEMU[2:]),
    "others": told(write_pointer(TARGET, RSDP, 1, 1, 8), others=100),
    "5-gib": told(write_pointer(TARGET, RSDP, 1, 1, 8), memory=5 * GIB),
}


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_a_good_script(make, blob, case, dma):
    assert isinstance(require_model(case, make(case, dma), blob, dma=dma), Result)


@pytest.mark.parametrize("case", SUMS.values(), ids=SUMS)
def test_a_checksum(make, blob, case):
    assert isinstance(require_model(case, make(case), blob), Result)


SOME = (
    "no-script",
    "script-of-255-bytes",
    "like-qemu",
    "like-qemu-5-gib-without-initrd",
    "align-0x100000-1",
    "files-32",
    "directory-others-297",
    "room-three-pages",
    "121-entries",
)


@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize("case", [GOOD[name] for name in SOME], ids=SOME)
def test_some_on_each_engine_and_with_anything_in_low_ram(engine_name, make, blob, case, dma, dirty):
    assert isinstance(require_model(case, make(case, dma), blob, engine_name, dma=dma, dirty=dirty), Result)


@pytest.mark.parametrize("case", TOLD.values(), ids=TOLD)
def test_the_host_is_told_an_address(engine_name, make, blob, case):
    result = require_model(case, make(case), blob, engine_name, dirty=True)
    assert result.written[padded(TARGET)] != b"\xee" * 20


# What is wrong, and by which name.


def pointing(size, offset, *, data=bytes(40), **more):
    return Case((*ONE, pointer(FLAT, FLAT, offset, size)), {FLAT: data}, **more)


def summing(offset, start, length):
    return Case((*ONE, checksum(FLAT, offset, start, length)), {FLAT: bytes(range(40))})


WRONG = {
    "script-of-16-kib-and-a-byte": (good(*BOTH, *[PADDING] * 126, b"\0"), "ACPI_SCRIPT"),
    "script-most-bytes": (good(*BOTH, said={SCRIPT_NAME: 0xFFFFFFFF}), "ACPI_SCRIPT"),
    **{
        f"align-{align:#x}": (good(allocate(RSDP, align)), "ACPI_SCRIPT")
        for align in (0, 3, 5, 6, 0x11, 0x1001, 0xC0000000, 0x80000001, 0xFFFFFFFF)
    },
    "align-2-gib": (good(allocate(RSDP, 1 << 31)), "ACPI_ROOM"),
    "align-64-mib": (good(allocate(RSDP, 64 * MIB)), "ACPI_ROOM"),
    "files-33": (placed(33), "ACPI_SCRIPT"),
    "file-33-times": (sized(3, ONE * 33), "ACPI_SCRIPT"),
    "allocate-unknown": (good(allocate(b"etc/acpi/none")), "ACPI_FILE"),
    "allocate-prefix": (good(allocate(TABLES[:-1])), "ACPI_FILE"),
    "allocate-longer": (good(allocate(TABLES + b"s")), "ACPI_FILE"),
    "allocate-other-case": (good(allocate(b"ETC/acpi/tables")), "ACPI_FILE"),
    "allocate-no-name": (good(allocate(b"")), "ACPI_FILE"),
    "allocate-no-terminator": (Case((allocate(LONG + b"xy"),), {LONG + b"x": b"1"}), "ACPI_FILE"),
    "allocate-a-terminator": (Case((allocate(LONG + b"x"),), {LONG + b"xy": b"1"}), "ACPI_FILE"),
    "allocate-twin": (Case((allocate(LONG + b"c"),), TWINS), "ACPI_FILE"),
    "allocate-unknown-of-300": (good(allocate(b"etc/acpi/none"), others=296), "ACPI_FILE"),
    "pointer-before-allocate": (good(pointer(RSDP, RSDP, 0), *BOTH), "ACPI_FILE"),
    "pointer-to-no-file": (good(*BOTH, pointer(RSDP, b"etc/none", 0)), "ACPI_FILE"),
    "pointer-in-no-file": (good(*BOTH, pointer(b"etc/none", RSDP, 0)), "ACPI_FILE"),
    "pointer-to-a-file-without-memory": (good(BOTH[0], pointer(RSDP, TABLES, 0)), "ACPI_FILE"),
    "pointer-twin": (
        Case((allocate(LONG + b"a"), pointer(LONG + b"a", LONG + b"b", 0)), TWINS),
        "ACPI_FILE",
    ),
    "checksum-before-allocate": (good(checksum(RSDP, 0, 0, 1), *BOTH), "ACPI_FILE"),
    "checksum-of-no-file": (good(*BOTH, checksum(b"etc/none", 0, 0, 1)), "ACPI_FILE"),
    "room-a-byte-too-few": (sized(0x3001, **ROOM), "ACPI_ROOM"),
    "room-aligned": (sized(0x2001, (allocate(FLAT, 0x20000),), **ROOM), "ACPI_ROOM"),
    "room-two-that-do-not-fit": (sized(0x1801, ONE * 2, **ROOM), "ACPI_ROOM"),
    "room-low-kernel": (sized(0x2001, **LOW_KERNEL), "ACPI_ROOM"),
    "room-end-of-ram": (sized(0x2001, **AT_END), "ACPI_ROOM"),
    "room-none": (sized(1, initrd=KERNEL_END), "ACPI_ROOM"),
    "room-kernel-up-to-the-end": (sized(1, kernel_size=62 * MIB, initrd=0), "ACPI_ROOM"),
    "room-initrd-before-the-kernel": (sized(1, initrd=MIB), "ACPI_ROOM"),
    "room-initrd-before-the-kernel-and-0-bytes": (sized(0, initrd=MIB), "ACPI_ROOM"),
    "room-a-file-of-4-gib": (sized(9, said={FLAT: 0xFFFFFFFF}), "ACPI_ROOM"),
    "room-a-file-of-all-ram": (sized(9, said={FLAT: 64 * MIB}, initrd=0), "ACPI_ROOM"),
    "room-a-file-down-to-the-kernel": (sized(9, said={FLAT: 64 * MIB - KERNEL_END + 1}, initrd=0), "ACPI_ROOM"),
    # What is at 1 MiB and above does not fit into two bytes.
    "pointer-1": (pointing(1, 0), "ACPI_SCRIPT"),
    "pointer-1-all-ones": (pointing(1, 39, data=b"\xff" * 40), "ACPI_SCRIPT"),
    "pointer-2": (pointing(2, 38), "ACPI_SCRIPT"),
    "pointer-2-all-ones": (pointing(2, 0, data=b"\xff" * 40, memory=5 * GIB), "ACPI_SCRIPT"),
    "pointer-4-overflows": (pointing(4, 0, data=b"\xff" * 40), "ACPI_SCRIPT"),
    "pointer-4-overflows-by-1": (pointing(4, 0, data=struct.pack("<I", 0xFC000004), initrd=0), "ACPI_SCRIPT"),
    "pointer-4-overflows-by-1-3-gib": (
        pointing(4, 0, data=struct.pack("<I", 0x40000004), initrd=0, memory=5 * GIB),
        "ACPI_SCRIPT",
    ),
    **{f"pointer-size-{size}": (pointing(size, 0), "ACPI_SCRIPT") for size in (0, 3, 5, 6, 7, 9, 16, 128, 255)},
    **{f"pointer-{size}-one-past": (pointing(size, 41 - size), "ACPI_SCRIPT") for size in (1, 2, 4, 8)},
    **{f"pointer-{size}-at-the-end": (pointing(size, 40), "ACPI_SCRIPT") for size in (0, 1, 4, 8)},
    **{
        f"pointer-{size}-at-{offset:#x}": (pointing(size, offset), "ACPI_SCRIPT")
        for size in (1, 4, 8)
        for offset in (0x80000000, 0xFFFFFFF8, 0xFFFFFFFC, 0xFFFFFFFF)
    },
    "pointer-in-0-bytes": (pointing(4, 0, data=b""), "ACPI_SCRIPT"),
    "checksum-offset-at-the-end": (summing(40, 0, 1), "ACPI_SCRIPT"),
    "checksum-offset-most": (summing(0xFFFFFFFF, 0, 1), "ACPI_SCRIPT"),
    "checksum-a-byte-past": (summing(0, 0, 41), "ACPI_SCRIPT"),
    "checksum-one-past": (summing(0, 40, 1), "ACPI_SCRIPT"),
    "checksum-nothing-past": (summing(0, 41, 0), "ACPI_SCRIPT"),
    "checksum-most-bytes": (summing(0, 0, 0xFFFFFFFF), "ACPI_SCRIPT"),
    "checksum-wraps": (summing(0, 1, 0xFFFFFFFF), "ACPI_SCRIPT"),
    "checksum-wraps-into-it": (summing(0, 0xFFFFFFF0, 0x20), "ACPI_SCRIPT"),
    "checksum-starts-most": (summing(0, 0xFFFFFFFF, 0), "ACPI_SCRIPT"),
    "no-script-123-entries": (with_host(123, None), "E820_COUNT"),
    "122-entries": (with_host(122), "E820_COUNT"),
    "123-entries": (with_host(123), "E820_COUNT"),
    "123-entries-without-initrd": (with_host(123)._replace(initrd=0), "E820_COUNT"),
}

# What only a firmware with DMA can do.
TOLD_WRONG = {
    **{f"size-{size}": (told(write_pointer(TARGET, TABLES, 0, 0, size)), "ACPI_SCRIPT") for size in (0, 9, 10, 16, 128, 255)},
    "src-offset-one-past": (told(write_pointer(TARGET, RSDP, 0, 36, 4)), "ACPI_SCRIPT"),
    "src-offset-most": (told(write_pointer(TARGET, RSDP, 0, 0xFFFFFFFF, 4)), "ACPI_SCRIPT"),
    "src-unknown": (told(write_pointer(TARGET, b"etc/none", 0, 0, 4)), "ACPI_FILE"),
    "src-without-memory": (told(write_pointer(TARGET, TARGET, 0, 0, 4)), "ACPI_FILE"),
    "dest-unknown": (told(write_pointer(b"etc/none", RSDP, 0, 0, 4)), "ACPI_FILE"),
    "dest-not-writable": (told(write_pointer(TABLES, RSDP, 0, 0, 4)), "FW_CFG_DMA"),
    "dst-offset-one-past": (told(write_pointer(TARGET, RSDP, 17, 0, 4)), "FW_CFG_DMA"),
    "dst-offset-most": (told(write_pointer(TARGET, RSDP, 0xFFFFFFFF, 0, 4)), "FW_CFG_DMA"),
}


@pytest.mark.parametrize(("case", "name"), WRONG.values(), ids=WRONG)
def test_a_wrong_script_is_a_named_panic(make, blob, case, name):
    assert require_model(case, make(case), blob) == name


SOME_WRONG = (
    "script-of-16-kib-and-a-byte",
    "align-0x0",
    "files-33",
    "allocate-unknown-of-300",
    "room-a-byte-too-few",
    "room-a-file-of-4-gib",
    "pointer-4-overflows-by-1",
    "pointer-8-at-0xfffffff8",
    "checksum-wraps-into-it",
    "123-entries",
)


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize(("case", "name"), [WRONG[name] for name in SOME_WRONG], ids=SOME_WRONG)
def test_some_wrong_ones_on_each_engine(engine_name, make, blob, case, name, dma):
    assert require_model(case, make(case, dma), blob, engine_name, dma=dma, dirty=True) == name


@pytest.mark.parametrize(("case", "name"), TOLD_WRONG.values(), ids=TOLD_WRONG)
def test_what_the_host_cannot_be_told(engine_name, make, blob, case, name):
    assert require_model(case, make(case), blob, engine_name) == name


COMMANDS = {**TOLD, **{f"wrong-{name}": case for name, (case, _) in TOLD_WRONG.items()}}


@pytest.mark.parametrize("case", COMMANDS.values(), ids=COMMANDS)
def test_without_dma_the_host_is_told_nothing(make, blob, case):
    case = case._replace(files={**case.files, **case.writable}, writable=None)
    assert isinstance(require_model(case, make(case, dma=False), blob, dma=False), Result)


def test_qemus_own_device_refuses_a_write(engine_name, make, blob):
    case = good(*BOTH, write_pointer(TABLES, RSDP, 0, 0, 8))
    assert require_model(case, make(case), blob, engine_name) == "FW_CFG_DMA"


def test_every_panic_of_the_table_loader_is_reached():
    reached = {name for _, name in (*WRONG.values(), *TOLD_WRONG.values())}
    assert reached == {"ACPI_SCRIPT", "ACPI_FILE", "ACPI_ROOM", "E820_COUNT", "FW_CFG_DMA"}


# And at random.

NAMES = [RSDP, TABLES, FLAT, LONG + b"x", TARGET]
NAME = st.sampled_from(NAMES * 4 + [b"etc/none", LONG + b"xy", b""])
OFFSET = st.sampled_from([0, 1, 8, 16, 36, 63, 64, 100, 1023, 2999, 3000, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 200)
LENGTH = st.sampled_from([0, 1, 4, 36, 255, 1024, 1025, 3000, 0xFFFFFFFF]) | st.integers(0, 200)
WIDTH = st.sampled_from([4, 8] * 6 + [0, 1, 2, 3, 5, 16, 255])
ALIGN = st.sampled_from([1, 16, 64, 4096] * 4 + [0, 2, 3, 0x10000, MIB, 32 * MIB, 1 << 31, 0xC0000000])
COMMAND = st.one_of(
    st.builds(allocate, NAME, ALIGN, st.sampled_from([1, 2, 0, 255])),
    st.builds(pointer, NAME, NAME, OFFSET, WIDTH),
    st.builds(checksum, NAME, OFFSET, OFFSET, LENGTH),
    st.builds(write_pointer, st.sampled_from([TARGET] * 9 + NAMES), NAME, st.integers(0, 24), OFFSET, st.integers(0, 9)),
    st.sampled_from([PADDING, *UNKNOWN]),
    st.binary(min_size=128, max_size=128),
)
TAME = st.one_of(
    st.builds(pointer, st.sampled_from(NAMES[:-1]), st.sampled_from(NAMES[:-1]), st.integers(0, 28), st.just(8)),
    st.builds(checksum, st.sampled_from(NAMES[:-1]), st.integers(0, 35), st.integers(0, 18), st.integers(0, 18)),
    st.builds(write_pointer, st.just(TARGET), st.sampled_from(NAMES[:-1]), st.integers(0, 12), OFFSET.map(lambda at: at % 36),
              st.integers(1, 8)),
    st.sampled_from([PADDING, *UNKNOWN]),
)  # fmt: skip


class Contents(bytes):
    """Of a file, shown in short where hypothesis shows an example."""

    def __repr__(self):
        return f"<{len(self)} bytes: {self[:2].hex()}...{self[-2:].hex()}>"


DATA = st.sampled_from([*map(Contents, (b"", b"\xff" * 36, bytes(36), BODY[:300], BODY[:1025], b"\xff" * 3000, BODY))])


@st.composite
def cases(draw):
    """One in two has only commands that are good, in memory that is enough."""
    tame = draw(st.booleans())
    files = {name: draw(DATA.filter(len) if tame else DATA) for name in NAMES[:-1]}
    aligns = st.sampled_from([1, 2, 16, 64, 4096, 0x10000, MIB]) if tame else ALIGN
    script = [allocate(name, draw(aligns)) for name in draw(st.permutations(NAMES[:-1]))] if tame or draw(st.booleans()) else []
    script += draw(st.lists(TAME if tame else COMMAND, max_size=12))
    if not draw(st.integers(0, 5)):
        script.append(draw(st.binary(max_size=127)))
    return Case(
        tuple(script),
        files,
        others=draw(st.sampled_from([0] * 6 + [36, 41])),
        e820=((0, draw(st.sampled_from([64 * MIB, 64 * MIB - 0x123])), RAM), *reserved(draw(st.sampled_from([0, 0, 2, 120])))),
        initrd=draw(st.sampled_from([0, 48 * MIB, 33 * MIB + 5, *([] if tame else [KERNEL_END, KERNEL_END + 0x4000, MIB])])),
        writable={TARGET: b"\xee" * 20},
    )


@settings(derandomize=True, max_examples=300, deadline=None)
@given(case=cases(), dma=st.sampled_from([True] * 7 + [False]), dirty=st.booleans())
def test_whatever_the_script_says(make, case, dma, dirty):
    """Ends as the model does, within a bound, and no store goes anywhere else."""
    if not dma:
        case = case._replace(files={**case.files, **case.writable}, writable=None)
    require_model(case, make(case, dma), make.blob, dma=dma, dirty=dirty, limits=Limits(instructions=3_000_000))
