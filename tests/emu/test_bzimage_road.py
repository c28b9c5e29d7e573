"""The firmware's road for a bzImage (Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"): what the kernel finds at
its 32-bit entry, where its setup_data has gone, and by which name the firmware panics where a setup header says what cannot be.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from forge_bzimage import setup_part
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import DirtyPlan
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import HALT, HANDOFF
from pvhboot.emu.session import get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.fw_cfg import fw_cfg_items, with_directory
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.firmware import PANICS, panic_message
from pvhboot.shim.image import build
from pvhboot.shim.machines import GIB, MACHINES, MIB, MICROVM, MICROVM_ACPI, PC, Q35
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob
from stores import Stores
from tiny import kernel_image

KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_ENTRY, KERNEL_DATA, CMDLINE_SIZE, SETUP_SIZE, SETUP_DATA = 0x10, 0x11, 0x14, 0x17, 0x18
LOAD = MIB  # where a bzImage is loaded
SIZE = 5003
INITRD = bytes(range(1, 251)) * 3
PLANNED = 60 * MIB  # the ELF kernel of the plan lies there: out of the way, and never entered
BOOT_PARAMS, MEMMAP, MOVED, FIRMWARE_END = 0x4000, 0x7000, 0x10000, 0x28000
SPAN_WORDS = 0x1038  # the firmware's own: where the kernel begins, and how many bytes it takes


def protected_mode_part(size):
    """No two pieces of it are the same."""
    return b"".join(struct.pack("<I", at * 2654435761 % (1 << 32)) for at in range(size // 4 + 1))[:size]


class Case(NamedTuple):
    """What fw_cfg says of the kernel. `setup`: fields of the header. `size`: of the protected-mode part, `told` what fw_cfg
    says of it instead. `initrd`: its address; None as the plan has it, 0 for none. `span`: [start, end) that the firmware is to
    keep free, None as loaded."""

    setup: Mapping = {}
    addr: int = LOAD
    size: int = SIZE
    told: int | None = None
    memory: int = 64 * MIB
    initrd: int | None = None
    cmdline: str | None = "a line"
    span: tuple | None = None
    others: Mapping = {}

    @property
    def header(self):
        return setup_part(**self.setup)

    def items(self, plan):
        kernel = self.others.get("kernel", protected_mode_part(self.size))
        numbers = {KERNEL_ENTRY: 0, KERNEL_ADDR: self.addr, KERNEL_SIZE: len(kernel) if self.told is None else self.told}
        numbers[SETUP_SIZE] = len(self.header)
        if self.initrd == 0:
            numbers[INITRD_SIZE] = 0
        elif self.initrd is not None:
            numbers[INITRD_ADDR] = self.initrd
        if self.cmdline is None:
            numbers[CMDLINE_SIZE] = 0
        return {
            **fw_cfg_items(plan),
            **{key: BytesImage(struct.pack("<I", number)) for key, number in numbers.items()},
            KERNEL_DATA: BytesImage(kernel),
            SETUP_DATA: BytesImage(self.header),
        }


class Seen(NamedTuple):
    """How a run ended, and the machine at the kernel's entry: its Handoff, and what memory held then. `stores`: address and
    size of each, of the firmware and of devices (Unicorn)."""

    board: Board
    stop: object
    handoff: object
    params: bytes
    memmap: bytes
    span: tuple
    kernel: bytes
    stores: list


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes the plan of a case, for a machine."""
    path = tmp_path_factory.mktemp("bzimage") / "initrd"
    path.write_bytes(INITRD)
    image = kernel_image(paddr=PLANNED)

    def plan(case, spec=MICROVM, dma=True, blob=None):
        kernel = Kernel.from_bytes(image, "kernel")
        rom = (blob or default_blob(spec)).data
        modules = [Module(str(path))]
        return make_plan(spec, rom, kernel, memory=case.memory, modules=modules, cmdline=case.cmdline, dma=dma)

    return plan


def run(case, plan, engine="unicorn", *, dirty=False, before=None, limits=None):
    """From the reset to the kernel's 32-bit entry. `before`: what is put into memory before, by address."""
    limits = limits or Limits(seconds=20.0)
    memory = (DirtyPlan.of(plan) if dirty else plan).memory()
    for paddr, data in (before or {}).items():
        memory.view(paddr, len(data))[:] = data
    board = Board(plan, memory, fw_cfg_items=case.items(plan))
    board.entry = case.addr
    stores, seen = Stores(), []

    def on_handoff(handoff):
        read = handoff.memory.read
        start, size = struct.unpack("<II", read(SPAN_WORDS, 8))
        kernel = read(case.addr, len(case.others.get("kernel", bytes(case.size))))
        seen.extend([handoff, read(BOOT_PARAMS, 4096), read(MEMMAP, 126 * 24), (start, start + size), kernel])

    watchers = [stores] if engine == "unicorn" else []
    stop = get_engine(engine).run(board, Until(HANDOFF), limits, on_handoff, watchers).stop
    return Seen(board, stop, *(seen or (None, b"", b"", (), b"")), stores)


def require_no_stray_store(seen, case, spec=MICROVM):
    """The firmware's own memory, the kernel's and the initrd's; what is put elsewhere is for those that know."""
    items = case.items(seen.board.plan)
    places = [span.bounds for span in spec.low.spans()]
    for addr, size in ((KERNEL_ADDR, KERNEL_SIZE), (INITRD_ADDR, INITRD_SIZE)):
        start, count = (int.from_bytes(items[key].read(0, 4), "little") for key in (addr, size))
        places.append((start, start + count))
    stray = [store for store in set(seen.stores) if not any(low <= store[0] and sum(store) <= high for low, high in places)]
    assert not stray


def expected_params(case, plan, header=None):
    """boot_params as the protocol wants it: zeros, the header, and what the loader writes."""
    header = bytearray(header or case.header)
    params = bytearray(4096)
    end = min(0x202 + header[0x201], 0x290)
    params[0x1F1:end] = header[0x1F1:end]
    params[0x210] = 0xFF
    struct.pack_into("<I", params, 0x228, 0x4FFF if case.cmdline is None else 0x20000)
    initrd = 0 if case.initrd == 0 else case.initrd or plan.modules[0].paddr
    struct.pack_into("<II", params, 0x218, initrd, len(INITRD) if initrd else 0)
    params[0x1E8] = len(plan.memmap)
    for number, entry in enumerate(plan.memmap):
        struct.pack_into("<QQI", params, 0x2D0 + 20 * number, *entry)
    return bytes(params)


def require_boot(case, plan, engine="unicorn", *, dirty=False):
    seen = run(case, plan, engine, dirty=dirty)
    assert seen.board.debug_console == b""
    assert seen.stop.reason == HANDOFF
    require_state(seen)
    assert seen.params == expected_params(case, plan)
    assert [struct.unpack_from("<QQII", seen.memmap, 24 * at) for at in range(len(plan.memmap))] == [
        (*entry, 0) for entry in plan.memmap
    ]
    assert seen.kernel == protected_mode_part(case.size)
    assert seen.span == (case.span or (case.addr, case.addr + case.size))
    if case.cmdline is not None:
        assert seen.handoff.memory.read(0x20000, 7) == b"a line\0"
    if case.initrd != 0:
        assert seen.handoff.memory.read(case.initrd or plan.modules[0].paddr, len(INITRD)) == INITRD
    if engine == "unicorn":
        require_no_stray_store(seen, case)


FLAT = (0, 0xFFFFFFFF)


def require_state(seen):
    """boot.rst: flat segments by selectors that are fixed, paging and interrupts off, boot_params in esi, three registers 0."""
    registers, segments = seen.handoff.registers, seen.handoff.segments
    assert {name: registers[name] for name in ("esi", "ebx", "ebp", "edi")} == {"esi": 0x4000, "ebx": 0, "ebp": 0, "edi": 0}
    assert {name: segments[name].selector for name in ("cs", "ds", "es", "ss")} == {
        "cs": 0x10,
        "ds": 0x18,
        "es": 0x18,
        "ss": 0x18,
    }
    assert {(segment.base, segment.limit) for name, segment in segments.items() if name in ("cs", "ds", "es", "ss")} == {FLAT}
    assert segments["cs"].db
    assert not segments["cs"].long
    assert (registers["cr0"] & 0x80000001, registers["cr4"]) == (1, 0)
    assert registers["eflags"] & 0x200 == 0
    assert registers["gdtr_base"] == 0x1000
    gdt = seen.handoff.memory.read(registers["gdtr_base"] + 0x10, 16)
    assert struct.unpack("<QQ", gdt) == (0x00CF9B000000FFFF, 0x00CF93000000FFFF)


# What boots.

PREF, INIT = 0x1000000, 0x1800000
AT_PREF = (LOAD, PREF + INIT)  # all that the kernel needs, from where it is loaded to where it ends
OLD = {"protocol": 0x209, "pref_address": 1 << 40, "init_size": 0xFFFFFFFF}  # fields that this protocol does not have
ABOVE = {"pref_address": MIB, "init_size": 0x300000}  # loaded above the preferred address

GOOD = {
    "as-usual": Case(span=AT_PREF),
    "5-gib": Case(span=AT_PREF, memory=5 * GIB),
    "no-initrd": Case(span=AT_PREF, initrd=0),
    "no-cmdline": Case(span=AT_PREF, cmdline=None),
    "protocol-2.06": Case({"protocol": 0x206, "jump": 0x3A}),
    "protocol-2.09": Case(OLD),
    "protocol-2.10": Case({"protocol": 0x20A}, span=AT_PREF),
    "protocol-most": Case({"protocol": 0xFFFF}, span=AT_PREF),
    # Where the header ends.
    "header-up-to-init-size": Case({"jump": 0x62}, span=AT_PREF),
    "header-without-init-size": Case({"jump": 0x5E}, span=(LOAD, PREF)),
    "header-of-2.06": Case({"jump": 0x3A}, span=(LOAD, 0x200000)),
    "header-a-byte-short": Case({"jump": 0x8D}, span=AT_PREF),
    "header-as-long-as-can-be": Case({"jump": 0x8E}, span=AT_PREF),
    "header-a-byte-too-long": Case({"jump": 0x8F}, span=AT_PREF),
    "header-most-bytes": Case({"jump": 0xFF}, span=AT_PREF),
    "loadflags": Case({"loadflags": 0xFF}, span=AT_PREF),
    # Where it unpacks itself.
    "not-relocatable": Case({"relocatable": 0}, span=AT_PREF),
    "not-relocatable-and-above": Case({"relocatable": 0, **ABOVE}, addr=0x900000, span=(MIB, 0x900000 + SIZE)),
    "at-pref": Case(addr=PREF, span=(PREF, PREF + INIT)),
    "a-byte-above-pref": Case(addr=PREF + 1, span=(PREF + 1, PREF + 0x200000 + INIT)),
    "above-and-aligned": Case(ABOVE, addr=0x800000, span=(0x800000, 0xB00000)),
    "above-and-a-byte-too-high": Case(ABOVE, addr=0x800001, span=(0x800001, 0xD00000)),
    "above-and-a-byte-too-low": Case(ABOVE, addr=0x7FFFFF, span=(0x7FFFFF, 0xB00000)),
    "above-and-aligned-to-1": Case({**ABOVE, "alignment": 1}, addr=0x812345, span=(0x812345, 0xB12345)),
    "above-and-aligned-to-16-mib": Case({**ABOVE, "alignment": 16 * MIB}, addr=0x812345, span=(0x812345, 0x1300000)),
    "init-size-0": Case({"init_size": 0}, span=(LOAD, PREF)),
    "init-size-less-than-the-kernel": Case({**ABOVE, "init_size": SIZE - 1}),
    "init-size-as-the-kernel": Case({**ABOVE, "init_size": SIZE}),
    "init-size-a-byte-more": Case({**ABOVE, "init_size": SIZE + 1}, span=(LOAD, LOAD + SIZE + 1)),
    "init-up-to-the-end-of-ram": Case({"init_size": 48 * MIB}, initrd=0, span=(LOAD, 64 * MIB)),
    "init-up-to-the-initrd": Case({"init_size": 40 * MIB}, initrd=56 * MIB, span=(LOAD, 56 * MIB)),
    "initrd-before-the-kernel": Case(ABOVE, addr=0x800000, initrd=0x800000 - len(INITRD), span=(0x800000, 0xB00000)),
    # Where it is loaded.
    "load-at-2-mib": Case(addr=2 * MIB, span=(2 * MIB, PREF + INIT)),
    "load-where-the-firmwares-data-end": Case({"protocol": 0x209}, addr=FIRMWARE_END),
    "load-up-to-the-end-of-ram": Case({"protocol": 0x209}, addr=64 * MIB - SIZE, initrd=MIB),
    "a-byte": Case({"protocol": 0x209}, size=1),
    "3-mib": Case(size=3 * MIB + 1, span=AT_PREF),
}


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_what_boots(make, case, dma):
    if case.size > MIB and not dma:
        case = case._replace(size=0x18001)  # a byte at a time takes its time
    require_boot(case, make(case, dma=dma))


SOME = ("as-usual", "5-gib", "no-initrd", "header-most-bytes", "above-and-a-byte-too-high", "3-mib")


@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
@pytest.mark.parametrize("case", [GOOD[name] for name in SOME], ids=SOME)
def test_some_on_each_engine_and_with_anything_in_low_ram(engine_name, make, case, dirty):
    require_boot(case, make(case), engine_name, dirty=dirty)


def test_the_map_of_122_entries(make):
    """With what the firmware adds, 125: they fit into boot_params."""
    entries = [(0, 64 * MIB, 1), *((0xD0000000 + 0x2000 * at, 0x1000, 2) for at in range(121))]
    data = b"".join(struct.pack("<QQI", *entry) for entry in entries)
    case = Case(span=AT_PREF)
    plan = make(case)
    items = {**case.items(plan), **with_directory({b"etc/e820": BytesImage(data)})}
    board = Board(plan, plan.memory(), fw_cfg_items=items)
    board.entry = case.addr
    seen = []
    get_engine("unicorn").run(board, Until(HANDOFF), Limits(), lambda handoff: seen.append(handoff.memory.read(0x4000, 4096)))
    (params,) = seen
    assert params[0x1E8] == 125
    table = [struct.unpack_from("<QQI", params, 0x2D0 + 20 * at) for at in range(125)]
    added = [(0, 0xF0000, 1), (0xF0000, 0x10000, 2), (MIB, 63 * MIB, 1), (0xFFFF0000, 0x10000, 2)]
    assert table == sorted([*added, *entries[1:]])
    assert not any(params[0x2D0 + 20 * 125 :])


@pytest.mark.parametrize("spec", [spec for spec in MACHINES.values() if spec.source == "fw_cfg"], ids=lambda spec: spec.name)
def test_on_each_machine(engine_name, make, spec):
    """The same map and the same RSDP as a PVH kernel is told of."""
    case = Case(span=AT_PREF)
    plan = make(case, spec)
    board = Board(plan, plan.memory())
    told = []

    def on_pvh(handoff):
        tables = read_tables(handoff)
        told.extend([[tuple(entry)[:3] for entry in tables.memmap], tables.start_info.rsdp_paddr])

    get_engine(engine_name).run(board, Until(HANDOFF), Limits(seconds=20.0), on_pvh)
    items = {**fw_cfg_items(plan), **{key: case.items(plan)[key] for key in ITEMS}}
    board = Board(plan, plan.memory(), fw_cfg_items=items)
    board.entry = case.addr
    seen = []

    def on_linux(handoff):
        seen.append(Seen(board, None, handoff, handoff.memory.read(BOOT_PARAMS, 4096), b"", (), b"", []))
        require_state(seen[0])

    get_engine(engine_name).run(board, Until(HANDOFF), Limits(seconds=20.0), on_linux)
    ((_, _, _, params, *_),) = seen
    count, (rsdp,) = params[0x1E8], struct.unpack_from("<Q", params, 0x70)
    assert [[struct.unpack_from("<QQI", params, 0x2D0 + 20 * at) for at in range(count)], rsdp] == told
    assert (rsdp != 0) == (spec in (MICROVM_ACPI, PC, Q35))


ITEMS = (KERNEL_ENTRY, KERNEL_ADDR, KERNEL_SIZE, KERNEL_DATA, SETUP_DATA, SETUP_SIZE)


def test_a_stage_runs_on_this_road_too(make):
    blob = build(
        MICROVM, [make_stage("before-handoff", "my.s", "# Clobbers: memory 0x9000-0x9004\nmov dword ptr [0x9000], 7\nret\n")]
    )
    case = Case(span=AT_PREF)
    seen = run(case, make(case, blob=blob))
    assert seen.stop.reason == HANDOFF
    assert seen.handoff.memory.read(0x9000, 4) == b"\7\0\0\0"


@pytest.mark.parametrize(("protocol", "mark"), [(0x20F, 2), (None, 4)], ids=["bzimage", "pvh"])
def test_a_build_with_marks_tells_the_roads_apart(make, protocol, mark):
    case = Case(span=AT_PREF)
    plan = make(case, blob=build(MICROVM, marks=True))
    board = Board(plan, plan.memory(), fw_cfg_items=case.items(plan) if protocol else None)
    board.entry = case.addr if protocol else plan.entry
    run_ = get_engine("unicorn").run(board, Until(HANDOFF), Limits(), lambda _: None)
    assert run_.stop.reason == HANDOFF
    assert [(one.address, one.size, one.value) for one in board.bus.log if one.address in (0xF4, 0xF5)] == [
        (0xF5, 1, 1),
        (0xF4, 1, mark),
    ]


# What does not.

END = 64 * MIB
WRONG = {
    "no-magic": (Case({"magic": b"HdrT"}), "NO_KERNEL"),
    "no-magic-but-its-end": (Case({"magic": b"\0drS"}), "NO_KERNEL"),
    "protocol-2.05": (Case({"protocol": 0x205}), "BOOT_PROTOCOL"),
    "protocol-0": (Case({"protocol": 0}), "BOOT_PROTOCOL"),
    "zimage": (Case({"loadflags": 0}), "BOOT_PROTOCOL"),
    "zimage-with-other-flags": (Case({"loadflags": 0xFE}), "BOOT_PROTOCOL"),
    "header-shorter-than-that-of-2.06": (Case({"jump": 0x39}), "BOOT_PROTOCOL"),
    "header-of-0-bytes": (Case({"jump": 0}), "BOOT_PROTOCOL"),
    # Where it is loaded.
    "load-at-0": (Case(addr=0), "KERNEL_RAM"),
    "load-a-byte-too-low": (Case({"protocol": 0x209}, addr=FIRMWARE_END - 1), "KERNEL_RAM"),
    "load-over-the-low-rom": (Case(addr=0xF0000 - SIZE + 1), "KERNEL_RAM"),
    "load-across-1-mib": (Case(addr=MIB - 1), "KERNEL_RAM"),
    "load-a-byte-past-ram": (Case({"protocol": 0x209}, addr=END - SIZE + 1), "KERNEL_RAM"),
    "load-behind-ram": (Case({"protocol": 0x209}, addr=END), "KERNEL_RAM"),
    "load-in-the-rom": (Case({"protocol": 0x209}, addr=0xFFFF0000), "KERNEL_RAM"),
    "0-bytes": (Case({"protocol": 0x209}, told=0), "KERNEL_RAM"),
    "most-bytes": (Case({"protocol": 0x209}, told=0xFFFFFFFF), "KERNEL_RAM"),
    "wraps": (Case({"protocol": 0x209}, told=0xFFFFFFFF - LOAD + 2), "KERNEL_RAM"),
    # Where it unpacks itself.
    "init-a-byte-past-ram": (Case({"init_size": 48 * MIB + 1}), "KERNEL_RAM"),
    "init-most-bytes": (Case({"init_size": 0xFFFFFFFF}), "KERNEL_RAM"),
    "init-wraps-to-0": (Case({"init_size": 0xFF000000}), "KERNEL_RAM"),
    "init-wraps": (Case({"init_size": 0xFF000001}), "KERNEL_RAM"),
    "pref-at-4-gib": (Case({"pref_address": 1 << 32}), "KERNEL_RAM"),
    "pref-most": (Case({"pref_address": (1 << 64) - 1}), "KERNEL_RAM"),
    "pref-behind-ram": (Case({"pref_address": END, "init_size": 1}), "KERNEL_RAM"),
    "pref-at-the-end-of-4-gib": (Case({"pref_address": 0xFFFFFFFF, "init_size": 1}), "KERNEL_RAM"),
    "pref-below-1-mib": (Case({"relocatable": 0, "pref_address": FIRMWARE_END}), "KERNEL_RAM"),
    "pref-at-0": (Case({"relocatable": 0, "pref_address": 0}), "KERNEL_RAM"),
    "pref-a-byte-too-low": (
        Case({"relocatable": 0, "pref_address": FIRMWARE_END - 1, "init_size": 1}, addr=FIRMWARE_END),
        "KERNEL_RAM",
    ),
    "alignment-0": (Case({**ABOVE, "alignment": 0}, addr=0x800000), "KERNEL_RAM"),
    "alignment-most": (Case({**ABOVE, "alignment": 0xFFFFFFFF}, addr=0x800000), "KERNEL_RAM"),
    "alignment-of-2-gib": (Case({**ABOVE, "alignment": 1 << 31}, addr=0x800000), "KERNEL_RAM"),
    # The initrd lies beside all that the kernel needs.
    "initrd-over-the-kernel": (Case(initrd=LOAD + SIZE - 1), "INITRD_KERNEL"),
    "initrd-between-load-and-pref": (Case(initrd=8 * MIB), "INITRD_KERNEL"),
    "initrd-over-the-last-byte-of-init": (Case(initrd=PREF + INIT - 1), "INITRD_KERNEL"),
    "initrd-over-the-first-byte": (Case(ABOVE, addr=0x800000, initrd=0x800001 - len(INITRD)), "INITRD_KERNEL"),
}


def require_panic(seen, name):
    panic = next(panic for panic in PANICS if panic.name == name)
    assert seen.board.debug_console.decode() == panic_message(panic) + "\n"
    assert seen.board.post_codes == [panic.code]
    assert (seen.stop.reason, seen.handoff) == (HALT, None)
    assert default_blob(MICROVM).locate(seen.stop.rip).symbol == "panic_halt"


@pytest.mark.parametrize(("case", "name"), WRONG.values(), ids=WRONG)
def test_what_does_not_boot_is_a_named_panic(make, case, name):
    seen = run(case, make(case))
    require_panic(seen, name)
    require_no_stray_store(seen, case)


SOME_WRONG = ("no-magic", "protocol-2.05", "load-in-the-rom", "init-wraps", "initrd-over-the-last-byte-of-init")


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize(("case", "name"), [WRONG[name] for name in SOME_WRONG], ids=SOME_WRONG)
def test_some_wrong_ones_on_each_engine(engine_name, make, case, name, dma):
    require_panic(run(case, make(case, dma=dma), engine_name, dirty=True), name)


def test_neither_a_pvh_kernel_nor_a_setup_header(make):
    """-kernel was not given: fw_cfg has none of the items."""
    plan = make(Case())
    items = {key: item for key, item in fw_cfg_items(plan).items() if key not in (KERNEL_ENTRY, KERNEL_ADDR, KERNEL_SIZE)}
    board = Board(plan, plan.memory(), fw_cfg_items={**items, SETUP_DATA: BytesImage(b"")})
    stop = get_engine("unicorn").run(board, Until(HANDOFF), Limits(), lambda _: None).stop
    require_panic(Seen(board, stop, None, b"", b"", (), b"", []), "NO_KERNEL")


# setup_data. A piece is (address, type, bytes); the kernel's own part is loaded around those that lie in it.

INSIDE, OUTSIDE = LOAD + 0x1000, 56 * MIB  # within what the kernel needs, and behind it


def piece(following, kind, data):
    return struct.pack("<QII", following, kind, len(data)) + data


def chain(*pieces, size=0x40000):
    """A case whose kernel is so large, with these pieces where they are said to be: in the kernel's own bytes, or (outside of
    those) in memory."""
    kernel, before = bytearray(protected_mode_part(size)), {}
    for (addr, kind, data), following in zip(pieces, [*(piece[0] for piece in pieces), 0][1:], strict=True):
        packed = piece(following, kind, data)
        if addr >= LOAD and addr + len(packed) <= LOAD + size:
            kernel[addr - LOAD : addr - LOAD + len(packed)] = packed
        else:
            before[addr] = packed
    first = pieces[0][0] if pieces else 0
    case = Case({"setup_data": first}, size=size, initrd=0, span=AT_PREF, others={"kernel": bytes(kernel)})
    return case, before


def walked(memory, first):
    """The chain as the kernel walks it."""
    found, at = [], first
    while at:
        following, kind, size = struct.unpack("<QII", memory.read(at, 16))
        found.append((at, kind, memory.read(at + 16, size)))
        at = following
        assert len(found) <= 100
    return found


DATA = bytes(range(1, 100))
# Pieces, and where each is afterwards.
CHAINS = {
    "none": ((), []),
    "inside": (((INSIDE, 2, DATA),), [MOVED]),
    "inside-and-empty": (((INSIDE, 9, b""),), [MOVED]),
    "inside-at-an-odd-address": (((INSIDE + 3, 9, DATA),), [MOVED]),
    "inside-two": (((INSIDE, 2, DATA), (INSIDE + 0x1000, 9, b"xyz")), [MOVED, MOVED + 0x78]),
    "inside-three-backwards": (
        ((INSIDE + 0x2000, 1, b"a" * 8), (INSIDE + 0x1000, 2, b"b"), (INSIDE, 3, b"c")),
        [MOVED, MOVED + 24, MOVED + 48],
    ),
    "at-the-first-byte-of-the-kernel": (((LOAD, 2, DATA),), [MOVED]),
    "up-to-the-last-byte-that-the-kernel-needs": (((PREF + INIT - 16 - len(DATA), 2, DATA),), [MOVED]),
    "over-the-last-byte-that-the-kernel-needs": (((PREF + INIT - 1, 2, DATA),), [MOVED]),
    "behind-what-the-kernel-needs": (((PREF + INIT, 2, DATA),), [PREF + INIT]),
    "between-load-and-pref": (((8 * MIB, 2, DATA),), [MOVED]),
    "outside": (((OUTSIDE, 2, DATA),), [OUTSIDE]),
    "outside-up-to-the-end-of-ram": (((END - 16 - len(DATA), 2, DATA),), [END - 16 - len(DATA)]),
    "outside-then-inside": (((OUTSIDE, 2, DATA), (INSIDE, 3, b"x")), [OUTSIDE, MOVED]),
    "inside-then-outside": (((INSIDE, 2, DATA), (OUTSIDE, 3, b"x")), [MOVED, OUTSIDE]),
    "inside-outside-inside": (
        ((INSIDE, 2, DATA), (OUTSIDE, 3, b"x"), (INSIDE + 0x800, 4, b"y")),
        [MOVED, OUTSIDE, MOVED + 0x78],
    ),
    "as-long-as-can-be": (((INSIDE, 2, b"z" * (0x10000 - 16)),), [MOVED]),
    "two-as-long-as-can-be": (
        ((INSIDE, 2, b"z" * (0x8000 - 16)), (INSIDE + 0x10000, 3, b"y" * (0x8000 - 16))),
        [MOVED, MOVED + 0x8000],
    ),
    "32": (
        tuple((INSIDE + 0x100 * at, at + 1, bytes((at,))) for at in range(32)),
        [MOVED + 24 * at for at in range(32)],
    ),
    "32-outside": (
        tuple((OUTSIDE + 0x100 * at, at + 1, bytes((at,))) for at in range(32)),
        [OUTSIDE + 0x100 * at for at in range(32)],
    ),
}


@pytest.mark.parametrize(("pieces", "places"), CHAINS.values(), ids=CHAINS)
def test_setup_data_in_the_kernels_way_is_moved(engine_name, make, pieces, places):
    case, before = chain(*pieces)
    plan = make(case)
    seen = run(case, plan, engine_name, dirty=True, before=before)
    assert seen.board.debug_console == b""
    header = bytearray(case.header)
    struct.pack_into("<Q", header, 0x250, places[0] if places else 0)
    assert seen.params == expected_params(case, plan, header)
    assert seen.span == AT_PREF
    first = struct.unpack_from("<Q", seen.params, 0x250)[0]
    assert walked(seen.handoff.memory, first) == [
        (place, kind, data) for place, (_, kind, data) in zip(places, pieces, strict=True)
    ]


@pytest.mark.parametrize(("at", "place"), [(4 * MIB - 17, 4 * MIB - 17), (4 * MIB - 16, MOVED), (4 * MIB, MOVED)])
def test_setup_data_before_the_kernel_stays(make, at, place):
    """Of 17 bytes: up to the kernel's first byte."""
    case = Case({"setup_data": at}, addr=4 * MIB, initrd=0)
    data = piece(0, 2, b"x")
    if at >= case.addr:
        case = case._replace(others={"kernel": data + protected_mode_part(SIZE)})
    elif at + 17 > case.addr:
        case = case._replace(others={"kernel": data[16:] + protected_mode_part(SIZE)})
    seen = run(case, make(case), before={at: data})
    assert seen.board.debug_console == b""
    assert walked(seen.handoff.memory, struct.unpack_from("<Q", seen.params, 0x250)[0]) == [(place, 2, b"x")]


def test_the_old_protocol_has_setup_data_beside_what_is_loaded(make):
    """Without an init_size, only what is loaded is in the way."""
    case, before = chain((8 * MIB, 2, DATA))
    case = case._replace(setup={**case.setup, "protocol": 0x209})
    seen = run(case, make(case), before=before)
    assert walked(seen.handoff.memory, 8 * MIB) == [(8 * MIB, 2, DATA)]
    assert seen.params[0x250:0x258] == struct.pack("<Q", 8 * MIB)


def broken(addr, data, first=None):
    """A case with these bytes in the kernel's own part, or in memory."""
    case, before = chain()
    kernel = bytearray(case.others["kernel"])
    if LOAD <= addr < LOAD + len(kernel):
        kernel[addr - LOAD : addr - LOAD + len(data)] = data
    elif data:
        before[addr] = data
    return case._replace(setup={"setup_data": addr if first is None else first}, others={"kernel": bytes(kernel)}), before


def many(number, at):
    return chain(*((at + 0x100 * each, each + 1, b"x") for each in range(number)))


CHAINS_WRONG = {
    "33": many(33, INSIDE),
    "33-outside": many(33, OUTSIDE),
    "ring-of-one": broken(INSIDE, piece(INSIDE, 2, DATA)),
    "ring-of-one-outside": broken(OUTSIDE, piece(OUTSIDE, 2, DATA)),
    "ring-of-two": broken(OUTSIDE, piece(OUTSIDE + 0x100, 2, b"").ljust(0x100, b"\0") + piece(OUTSIDE, 3, b"")),
    "a-byte-too-long": chain((INSIDE, 2, b"z" * (0x10000 - 15))),
    "two-that-are-too-long": chain((INSIDE, 2, b"z" * (0x8000 - 16)), (INSIDE + 0x10000, 3, b"y" * (0x8000 - 15))),
    "no-room-for-a-head": chain((INSIDE, 2, b"z" * (0x10000 - 16)), (INSIDE + 0x20000, 3, b"")),
    "longer-than-ram": broken(OUTSIDE, struct.pack("<QII", 0, 2, 8 * MIB - 15)),
    "most-bytes": broken(OUTSIDE, struct.pack("<QII", 0, 2, 0xFFFFFFFF)),
    "length-wraps": broken(OUTSIDE, struct.pack("<QII", 0, 2, 0xFFFFFFF0)),
    "length-wraps-to-4-gib": broken(OUTSIDE, struct.pack("<QII", 0, 2, 0xFFFFFFEF)),
    "head-past-the-end-of-ram": broken(END - 15, bytes(15)),
    "behind-ram": broken(END, b""),
    "in-the-hole": broken(0xE0000000, b""),
    "in-the-rom": broken(0xFFFF8000, b""),
    "in-the-low-rom": broken(0xF8000, b""),
    "up-to-4-gib": broken(0xFFFFFFF0, b""),
    "across-4-gib": broken(0xFFFFFFF8, b""),
    "above-4-gib": broken(1 << 32, b""),
    "above-4-gib-and-in-ram-below": broken(OUTSIDE, piece(0, 2, DATA), first=OUTSIDE | 1 << 32),
    "next-above-4-gib": broken(OUTSIDE, piece(1 << 32, 2, DATA)),
    "next-above-4-gib-of-one-that-is-moved": broken(INSIDE, piece(INSIDE | 1 << 63, 2, DATA)),
    "next-outside-of-ram": broken(INSIDE, piece(0xE0000000, 2, DATA)),
    # What the firmware itself keeps there is nobody's setup_data: it would be overwritten, or written to.
    "at-1": broken(1, b""),
    "in-the-firmwares-stack": broken(0x2F00, b""),
    "in-boot-params": broken(0x4000, b""),
    "where-pieces-are-moved-to": broken(MOVED, piece(0, 2, DATA)),
    "in-the-command-line": broken(0x20000, piece(0, 2, b"")),
    "a-byte-in-the-firmwares-data": broken(FIRMWARE_END - 1, piece(0, 2, DATA)),
    "next-in-the-firmwares-data": broken(INSIDE, piece(0x6000, 2, DATA)),
}


@pytest.mark.parametrize(("case", "before"), CHAINS_WRONG.values(), ids=CHAINS_WRONG)
def test_setup_data_that_cannot_be_is_a_named_panic(make, case, before):
    require_panic(run(case, make(case), before=before), "SETUP_DATA")


def test_every_panic_of_this_road_is_reached():
    assert {name for _, name in WRONG.values()} == {"NO_KERNEL", "BOOT_PROTOCOL", "KERNEL_RAM", "INITRD_KERNEL"}


# And at random: an entry with the header as it was, or a named panic; within a bound; and no store anywhere else.

EDGES = [0, 1, 15, 16, 0x6000, FIRMWARE_END - 1, FIRMWARE_END, 0xF0000, MIB, MIB + 0x1000, 2 * MIB, 16 * MIB, END - 16, END]
EDGES += [1 << 31, 0xFFFF0000, 0xFFFFFFFF]
NUMBERS = st.sampled_from(EDGES) | st.integers(0, 0xFFFFFFFF)
LONG = NUMBERS | st.sampled_from([1 << 32, 1 << 63, (1 << 64) - 1])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "jump": st.integers(0, 255),
        "protocol": st.sampled_from([0x205, 0x206, 0x208, 0x209, 0x20A, 0x20C, 0x20F, 0xFFFF]),
        "alignment": NUMBERS,
        "relocatable": st.sampled_from([0, 1, 0xFF]),
        "pref_address": LONG,
        "init_size": NUMBERS,
        "setup_data": LONG,
    },
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    setup=FIELDS,
    addr=st.sampled_from([LOAD] * 6 + EDGES),
    initrd=st.sampled_from([None, 0, MIB + SIZE, 8 * MIB, 41 * MIB]),
    dma=st.sampled_from([True] * 7 + [False]),
)
def test_whatever_the_header_says(make, setup, addr, initrd, dma):
    case = Case(setup, addr=addr, initrd=initrd)
    seen = run(case, make(case, dma=dma), limits=Limits(instructions=1_000_000))
    require_no_stray_store(seen, case)
    if seen.handoff is None:
        assert seen.stop.reason == HALT
        (code,) = seen.board.post_codes
        names = {"BOOT_PROTOCOL", "KERNEL_RAM", "SETUP_DATA", "INITRD_KERNEL"}
        assert code in {panic.code for panic in PANICS if panic.name in names}
        return
    require_state(seen)
    start, end = seen.span
    assert FIRMWARE_END <= start <= addr
    assert addr + SIZE <= end <= END
    header = bytearray(case.header)
    if 0x202 + header[0x201] >= 0x258:
        header[0x250:0x258] = seen.params[0x250:0x258]
    assert seen.params == expected_params(case, seen.board.plan, header)
