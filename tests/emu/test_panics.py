"""What a host says wrong, in a parameter block or in fw_cfg, ends in a named panic, on every engine: never in a wild write
or an endless loop. What is only unusual boots."""

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import RefusedOnce
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.devices.fw_cfg import FwCfg
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.reasons import HALT, HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.fw_cfg import fw_cfg_items, with_directory
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.firmware import FW_CFG, PANICS, PARAMS, panic_message
from pvhboot.shim.abi.x86 import HLT
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, GIB, MACHINES, MIB, MICROVM
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob, default_guest
from stores import Stores
from tiny import kernel_image

SIZE, STRINGS = 8, 24


def put(offset, *values):
    """Overwrites u32 fields of the header."""

    def change(block):
        struct.pack_into(f"<{len(values)}I", block, offset, *values)

    return change


def change_end(block):
    (size,) = struct.unpack_from("<I", block, SIZE)
    block[size - 1] = ord("x")


def strings_beyond(block):
    """The first module's string lies at the end of the strings, one too far."""
    (entries,), (strings,) = struct.unpack_from("<I", block, 16), struct.unpack_from("<I", block, STRINGS)
    struct.pack_into("<I", block, 32 + entries * 20 + 16, strings)


WRONG = {
    "empty": (put(SIZE, 0), "NO_PARAMS"),
    "magic": (put(0, 0x42485651), "PARAMS_MAGIC"),
    "version-0": (put(4, 0), "PARAMS_VERSION"),
    "version-2": (put(4, 2), "PARAMS_VERSION"),
    "size-one-more": (put(SIZE, 153), "PARAMS_SIZE"),
    "size-too-large": (put(SIZE, 0xFFFFFFFF), "PARAMS_SIZE"),
    "entry-0": (put(12, 0), "NO_ENTRY"),
    "e820-0": (put(16, 0), "E820_COUNT"),
    "e820-127": (put(16, 127), "E820_COUNT"),
    "e820-wraps-a-product": (put(16, 0xCCCCCCCD), "E820_COUNT"),
    "modules-513": (put(20, 513), "MODULE_COUNT"),
    "modules-most": (put(20, 0xFFFFFFFF), "MODULE_COUNT"),
    "strings-most": (put(STRINGS, 0xFFFFFFFF), "PARAMS_SIZE"),
    "strings-and-size-too-large": (put(STRINGS, 0x8000), "PARAMS_SIZE"),
    "no-terminator": (change_end, "STRING_END"),
    "string-outside": (strings_beyond, "STRING_OFFSET"),
}


@pytest.mark.parametrize(("change", "name"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_block_is_a_named_panic(engine_name, tmp_path, change, name):
    (tmp_path / "initrd").write_bytes(b"module")
    blob = default_blob(BARE)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        modules = [Module(str(tmp_path / "initrd"), "its line")]
        plan = make_plan(BARE, blob.data, kernel, memory=32 * MIB, modules=modules, cmdline="a line")
        rom = bytearray(plan.rom)
        block = memoryview(rom)
        change(block)
        block.release()
        outcome = boot(plan._replace(rom=bytes(rom)), blob, get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0))
    panic = next(panic for panic in PANICS if panic.name == name)
    assert outcome.run.stop.reason == HALT
    assert outcome.post_codes == (panic.code,)
    assert outcome.debug_console.decode() == panic_message(panic) + "\n"
    assert outcome.handoff is None
    place = blob.locate(outcome.run.stop.rip)
    assert place is not None
    assert place.symbol == "panic_halt"


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_a_stage_that_does_not_come_back_is_a_named_panic(engine_name, spec):
    blob = build(spec, [make_stage("before-handoff", "my.s", "# Clobbers: nothing\n    nop\n")])
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=32 * MIB)
        outcome = boot(plan, blob, get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0))
    assert outcome.post_codes == (0xE9,)
    assert outcome.handoff is None


def test_every_panic_of_bare_is_reached_by_a_test():
    reached = {name for _, name in WRONG.values()} | {"STAGE_END"}
    assert reached == {panic.name for panic in PANICS if PARAMS in panic.sources}


# What fw_cfg may say wrong: items by key that take the place of good ones.

KERNEL_ADDR, KERNEL_SIZE, INITRD_ADDR, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_ENTRY, INITRD_DATA, CMDLINE_SIZE, CMDLINE_DATA, DIRECTORY = 0x10, 0x12, 0x14, 0x15, 0x19
RAM, RESERVED = 1, 2
LOW = (0, 64 * MIB, RAM)
INITRD = bytes(range(1, 251)) * 20  # 5000 bytes
E820_KEY = 0x22  # of the file etc/e820, behind two others
KERNEL_PADDR, KERNEL_BYTES = 0x200000, 0x10000  # of the kernel that is to boot: nothing in it is 0


def files(**named):
    """The directory, and the files: `e820` is etc/e820, bytes or entries."""
    e820 = named.pop("e820", None)
    contents = {name.encode(): BytesImage(b"x") for name in named}
    if e820 is not None:
        data = e820 if isinstance(e820, bytes) else b"".join(struct.pack("<QQI", *entry) for entry in e820)
        contents[b"etc/e820"] = BytesImage(data)
    return with_directory(contents)


def e820(*entries):
    return files(e820=entries)


def e820_cut(size, *entries):
    """etc/e820 ends after so many bytes."""
    return files(e820=b"".join(struct.pack("<QQI", *entry) for entry in entries)[:size])


def e820_said(size):
    """The directory says so many bytes."""
    entry = struct.pack(">IHH56s", size, 0x20, 0, b"etc/e820")
    return {**e820(LOW), DIRECTORY: BytesImage(struct.pack(">I", 1) + entry)}


def count(number, *names):
    """A directory that says so many files, with these entries."""
    entries = b"".join(struct.pack(">IHH56s", 20, 0x20, 0, name) for name in names)
    return {**e820(LOW), DIRECTORY: BytesImage(struct.pack(">I", number) + entries)}


def kernel(start=KERNEL_PADDR, length=KERNEL_BYTES, entry=KERNEL_PADDR):
    return numbers({KERNEL_ADDR: start, KERNEL_SIZE: length, KERNEL_ENTRY: entry})


def initrd(addr, size=5000, **of_kernel):
    return {**numbers({INITRD_ADDR: addr, INITRD_SIZE: size}), **kernel(**of_kernel)}


def numbers(values):
    return {key: BytesImage(struct.pack("<I", value)) for key, value in values.items()}


def reserved(number, start=0xD0000000):
    """So many ranges in the hole below the ROM, none next to another."""
    return [(start + 0x2000 * at, 0x1000, RESERVED) for at in range(number)]


FW_CFG_WRONG = {
    "files-none": (count(0), "NO_E820"),
    "files-no-directory": ({DIRECTORY: BytesImage(b"")}, "NO_E820"),
    "files-others": (files(**{f"a{at}": 1 for at in range(100)}), "NO_E820"),
    "files-just-40-others": (files(**{f"a{at}": 1 for at in range(40)}), "NO_E820"),
    "files-e820-behind-the-count": (count(1, b"etc/e82", b"etc/e820"), "NO_E820"),
    "files-names-like-it": (count(5, b"etc/e8200", b"etc/e82", b"etc/e821", b"ETC/e820", b"xtc/e820"), "NO_E820"),
    "files-one-more": (count(0x3FE1), "FW_CFG_FILES"),
    "files-negative": (count(0x80000000), "FW_CFG_FILES"),
    "files-most": (count(0xFFFFFFFF), "FW_CFG_FILES"),
    "e820-0-bytes": (e820(), "E820_COUNT"),
    "e820-19-bytes": (e820_cut(19, (0xD0000000, 0x1000, RESERVED)), "E820_COUNT"),
    "e820-21-bytes": (e820_cut(21, LOW, *reserved(1)), "E820_COUNT"),
    "e820-39-bytes": (e820_cut(39, LOW, *reserved(1)), "E820_COUNT"),
    "e820-123-entries": (e820(LOW, *reserved(122)), "E820_COUNT"),
    "e820-a-byte-too-many": (e820_said(122 * 20 + 1), "E820_COUNT"),
    "e820-most-bytes": (e820_said(0xFFFFFFFF), "E820_COUNT"),
    "ram-none": (e820(*reserved(2)), "E820_LOW"),
    "ram-empty": (e820((0, 0, RAM), (MIB, 0, RAM)), "E820_LOW"),
    "ram-from-1-mib": (e820((MIB, 63 * MIB, RAM)), "E820_LOW"),
    "ram-from-1": (e820((1, 64 * MIB, RAM)), "E820_LOW"),
    "ram-of-1-mib": (e820((0, MIB, RAM)), "E820_LOW"),
    "ram-of-640-kib": (e820((0, 0xA0000, RAM), (MIB, 63 * MIB, RAM)), "E820_LOW"),
    "ram-of-a-byte": (e820((0, 1, RAM)), "E820_LOW"),
    "ram-twice-from-0": (e820(LOW, LOW), "E820_LOW"),
    "from-0-reserved": (e820((0, 64 * MIB, RESERVED)), "E820_LOW"),
    "from-0-reserved-too": (e820(LOW, (0, 0x1000, RESERVED)), "E820_LOW"),
    "overlap": (e820(LOW, (0xD0000000, 0x1001, RESERVED), (0xD0001000, 0x1000, RESERVED)), "E820_OVERLAP"),
    "overlap-unsorted": (e820((0xD0001000, 0x1000, RESERVED), LOW, (0xD0000000, 0x1001, RESERVED)), "E820_OVERLAP"),
    "overlap-twice-the-same": (e820(LOW, *reserved(1), *reserved(1)), "E820_OVERLAP"),
    "overlap-inside": (e820(LOW, (32 * MIB, 0x1000, RESERVED)), "E820_OVERLAP"),
    "overlap-low-ram": (e820(LOW, (0x9FC00, 0x400, RESERVED)), "E820_OVERLAP"),
    "overlap-low-rom": (e820(LOW, (0xFFFFF, 1, RESERVED)), "E820_OVERLAP"),
    "overlap-rom": (e820(LOW, (0xFFFF8000, 0x1000, RESERVED)), "E820_OVERLAP"),
    "overlap-rom-by-a-byte": (e820(LOW, (0xFFFEF000, 0x1001, RESERVED)), "E820_OVERLAP"),
    "overlap-rom-from-above": (e820(LOW, (0xFFFFFFFF, 2, RAM)), "E820_OVERLAP"),
    "ram-up-to-the-end": (e820((0, (1 << 64) - 1, RAM)), "E820_OVERLAP"),
    "ram-of-4-gib": (e820((0, 1 << 32, RAM)), "E820_OVERLAP"),
    "ends-at-2-64": (e820(LOW, (1 << 63, 1 << 63, RESERVED)), "E820_OVERLAP"),
    "wraps": (e820(LOW, ((1 << 64) - 1, 2, RESERVED)), "E820_OVERLAP"),
    "wraps-unsorted": (e820((MIB, (1 << 64) - 1, RESERVED), LOW), "E820_OVERLAP"),
    "entry-0": (numbers({KERNEL_ENTRY: 0}), "NO_KERNEL"),
    "entry-none": ({KERNEL_ENTRY: BytesImage(b"")}, "NO_KERNEL"),
    "cmdline-a-byte-too-long": ({CMDLINE_DATA: BytesImage(bytes(0x8001)), **numbers({CMDLINE_SIZE: 0x8001})}, "CMDLINE_SIZE"),
    "cmdline-most": (numbers({CMDLINE_SIZE: 0xFFFFFFFF}), "CMDLINE_SIZE"),
    "cmdline-cut": (numbers({CMDLINE_SIZE: 5}), "STRING_END"),
    "cmdline-without-terminator": ({CMDLINE_DATA: BytesImage(b"abcdefgh"), **numbers({CMDLINE_SIZE: 8})}, "STRING_END"),
    "initrd-at-0": (initrd(0), "INITRD_RAM"),
    "initrd-over-start-info": (initrd(0x6000), "INITRD_RAM"),
    "initrd-below-1-mib": (initrd(0xFFFFF), "INITRD_RAM"),
    "initrd-of-a-byte-below-1-mib": (initrd(0xFFFFF, 1), "INITRD_RAM"),
    "initrd-a-byte-past-ram": (initrd(64 * MIB - 4999), "INITRD_RAM"),
    "initrd-outside": (initrd(64 * MIB), "INITRD_RAM"),
    "initrd-in-the-hole": (initrd(0xE0000000), "INITRD_RAM"),
    "initrd-in-the-rom": (initrd(0xFFFF0000), "INITRD_RAM"),
    "initrd-up-to-4-gib": (initrd(0xFFFFF000, 0x1000), "INITRD_RAM"),
    "initrd-wraps": (initrd(0xFFFFF000, 0x1001), "INITRD_RAM"),
    "initrd-wraps-into-ram": (initrd(2 * MIB, 0xFFFFFFFF), "INITRD_RAM"),
    "initrd-most": (initrd(MIB, 0xFFFFFFFF), "INITRD_RAM"),
    "initrd-reserved": ({**e820(LOW, (64 * MIB, MIB, RESERVED)), **initrd(64 * MIB)}, "INITRD_RAM"),
    "initrd-before-other-ram": ({**e820(LOW, (128 * MIB, MIB, RAM)), **initrd(127 * MIB)}, "INITRD_RAM"),
    # Accepted as RAM, up to its first and its last byte.
    "initrd-at-the-first-byte-of-ram": (initrd(MIB, 1, start=MIB, length=0x110000), "INITRD_KERNEL"),
    "initrd-at-the-last-byte-of-ram": (initrd(64 * MIB - 1, 1, length=62 * MIB), "INITRD_KERNEL"),
    "initrd-over-the-kernel": (initrd(0x200000), "INITRD_KERNEL"),
    "initrd-around-the-kernel": (initrd(0x200000, 5000, start=0x201000, length=1, entry=0x201000), "INITRD_KERNEL"),
    "initrd-inside-the-kernel": (initrd(0x204000), "INITRD_KERNEL"),
    "initrd-over-the-first-byte": (initrd(0x200000 - 4999), "INITRD_KERNEL"),
    "initrd-over-the-last-byte": (initrd(0x20FFFF), "INITRD_KERNEL"),
    "kernel-wraps": (kernel(length=0xFFFFFFFF), "KERNEL_RAM"),
    "kernel-empty": (kernel(length=0), "KERNEL_RAM"),
    "kernel-at-0": (kernel(start=0), "KERNEL_RAM"),
    "kernel-none": ({KERNEL_ADDR: BytesImage(b""), KERNEL_SIZE: BytesImage(b"")}, "KERNEL_RAM"),
    "kernel-over-start-info": (kernel(start=0x6000, entry=0x6000), "KERNEL_RAM"),
    "kernel-a-byte-too-low": (kernel(start=0x27FFF, entry=0x27FFF), "KERNEL_RAM"),
    "kernel-in-the-low-rom": (kernel(start=0xF8000, length=0x1000, entry=0xF8000), "KERNEL_RAM"),
    "kernel-over-the-low-rom": (kernel(start=0x40000, length=0x200000), "KERNEL_RAM"),
    "kernel-a-byte-past-ram": (kernel(length=62 * MIB + 1), "KERNEL_RAM"),
    "kernel-outside": (kernel(start=64 * MIB, entry=64 * MIB), "KERNEL_RAM"),
    "kernel-in-the-rom": (kernel(start=0xFFFF8000, length=0x1000, entry=0xFFFF8000), "KERNEL_RAM"),
    "entry-a-byte-too-low": (kernel(entry=KERNEL_PADDR - 1), "KERNEL_ENTRY"),
    "entry-a-byte-too-high": (kernel(entry=KERNEL_PADDR + KERNEL_BYTES), "KERNEL_ENTRY"),
    "entry-in-the-apic": (kernel(entry=0xFEE00000), "KERNEL_ENTRY"),
}


@pytest.fixture
def microvm(tmp_path):
    """Makes a plan for microvm with an initrd and a command line."""
    path = tmp_path / "initrd"
    path.write_bytes(INITRD)

    image = kernel_image(HLT * KERNEL_BYTES, KERNEL_PADDR)

    def plan(memory=64 * MIB, **more):
        kernel = Kernel.from_bytes(image, "kernel")
        modules = [Module(str(path))]
        return make_plan(MICROVM, default_blob(MICROVM).data, kernel, memory=memory, modules=modules, cmdline="a line", **more)

    return plan


def run_board(board, engine):
    """How the run ended, and the clauses that are violated: None without a handoff."""
    seen = []

    def on_handoff(handoff):
        seen.append([finding.clause for finding in check(handoff, board.plan) if finding.status == VIOLATED])

    run = get_engine(engine).run(board, Until(HANDOFF), Limits(seconds=20.0), on_handoff)
    return run.stop, seen[0] if seen else None


def require_panic(board, engine, name):
    stop, violated = run_board(board, engine)
    panic = next(panic for panic in PANICS if panic.name == name)
    assert board.debug_console.decode() == panic_message(panic) + "\n"
    assert board.post_codes == [panic.code]
    assert (stop.reason, violated) == (HALT, None)
    assert default_blob(MICROVM).locate(stop.rip).symbol == "panic_halt"


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize(("items", "name"), FW_CFG_WRONG.values(), ids=FW_CFG_WRONG)
def test_what_fw_cfg_says_wrong_is_a_named_panic(engine_name, microvm, items, name, dma):
    plan = microvm(dma=dma)
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), **items})
    require_panic(board, engine_name, name)


def test_a_directory_as_long_as_can_be_is_searched(engine_name, microvm):
    plan = microvm()
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), **count(0x3FE0)})
    require_panic(board, engine_name, "NO_E820")


@pytest.mark.parametrize("signature", [b"", b"QEMV", b"\xff" * 4])
def test_another_device_at_its_ports(engine_name, microvm, signature):
    plan = microvm(dma=False)
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), 0: BytesImage(signature)})
    require_panic(board, engine_name, "NO_FW_CFG")


def test_no_fw_cfg_at_all(engine_name):
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(BARE, default_blob(MICROVM).data, kernel, memory=64 * MIB)
        require_panic(Board(plan, plan.memory()), engine_name, "NO_FW_CFG")


class Dma:
    """The DMA register of a host that is not as it should be: it answers each descriptor with a control word, or not at all."""

    def __init__(self, memory, control):
        self._memory, self._control = memory, control

    def read(self, offset, size):
        return int.from_bytes(b"QEMU CFG"[offset : offset + size], "little")

    def write(self, offset, size, value):
        assert (offset, size) == (4, 4)
        if self._control is not None:
            self._memory.view(int.from_bytes(value.to_bytes(4, "little"), "big"), 4)[:] = struct.pack(">I", self._control)


@pytest.mark.parametrize("control", [1, 0x8001, 0x1000000, None], ids=["error", "error-and-more", "not-done", "no-answer"])
def test_dma_that_fails_or_never_ends(engine_name, microvm, control):
    plan = microvm(dma=False)
    board = Board(plan, plan.memory())
    board.bus.claim_ports(0x514, 8, "dma", Dma(board.memory, control), width=8)
    require_panic(board, engine_name, "FW_CFG_DMA")


def test_dma_that_fails_is_not_waited_for(microvm):
    plan = microvm(dma=False)
    board = Board(plan, plan.memory())
    board.bus.claim_ports(0x514, 8, "dma", Dma(board.memory, 1), width=8)
    run = get_engine("unicorn").run(board, Until(HANDOFF), Limits(instructions=500), lambda _: None)
    assert (run.stop.reason, board.post_codes) == (HALT, [0xEB])


@pytest.mark.parametrize("key", [DIRECTORY, E820_KEY, KERNEL_ENTRY, CMDLINE_SIZE, CMDLINE_DATA, INITRD_ADDR, INITRD_DATA])
def test_each_transfer_that_is_refused(engine_name, microvm, key):
    plan = microvm()
    refused = RefusedOnce(plan.modules[0].payload.path)
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), key: refused})
    require_panic(board, engine_name, "FW_CFG_DMA")


def test_dma_to_where_no_memory_is(engine_name, microvm):
    """The host says RAM where there is none, and puts the initrd there."""
    plan = microvm()
    items = {**e820((0, 128 * MIB, RAM)), **initrd(100 * MIB)}
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), **items})
    require_panic(board, engine_name, "FW_CFG_DMA")


class SlowDma:
    """The DMA register of a host that executes a descriptor some time after it has been told to."""

    def __init__(self, register):
        self._register, self._told = register, None
        self.read = register.read

    def write(self, *told):
        self._told = told

    def finish(self):
        if self._told is not None:
            self._register.write(*self._told)
            self._told = None


def test_dma_that_takes_its_time(microvm):
    """A transfer is done only when the firmware has looked a few times: on the engine that sees it look."""
    import unicorn

    plan = microvm(dma=False)
    board = Board(plan, plan.memory())
    dma = SlowDma(FwCfg(fw_cfg_items(plan), board.memory).dma_ports)
    board.bus.claim_ports(0x514, 8, "dma", dma, width=8)
    machine = UnicornCpu(board, Limits())
    looks = []

    def on_look(*_):
        looks.append(1)
        if not len(looks) % 5:
            dma.finish()

    machine.uc.hook_add(unicorn.UC_HOOK_MEM_READ, on_look, None, 0x1020, 0x1023)
    assert machine.run_to({plan.entry})
    assert len(looks) > 5 * 8
    assert not [finding for finding in check(machine.handoff(), plan) if finding.status == VIOLATED]


def test_every_panic_of_microvm_is_reached_by_a_test():
    reached = {name for _, name in FW_CFG_WRONG.values()} | {"NO_FW_CFG", "FW_CFG_DMA", "STAGE_END"}
    reached |= {"BOOT_PROTOCOL", "SETUP_DATA"}  # test_bzimage_road.py
    assert reached == {panic.name for panic in PANICS if FW_CFG in panic.sources}


# What is unusual, and boots: items, and what becomes of the plan.


def as_planned(plan):
    return plan


def placed_at(addr):
    return lambda plan: plan._replace(modules=(plan.modules[0]._replace(paddr=addr),))


def without_initrd(plan):
    return plan._replace(modules=())


def many(before, after):
    """So many files before and behind etc/e820 in the directory."""
    return files(e820=[LOW], **{f"a{at:03}": 1 for at in range(before)}, **{f"z{at:03}": 1 for at in range(after)})


EMPTY = ((0, 0, RESERVED), (5 * MIB, 0, RAM), (0, 0, RAM), ((1 << 64) - 1, 0, RESERVED), (0xFFFFFFFF, 0, 9))
UNUSUAL = {
    "files-40th": (many(39, 0), as_planned),
    "files-41st": (many(40, 0), as_planned),
    "files-100th": (many(99, 1), as_planned),
    "files-last-of-300": (many(299, 0), as_planned),
    "files-first-of-300": (many(0, 299), as_planned),
    "files-names-like-it": (files(e820=[LOW], **{"etc/e82": 1, "etc/e8200": 1, "etc/e821": 1}), as_planned),
    "e820-empty-ranges": (e820(*EMPTY, LOW, *EMPTY), as_planned),
    "e820-larger-than-said": ({**e820(LOW, *reserved(5)), DIRECTORY: e820(LOW)[DIRECTORY]}, as_planned),
    "e820-smaller-than-said": (e820_said(122 * 20), as_planned),
    "cmdline-size-0": (numbers({CMDLINE_SIZE: 0}), lambda plan: plan._replace(cmdline=None)),
    "cmdline-smaller-than-said": (numbers({CMDLINE_SIZE: 0x8000}), as_planned),
    "cmdline-empty": (numbers({CMDLINE_SIZE: 1}) | {CMDLINE_DATA: BytesImage(b"")}, lambda plan: plan._replace(cmdline=b"")),
    "cmdline-longest": (
        numbers({CMDLINE_SIZE: 0x8000}) | {CMDLINE_DATA: BytesImage(b"x" * 0x7FFF + b"\0")},
        lambda plan: plan._replace(cmdline=b"x" * 0x7FFF),
    ),
    "initrd-none": (numbers({INITRD_SIZE: 0}), without_initrd),
    "initrd-none-and-a-wild-address": (numbers({INITRD_SIZE: 0, INITRD_ADDR: 0xFFFFFFFF}), without_initrd),
    "initrd-at-the-end-of-ram": (initrd(64 * MIB - 5000), placed_at(64 * MIB - 5000)),
    "initrd-right-behind-the-kernel": (initrd(0x210000), placed_at(0x210000)),
    "initrd-right-before-the-kernel": (initrd(0x200000 - 5000), placed_at(0x200000 - 5000)),
    "initrd-at-an-odd-address": (initrd(0x300001), placed_at(0x300001)),
}


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
@pytest.mark.parametrize(("items", "change"), UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_only_unusual_boots(engine_name, microvm, items, change, dma):
    plan = microvm(dma=dma)
    board = Board(change(plan), plan.memory(), fw_cfg_items={**fw_cfg_items(plan), **items})
    stop, violated = run_board(board, engine_name)
    assert (stop.reason, violated) == (HANDOFF, []), board.debug_console


def shuffled(entries):
    return random.Random(0).sample(entries, len(entries))


NEIGHBOURS = [(0xC0000000, 0x1000, RESERVED), (0xFFFEF000, 0x1000, RESERVED), (6 * GIB, 0x1000, RESERVED)]
ABOVE = [(0xFFFFFFFFFFFFE000, 0x1FFF, RESERVED)]


@pytest.mark.parametrize(
    ("order", "extra"),
    [
        (list, NEIGHBOURS + ABOVE),
        (lambda entries: entries[::-1], NEIGHBOURS + ABOVE),
        (shuffled, NEIGHBOURS + ABOVE),
        (list, reserved(120)),
        (lambda entries: entries[::-1], reserved(120)),
        (shuffled, reserved(120)),
    ],
    ids=["sorted", "reversed", "shuffled", "sorted-122", "reversed-122", "shuffled-122"],
)
def test_the_map_comes_sorted_whatever_the_host_says(engine_name, microvm, order, extra):
    """With RAM on both sides of the hole; at most 122 entries of the host, which makes 125."""
    plan = microvm(5 * GIB, host_reserved=[E820Entry(*entry) for entry in extra])
    host = [(0, 3 * GIB, RAM), (4 * GIB, 2 * GIB, RAM), *extra]
    board = Board(plan, plan.memory(), fw_cfg_items={**fw_cfg_items(plan), **e820(*order(host))})
    stop, violated = run_board(board, engine_name)
    assert (stop.reason, violated) == (HANDOFF, []), board.debug_console
    assert len(plan.memmap) == len(host) + 3


# And at random: a handoff with a good map, or a named panic; within a bound; and no store anywhere else.

EDGES = [0, 1, 0xF0000, MIB, 64 * MIB, 0xC0000000, 0xFFFF0000, 1 << 32, 5 << 30, (1 << 64) - 0x1000, (1 << 64) - 1]
TYPES = st.sampled_from([1, 2, 3, 0, 0xFFFFFFFF])
WILD = st.tuples(st.sampled_from(EDGES) | st.integers(0, (1 << 64) - 1), st.sampled_from(EDGES), TYPES)
GAPS = st.sampled_from([0, 0, 1, 0x1000, 64 * MIB, GIB])
SIZES = st.sampled_from([0, 1, 0x1000, 0xFFFFF, 128 * MIB, GIB, 1 << 40])
NUMBERS = st.sampled_from([0, 1, 0xFFFFF, MIB, 0x200000, 63 * MIB, 64 * MIB, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
VALUES = st.one_of(
    st.tuples(st.sampled_from([INITRD_ADDR, KERNEL_ADDR, KERNEL_SIZE]), NUMBERS),
    st.tuples(st.just(CMDLINE_SIZE), st.integers(0, 0x8001)),
    # Either one that a device moves at once, or one that can lie nowhere: it would wrap.
    st.tuples(st.just(INITRD_SIZE), st.sampled_from([0, 1, 100, 4096, 5000, 0xFFF00000, 0xFFFFFFFF])),
    st.tuples(st.just(KERNEL_ENTRY), st.sampled_from([0, 1, 0xFFFFF, 0x200000, 0xFFFFFFFF])),
)
SPOILT = st.sampled_from(["files", "size"] + ["nothing"] * 8)  # fields of the directory


@st.composite
def maps(draw):
    """Mostly disjoint ranges in any order, and now and then one that is anything."""
    at, entries = 64 * MIB, [LOW]
    for gap, size, kind in draw(st.lists(st.tuples(GAPS, SIZES, TYPES), max_size=12)):
        entries.append((at + gap, size, kind))
        at += gap + size
    if draw(st.integers(0, 3)) == 3:
        entries[draw(st.integers(0, len(entries) - 1))] = draw(WILD)
    return draw(st.permutations(entries))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    host=maps(), values=st.lists(VALUES, max_size=2), spoilt=SPOILT, number=NUMBERS | st.integers(0, 2500), dma=st.booleans()
)
def test_whatever_fw_cfg_says(tmp_path_factory, host, values, spoilt, number, dma):
    path = tmp_path_factory.getbasetemp() / "initrd"
    if not path.exists():
        path.write_bytes(INITRD)
    items = e820(*host)
    directory = bytearray(items[DIRECTORY].read(0, items[DIRECTORY].size))
    if spoilt != "nothing":
        struct.pack_into(">I", directory, {"files": 0, "size": 4}[spoilt], number)
    values = dict(values)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        blob = default_blob(MICROVM)
        plan = make_plan(MICROVM, blob.data, kernel, memory=64 * MIB, modules=[Module(str(path))], cmdline="a", dma=dma)
        items = {**fw_cfg_items(plan), **items, DIRECTORY: BytesImage(directory), **numbers(values)}
        board = Board(plan, plan.memory(), fw_cfg_items=items)
        machine = UnicornCpu(board, Limits(instructions=2_000_000))
        stores = Stores()
        with machine.watch(stores.start(machine, board)):
            reached = machine.run_to({plan.entry})
        number = {key: int.from_bytes(items[key].read(0, 4), "little") for key in (INITRD_ADDR, INITRD_SIZE)}
    places = [span.bounds for span in MICROVM.low.spans()]
    places.append((number[INITRD_ADDR], number[INITRD_ADDR] + number[INITRD_SIZE]))
    stray = [store for store in stores if not any(start <= store[0] and sum(store) <= end for start, end in places)]
    assert not stray
    if reached:
        memmap = read_tables(machine.handoff()).memmap
        assert 4 <= len(memmap) <= 126
        assert all(entry.size for entry in memmap)
        assert all(one.end <= other.addr for one, other in pairwise(memmap))
        assert {(0, 0xF0000, RAM), (0xF0000, 0x10000, RESERVED), (0xFFFF0000, 0x10000, RESERVED)} <= {
            entry[:3] for entry in memmap
        }
    else:
        assert machine.stop.reason == HALT
        assert board.post_codes[0] in {panic.code for panic in PANICS if FW_CFG in panic.sources}
        assert len(board.post_codes) == 1
