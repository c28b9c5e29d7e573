"""A host that says what it likes, for the firmware under Unicorn: hypothesis draws what it says, and what comes of it is
judged.

Whatever fw_cfg holds, a firmware ends at the kernel's entry with all of it in order, or in a panic that has a name; it
writes nothing but what its manifest names, and RAM above 1 MiB where no kernel is; and it comes to an end.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.reasons import HALT
from pvhboot.loader.fw_cfg import fw_cfg_items, with_directory
from pvhboot.loader.image import BytesImage, SizedSource
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi.firmware import panic_message
from pvhboot.shim.image import asm_source, build, panics_of
from pvhboot.shim.machines import MACHINES, MIB, UNIVERSAL, MachineSpec
from stores import Stores

SPECS = ("microvm", "microvm-acpi", "pc", "q35")
MEMORY = 64 * MIB
KERNEL = 0x200000  # physical address
KERNEL_BYTES = 0x10000
INITRD_ADDR, INITRD_SIZE, CMDLINE_SIZE, CMDLINE_DATA, NB_CPUS = 0x0A, 0x0B, 0x14, 0x15, 0x05
KERNEL_ADDR, KERNEL_SIZE, KERNEL_ENTRY, KERNEL_DATA, SETUP_DATA, FILE_DIR = 0x07, 0x08, 0x10, 0x11, 0x18, 0x19
FIRST_FILE = 0x20
FIRMWARE_END = 0x28000  # below it the firmware works
MANY, MAX_FILES = 300, 0x3FE0
SCRIPT, TABLES, RSDP = b"etc/table-loader", b"etc/acpi/tables", b"etc/acpi/rsdp"
ANCHOR, SMBIOS = b"etc/smbios/smbios-anchor", b"etc/smbios/smbios-tables"
FILES = (SCRIPT, TABLES, RSDP, ANCHOR, SMBIOS, b"etc/e820")
LOCAL_APIC = range(0xFEE00000, 0xFEE01000)
# Each byte by port is an instruction; the longest of what is drawn here is a script with forty sums of 4 KiB.
BOUND = 1_000_000


class Zeros:
    """So many bytes, all of them 0."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read_into(self, offset: int, buffer: memoryview) -> None:  # noqa: ARG002 - a Source has it
        buffer[:] = bytes(len(buffer))


class Host(NamedTuple):
    """`numbers` are items of 32 bits by key, `items` other ones; `files` by name, None where there is none; `sizes` and `names`
    are what the directory says of some instead of the truth, `count` how many there are; `fault` is what DMA transfer number
    `fault_at` does: "error", "never", or "" nothing. `kind` is "pvh" or "bzimage"."""

    machine: str
    universal: bool
    dma: bool
    kind: str
    numbers: Mapping[int, int]
    items: Mapping[int, bytes | None]
    files: Mapping[bytes, bytes | None]
    sizes: Mapping[bytes, int]
    names: Mapping[bytes, bytes]
    others: int
    count: int | None
    fault: str
    fault_at: int


# What is drawn.

_edges = (0, 1, 0x27FFF, 0x28000, 0x9DFFF, 0xA0000, 0xFFFFF, 0x100000, KERNEL - 1, KERNEL, KERNEL + KERNEL_BYTES, MEMORY - 1)
_words = st.sampled_from((*_edges, MEMORY, 1 << 31, 0xB0000000, 0xFFFF0000, 0xFFFFFFFE, 0xFFFFFFFF)) | st.integers(
    0, 0xFFFFFFFF
)
_sizes = st.sampled_from((0, 1, 19, 20, 24, 31, 36, 127, 128, 4096, 16384, 16385, 32768, 1 << 31, (1 << 32) - 1))
_quads = st.sampled_from((0, 1, 0x9F000, 0xF0000, 0x100000, MEMORY, 0xC0000000, 0xFFFF0000, 1 << 32, 1 << 40, (1 << 64) - 1))


def _entries() -> st.SearchStrategy[bytes]:
    ram = st.just((0, MEMORY, 1))
    other = st.tuples(_quads | st.integers(MEMORY, 1 << 40), _quads | st.integers(0, 1 << 32), st.integers(0, 9))
    regular = st.builds(
        lambda at, size, kind: (at << 16, size << 12, kind), st.integers(0x1000, 0xFFFF), st.integers(0, 15), st.integers(2, 9)
    )
    lists = st.builds(
        lambda first, more, last: [*first, *more, *last],
        st.lists(regular | other, max_size=3),
        st.lists(ram, min_size=1, max_size=1) | st.lists(ram, max_size=2),
        st.lists(regular, max_size=40, unique_by=lambda entry: entry[0]) | st.lists(other, max_size=4),
    )
    many = st.builds(
        lambda count: [(0, MEMORY, 1), *(((0x10000 + at) << 16, 4096, 2) for at in range(count))],
        st.sampled_from((100, 120, 121, 122, 123, 500)),
    )
    packed = (lists | many | st.just([])).map(lambda entries: b"".join(struct.pack("<QQI", *entry) for entry in entries))
    return packed | packed.map(lambda data: data[:-1]) | packed.map(lambda data: data + b"\0")


def _script() -> st.SearchStrategy[bytes]:
    """Commands of the four kinds that there are, good ones likely; and others."""
    name = st.sampled_from((TABLES, RSDP, b"etc/none", b"x" * 56, TABLES + b"s", b"")).map(lambda text: text.ljust(56, b"\0"))
    offset = st.integers(0, 64) | st.sampled_from((4093, 4096, 0x7FFFFFFF, 0xFFFFFFFF))
    length = st.integers(0, 64) | st.sampled_from((4096, 0xFFFFFFFF))
    align = st.sampled_from((1, 16, 64, 4096, 0, 3, 1 << 31))
    command = st.one_of(
        st.builds(lambda file, by, zone: struct.pack("<I56sIB63x", 1, file, by, zone), name, align, st.integers(0, 3)),
        st.builds(
            lambda dest, src, at, size: struct.pack("<I56s56sIB7x", 2, dest, src, at, size),
            name,
            name,
            offset,
            st.sampled_from((1, 2, 4, 8, 0, 3, 255)),
        ),
        st.builds(
            lambda file, at, start, size: struct.pack("<I56sIII56x", 3, file, at, start, size), name, offset, offset, length
        ),
        st.builds(
            lambda dest, src, to, at, size: struct.pack("<I56s56sIIB3x", 4, dest, src, to, at, size),
            name,
            name,
            offset,
            offset,
            st.integers(0, 9),
        ),
        st.builds(lambda number, rest: struct.pack("<I", number) + rest * 124, _words, st.binary(min_size=1, max_size=1)),
    )
    both = b"".join(struct.pack("<I56sIB63x", 1, file.ljust(56, b"\0"), 16, 1) for file in (TABLES, RSDP))
    commands = st.lists(command, max_size=40).map(b"".join)
    return st.builds(lambda first, rest: first + rest, st.sampled_from((both, b"")), commands)


def _anchor() -> st.SearchStrategy[bytes]:
    start = st.sampled_from((b"_SM_", b"_SM3_", b"_DMI_", b""))
    return st.builds(lambda head, rest: head + rest, start, st.binary(max_size=40))


def _header(fields: tuple[Any, ...]) -> bytes:
    """The first 0x290 bytes of a bzImage."""
    magic, version, flags, jump, alignment, relocatable, data, preferred, size = fields
    setup = bytearray(b"\xee" * 0x290)
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x201] = jump
    setup[0x202:0x206] = magic
    struct.pack_into("<H", setup, 0x206, version)
    setup[0x211] = flags
    struct.pack_into("<IB", setup, 0x230, alignment, relocatable)
    struct.pack_into("<QQI", setup, 0x250, data, preferred, size)
    return bytes(setup)


_GOOD_HEADER = _header((b"HdrS", 0x20F, 1, 0x6A, 0x200000, 1, 0, 0x1000000, 0x800000))


def _setup() -> st.SearchStrategy[bytes]:
    return st.tuples(
        st.sampled_from((b"HdrS", b"HdrS", b"HdrS", b"HdrX")),
        st.sampled_from((0x20F, 0x20F, 0x20A, 0x209, 0x206, 0x205, 0, 0xFFFF)),
        st.sampled_from((1, 1, 0x81, 0)),
        st.sampled_from((0x6A, 0x6A, 0, 0xFF)),
        st.sampled_from((0x200000, 0x1000, 1, 0, 3, 1 << 31)),
        st.integers(0, 1),
        st.sampled_from((0, 0, KERNEL + 0x1000, 0x300000, MEMORY - 8, 0x9F000, 1 << 32, (1 << 64) - 1)),
        st.sampled_from((0x1000000, 0x1000000, 0x100000, 0, 0x27000, 1 << 32, (1 << 64) - 1)),
        st.sampled_from((0x800000, 0x800000, 0, 0x2000000, 0xFFFFFFFF)),
    ).map(_header)


def _some(keys: Iterable[Any], values: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[dict[Any, Any]]:
    return st.dictionaries(st.sampled_from(tuple(keys)), values, max_size=most)


def hosts() -> st.SearchStrategy[Host]:
    """Most are wrong in one or two things only: those get far."""
    nothing = st.just({})
    numbers = (KERNEL_ADDR, KERNEL_SIZE, CMDLINE_SIZE, INITRD_ADDR, INITRD_SIZE)
    files = st.one_of(
        nothing,
        st.fixed_dictionaries({b"etc/e820": _entries()}),
        st.fixed_dictionaries({SCRIPT: _script(), TABLES: st.binary(max_size=64).map(lambda data: data * 64)}),
        st.fixed_dictionaries({ANCHOR: _anchor()}),
        _some(FILES, st.none() | st.binary(max_size=64)),
    )
    return st.builds(
        Host,
        machine=st.sampled_from(SPECS),
        universal=st.booleans(),
        dma=st.sampled_from((True, True, False)),
        kind=st.sampled_from(("pvh", "pvh", "bzimage")),
        numbers=nothing | nothing | _some(numbers, _words) | _some((NB_CPUS,), st.sampled_from((0, 2, 255, 256, 65535))),
        items=st.one_of(
            nothing,
            nothing,
            nothing,
            _some((CMDLINE_DATA, KERNEL_DATA, FILE_DIR, 0), st.none() | st.binary(max_size=70)),
            st.fixed_dictionaries({SETUP_DATA: _setup()}),
        ),
        files=files,
        sizes=nothing | nothing | nothing | _some(FILES, _sizes),
        names=nothing
        | nothing
        | nothing
        | _some(FILES, st.binary(min_size=56, max_size=56) | st.just(b"etc/e820" + b"x" * 48)),
        others=st.sampled_from((0, 0, 0, 30, MANY)),
        count=st.sampled_from((None, None, None, None, 0, 1, 5, 41, MANY, 0x3FDF, 0x3FE0, 0x3FE1, 1 << 31, (1 << 32) - 1)),
        fault=st.sampled_from(("", "", "", "error", "never")),
        fault_at=st.integers(0, 20),
    ).map(_in_reason)


def _in_reason(host: Host) -> Host:
    """By port each byte is an instruction, and each look for a file among 16352 takes a million: too long to watch."""
    if host.dma:
        return host
    sizes = {key: KERNEL_BYTES for key in (KERNEL_SIZE, INITRD_SIZE) if KERNEL_BYTES < host.numbers.get(key, 0) <= MEMORY}
    absurd = host.count is not None and MANY < host.count <= MAX_FILES
    return host._replace(numbers={**host.numbers, **sizes}, count=MANY if absurd else host.count)


# What comes of it.


class Judge:
    """Firmwares, built once, with less patience for a host that does not answer; and a plan for each machine."""

    def __init__(self, kernel: Kernel, initrd: str) -> None:
        patience = {"fw_cfg_read.s": "FW_CFG_DMA_POLLS", "cpus.s": "CPU_POLLS"}
        self._roms = {}
        for name in (*SPECS, UNIVERSAL.name):
            spec = MACHINES.get(name, UNIVERSAL)
            sources = {file: asm_source(file).replace(f"ecx, {word}", "ecx, 16") for file, word in patience.items()}
            if not spec.mp_table:
                del sources["cpus.s"]
            self._roms[name] = build(spec, sources=sources).data
        self._kernel, self._initrd = kernel, initrd

    def plan(self, host: Host) -> tuple[BootPlan, MachineSpec]:
        """What an honest host would boot, and the machine that the firmware is for."""
        spec = MACHINES[host.machine]
        firmware = UNIVERSAL if host.universal else spec
        rom = self._roms[firmware.name]
        modules = [Module(self._initrd)]
        plan = make_plan(spec, rom, self._kernel, memory=MEMORY, modules=modules, cmdline="a b", dma=host.dma)
        return plan, firmware

    def require(self, host: Host) -> str:
        """Runs the firmware in such a host; how it ended. AssertionError for what must not be."""
        plan, firmware = self.plan(host)
        board = Board(plan, fw_cfg_items=_items(host, plan))
        machine = UnicornCpu(board, Limits(instructions=BOUND, seconds=120))
        writes = Stores()
        if host.fault and host.dma:
            _fail_transfer(board, host)
        target = int.from_bytes(_number(host, KERNEL_ADDR), "little") if host.kind == "bzimage" else plan.entry
        try:
            with machine.watch(writes.start(machine, board)):
                reached = machine.run_to({target})
            _require_writes(host, plan, firmware, writes)
            if not reached:
                return _require_panic(board, machine, firmware)
            if host.kind == "bzimage":
                return _require_linux(machine, board)
            return _require_boot(host, plan, machine)
        finally:
            machine.let_go()


def _number(host: Host, key: int) -> bytes:
    usual = {KERNEL_ADDR: KERNEL, KERNEL_SIZE: KERNEL_BYTES, CMDLINE_SIZE: 4, NB_CPUS: 1}
    return host.numbers.get(key, usual.get(key, 0)).to_bytes(4, "little")


def _items(host: Host, plan: BootPlan) -> dict[int, SizedSource]:
    items = dict(fw_cfg_items(plan))
    named = _names(items)
    files: dict[bytes, SizedSource] = {name: items[key] for name, key in named.items()}
    for name, data in host.files.items():
        files.pop(name, None)
        if data is not None:
            files[name] = BytesImage(data)
    files |= {b"opt/%03d" % number: BytesImage(b"?") for number in range(host.others)}
    items = {key: item for key, item in items.items() if key not in named.values()} | with_directory(files)
    directory = bytearray(items[FILE_DIR].size)
    items[FILE_DIR].read_into(0, memoryview(directory))
    for name, key in _names(items).items():
        at = 4 + 64 * (key - FIRST_FILE)
        if name in host.sizes:
            struct.pack_into(">I", directory, at, host.sizes[name])
            items[key] = Zeros(host.sizes[name]) if host.sizes[name] > items[key].size else items[key]
        if name in host.names:
            directory[at + 8 : at + 64] = host.names[name]
    if host.count is not None:
        directory[:4] = host.count.to_bytes(4, "big")
    items[FILE_DIR] = BytesImage(bytes(directory))
    for key, value in host.numbers.items():
        items[key] = BytesImage(value.to_bytes(4, "little"))
    if host.kind == "bzimage":
        items[KERNEL_ENTRY] = BytesImage(bytes(4))
        items[SETUP_DATA] = BytesImage(_GOOD_HEADER)
        items[KERNEL_DATA] = BytesImage(b"\xf4" * KERNEL_BYTES)
    for key, data in host.items.items():
        if data is None:
            items.pop(key, None)
        else:
            items[key] = BytesImage(data)
    return items


def _names(items: Mapping[int, SizedSource]) -> dict[bytes, int]:
    """The directory: keys by name."""
    directory = bytearray(items[FILE_DIR].size)
    items[FILE_DIR].read_into(0, memoryview(directory))
    names = {}
    for at in range(4, len(directory), 64):
        _size, key, _reserved, name = struct.unpack_from(">IHH56s", directory, at)
        names[name.rstrip(b"\0")] = key
    return names


def _fail_transfer(board: Board, host: Host) -> None:
    """DMA transfer number `fault_at` of this board's fw_cfg ends in an error, or never."""
    ports = board.bus._ports[0x514].device
    execute: Callable[[int], None] = ports._execute  # type: ignore[attr-defined]
    done = 0

    def faulty(paddr: int) -> None:
        nonlocal done
        done += 1
        if done - 1 != host.fault_at:
            execute(paddr)
        elif host.fault == "error":
            with board.memory.writing(paddr, 4) as word:
                word[:] = b"\0\0\0\1"

    ports._execute = faulty  # type: ignore[attr-defined]


def _require_writes(host: Host, plan: BootPlan, firmware: MachineSpec, writes: list[tuple[int, int]]) -> None:
    """Nothing but the firmware's own places, RAM above 1 MiB and the local APIC was written; and no kernel of which the host
    says where it is."""
    own = firmware.low.spans()
    kernel, kernel_size = (int.from_bytes(_number(host, key), "little") for key in (KERNEL_ADDR, KERNEL_SIZE))
    kernel_end = min(kernel + kernel_size, plan.ram[0].end)
    told = host.kind == "pvh" and not {KERNEL_ADDR, KERNEL_SIZE} & host.numbers.keys()
    for paddr, size in writes:
        if any(span.start <= paddr and paddr + size <= span.end for span in own) or paddr in LOCAL_APIC:
            continue
        if host.kind == "bzimage" and FIRMWARE_END <= kernel <= paddr and paddr + size <= kernel_end:
            continue  # a kernel may lie there, if the host says so
        assert paddr >= MIB, f"{size} bytes at {paddr:#x} were written, which is nobody's"
        assert paddr + size <= MEMORY, f"{size} bytes at {paddr:#x} were written, which is no RAM"
        if told:
            for segment in plan.kernel.segments:
                assert paddr + size <= segment.paddr or segment.end <= paddr, f"the kernel was written to at {paddr:#x}"


def _require_panic(board: Board, machine: UnicornCpu, firmware: MachineSpec) -> str:
    said = board.debug_console.decode()
    names = {panic_message(panic) + "\n": panic.name for panic in panics_of(firmware)}
    assert machine.stop is not None
    assert (machine.stop.reason, said in names) == (HALT, True), f"{machine.stop}: {said!r}"
    return names[said]


def _require_linux(machine: UnicornCpu, board: Board) -> str:
    registers = machine.registers()
    assert (registers["ebp"], registers["edi"], registers["ebx"]) == (0, 0, 0)
    params = board.memory.read(registers["esi"], 4096)
    assert params[0x202:0x206] == b"HdrS"
    count = params[0x1E8]
    entries = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * at) for at in range(count)]
    assert 1 <= count <= 128
    assert all(before[0] + before[1] <= after[0] for before, after in pairwise(entries))
    return "linux"


def _require_boot(host: Host, plan: BootPlan, machine: UnicornCpu) -> str:
    """What the host has not touched is as planned; all of it is in order in itself."""
    handoff = machine.handoff()._replace(host_acpi=False)
    findings = check(handoff, plan._replace(memmap=None))
    excused = set()
    if host.numbers or host.items or host.kind != "pvh":
        excused |= {"modules.list", "modules.entries", "cmdline", "memory.payload", "memory.disjoint"}
    if host.files or host.names or host.sizes or host.count is not None:
        excused |= {"memmap.ram", "memmap.entries", "memmap.count", "acpi.tables"}  # types that nobody knows, handed on
    if host.numbers.get(NB_CPUS, 1) > 1:
        excused |= {"memmap.ram"}
    wrong = [finding for finding in findings if finding.status == VIOLATED and finding.clause not in excused]
    assert not wrong, wrong
    return "boot"
