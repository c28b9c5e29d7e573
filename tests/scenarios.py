"""Boots that together show what each of pvhboot's firmwares does: the tables of the tests, as boards.

A scenario makes a board anew each time, with a change to the ROM. Whether what comes of it is right, those tests say.
"""

import importlib.util
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import tiny
from odd_devices import Apic, Dma, LateDma
from plans import DirtyPlan, RefusedOnce
from pvhboot.emu.board import Board
from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.image import BytesImage, SizedSource
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi import apic, fw_cfg, params
from pvhboot.shim.abi.x86 import HLT, PAGE_SIZE
from pvhboot.shim.machines import BARE, GIB, MACHINES, MIB, Span, firmware_end
from pvhboot.shim.stock import default_blob

Change = Callable[[bytes], bytes]  # of a ROM
KERNEL, KERNEL_BYTES = 0x200000, 0x10000
INITRD = bytes(range(1, 251)) * 20


class Scenario(NamedTuple):
    """`board` makes one of a ROM with a change. `linux`: the kernel is entered by the Linux boot protocol."""

    name: str
    board: Callable[[Change], Board]
    linux: bool = False


@cache
def tables(name: str) -> ModuleType:
    """A module of tests/emu/, for its tables."""
    spec = importlib.util.spec_from_file_location(f"tables_of_{name}", Path(__file__).parent / "emu" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kernel_image(paddr: int = KERNEL, size: int = KERNEL_BYTES) -> bytes:
    """A kernel that would halt at once. It is never executed."""
    return tiny.kernel_image(HLT * size, paddr)


def scenarios(name: str, folder: Path) -> list[Scenario]:
    """Those of the firmware of that machine; `folder` gets the files that they load."""
    initrd = folder / "initrd"
    initrd.write_bytes(INITRD)
    if name == BARE.name:
        return [*_bare_boots(initrd), *_bare_blocks(initrd)]
    found = [
        *_boots(name, initrd),
        *_items(name, initrd),
        *(_processors(name, initrd) if MACHINES[name].mp_table else ()),
        *_hosts(name, initrd),
        *_bzimages(name, folder),
    ]
    return [*found, *_acpi(name, folder)] if MACHINES[name].acpi else found


def _scenario(name: str, plan: BootPlan, dirty: bool = False, **board: Any) -> Scenario:
    def make(change: Change) -> Board:
        changed = plan._replace(rom=change(plan.rom))
        return Board(changed, (DirtyPlan.of(changed) if dirty else changed).memory(), **board)

    return Scenario(name, make)


def _plan(name: str, modules: list[Module], image: bytes | None = None, **more: Any) -> BootPlan:
    settings = {"memory": 64 * MIB, "cmdline": "a line", **more}
    kernel = Kernel.from_bytes(image or kernel_image(), "kernel")
    return make_plan(MACHINES[name], _rom(name), kernel, modules=modules, **settings)


@cache
def _rom(name: str) -> bytes:
    return default_blob(MACHINES[name]).data


# Of bare.


def _bare_boots(initrd: Path) -> Iterator[Scenario]:
    both = [Module(str(initrd), "its line"), Module(str(initrd))]
    for dirty in (True, False):
        yield _scenario(f"modules-dirty-{dirty}", _plan("bare", both), dirty)
        yield _scenario(f"nothing-dirty-{dirty}", _plan("bare", [], cmdline=None), dirty)
    reserved = [Span("reserved", (number + 20) << 20, (number + 20 << 20) + 0x1000) for number in range(20)]
    yield _scenario("5-gib-reserved", _plan("bare", [Module(str(initrd))], memory=5 * GIB, reserved=reserved), True)


def _block(entries: int, modules: int, strings: bytes, *, size: int | None = None, kind: int = 1, rest: int = 0) -> Change:
    """The parameter block with so many parts, as far as there is room. `kind`: the type of the entries; `rest`: the modules'
    reserved field."""
    header_size, entry_size, module_size = params.PARAMS_HEADER.size, 20, params.PARAMS_MODULE.size
    whole = header_size + entries * entry_size + modules * module_size + len(strings)
    header = params.ParamsHeader(
        params.PARAMS_MAGIC, params.PARAMS_VERSION, whole if size is None else size, KERNEL, entries, modules, len(strings)
    )
    block = params.PARAMS_HEADER.pack(header)
    block += b"".join(struct.pack("<QQI", number * 64 * MIB, 64 * MIB, kind) for number in range(entries))
    block += b"".join(params.PARAMS_MODULE.pack(params.ParamsModule(MIB, 16, number % 2, rest)) for number in range(modules))
    return lambda rom: _with_block(rom, (block + strings)[: params.PARAMS_MAX_SIZE])


def _with_block(rom: bytes, block: bytes) -> bytes:
    at = len(rom) - params.PARAMS_FROM_END
    return rom[:at] + block + rom[at + len(block) :]


def _bare_blocks(initrd: Path) -> Iterator[Scenario]:
    plan = _plan("bare", [Module(str(initrd), "its line")])
    for name, (change, _panic) in tables("test_panics").WRONG.items():
        rom = bytearray(plan.rom)
        change(memoryview(rom))
        yield _scenario(f"block-{name}", plan._replace(rom=bytes(rom)))
    most = params.PARAMS_MAX_SIZE
    shapes = {
        "entries-126": _block(126, 0, b"x\0"),
        "entries-127": _block(127, 0, b"x\0"),
        "modules-512": _block(1, 512, b"xy\0"),
        "modules-513": _block(1, 513, b"xy\0"),
        "no-strings": _block(1, 0, b""),
        "no-strings-but-a-module's": _block(1, 2, b""),
        "largest": _block(1, 1, b"x" * (most - 32 - 20 - 24 - 1) + b"\0"),
        "a-byte-too-large": _block(1, 1, b"x" * (most - 32 - 20 - 24) + b"\0"),
        "string-at-the-last-byte": _block(1, 2, b"x\0"),
        "string-a-byte-too-far": _block(1, 2, b"\0"),
        "says-less": _block(1, 0, b"x\0", size=53),
        "no-strings-and-a-strange-type": _block(1, 0, b"", kind=0xFFFFFFFF),
        "reserved-fields": _block(1, 2, b"xy\0", rest=0xDEADBEEF),
        "strings-wrap": lambda rom: _with_block(
            rom, struct.pack("<8I", params.PARAMS_MAGIC, 1, 42, 1, 1, 0, (1 << 32) - 10, 0)
        ),
        "strings-longer-than-all": lambda rom: _with_block(
            rom, struct.pack("<8I", params.PARAMS_MAGIC, 1, 60, 1, 1, 0, most + 1, 0)
        ),
    }
    for name, shape in shapes.items():
        yield _scenario(f"shape-{name}", plan._replace(rom=shape(plan.rom)))


def _boots(name: str, initrd: Path) -> Iterator[Scenario]:
    """Of a host as it should be."""
    modules = [Module(str(initrd))]
    for dma in (True, False):
        for dirty in (True, False):
            yield _scenario(f"boot-dma-{dma}-dirty-{dirty}", _plan(name, modules, dma=dma), dirty)
    yield _scenario("5-gib", _plan(name, modules, memory=5 * GIB), True)
    yield _scenario("3-gib", _plan(name, [], memory=3 * GIB, cmdline=None), True)
    plan = _plan(name, modules)

    def refused(change: Change) -> Board:
        once = plan.modules[0]._replace(payload=RefusedOnce(str(initrd)))  # anew: it is not refused a second time
        changed = plan._replace(rom=change(plan.rom), modules=(once,))
        return Board(changed, changed.memory())

    yield Scenario("refused", refused)


def _items(name: str, initrd: Path) -> Iterator[Scenario]:
    """What fw_cfg says wrong, or unusual."""
    panics = tables("test_panics")
    found = {key: items for key, (items, _) in panics.UNUSUAL.items()}
    found |= {f"wrong-{key}": items for key, (items, _) in panics.FW_CFG_WRONG.items()}
    found |= {f"map-reversed-{n}": panics.e820(*[panics.LOW, *panics.reserved(n)][::-1]) for n in (1, 2, 5, 50)}
    shuffled = [panics.LOW, *panics.NEIGHBOURS, *panics.ABOVE, *panics.reserved(20)]
    found["map-shuffled"] = panics.e820(*panics.shuffled(shuffled))
    found |= {f"map-of-{n + 1}": panics.e820(panics.LOW, *panics.reserved(n)) for n in range(117, 122)}
    found["map-by-its-high-words"] = panics.e820((0x200001000, 4096, 2), (0x1C0000000, 4096, 2), panics.LOW)
    for key, ranges in {
        "small": (panics.LOW, (GIB, 0x80, 2)),
        "small-first": ((0, MIB + 0x80, 1),),
        "4-gib": (panics.LOW, (4 * GIB, 4 * GIB, 1)),
        "4-gib-and-one-mib": ((0, 4 * GIB + MIB, 1),),
        "hole": ((0, 16 * MIB, 1), (32 * MIB, 32 * MIB, 1)),
    }.items():
        found[f"map-{key}"] = panics.e820(*ranges)
    found["kernel-from-a-hole"] = {**found["map-hole"], **panics.kernel(31 * MIB, 2 * MIB, 32 * MIB)}
    found["map-4-gib-first"] = panics.e820((4 * GIB, 16 * MIB, 2), (0xD0000000, 0x1001, 2), panics.LOW)
    found |= {"files-0x3fe0": panics.count(0x3FE0), "other-device": {0: BytesImage(b"QEMV")}}
    for key, items in found.items():
        plan = _plan(name, [Module(str(initrd))], dma=key != "other-device")
        yield _scenario(f"items-{key}", plan, fw_cfg_items={**fw_cfg_items(plan), **items})
    pio = _plan(name, [Module(str(initrd))], dma=False)
    for key in ("files-41st", "e820-empty-ranges", "cmdline-longest", "wrong-entry-0", "wrong-initrd-over-the-kernel"):
        yield _scenario(f"items-pio-{key}", pio, fw_cfg_items={**fw_cfg_items(pio), **found[key]})


def _processors(name: str, initrd: Path) -> Iterator[Scenario]:
    """So many processors; with two of them also a full memory map, and kernels below 1 MiB, beside what the firmware puts at
    the end of base memory and over it."""
    panics = tables("test_panics")
    usual = panics.UNUSUAL["files-last-of-300"][0]
    several = ((), (1,), (1, 2, 4, 5, 6), (7, 9, 255), tuple(range(1, 64)), tuple(range(1, 256)))
    cases = {f"cpus-{len(ids) + 1}": (ids, usual, KERNEL) for ids in several}
    cases |= {f"cpus-map-of-{n + 1}": ((1,), panics.e820(panics.LOW, *panics.reserved(n)), KERNEL) for n in (119, 120, 121)}
    for size in (0x1000, 0x5E000, 0x5E001):
        cases[f"cpus-low-kernel-{size:#x}"] = (1,), panics.kernel(0x40000, size, 0x40000), 0x40000
    for at in (firmware_end(MACHINES[name]), 0x9FFFF, 0xA0000):
        cases[f"cpus-kernel-at-{at:#x}"] = (1,), panics.kernel(at, 16, at), at
    cases["cpus-kernel-above"] = (1,), panics.kernel(0xFFFFFFFF - 0x100000, 16, 0xFFFFFFFF - 0x100000), KERNEL
    plan = _plan(name, [Module(str(initrd))])
    for label, (ids, items, entry) in cases.items():
        number = (len(ids) + 1).to_bytes(2, "little")
        all_items = {**fw_cfg_items(plan), **items, 5: BytesImage(number)}

        def make(
            change: Change, ids: Sequence[int] = ids, items: dict[int, SizedSource] = all_items, entry: int = entry
        ) -> Board:
            changed = plan._replace(rom=change(plan.rom))
            board = Board(changed, DirtyPlan.of(changed).memory(), fw_cfg_items=items)
            board.bus.claim_memory(apic.LOCAL_APIC, PAGE_SIZE, "apic", Apic(board.memory, name, ids))
            board.entry = entry
            return board

        yield Scenario(label, make)
    yield _scenario("cpus-0", plan, fw_cfg_items={**fw_cfg_items(plan), 5: BytesImage(bytes(2))})


def _hosts(name: str, initrd: Path) -> Iterator[Scenario]:
    """Devices that are otherwise."""
    plan = _plan(name, [Module(str(initrd))])

    def without_dma(change: Change) -> Board:
        changed = plan._replace(rom=change(plan.rom), dma=False)
        return Board(changed, changed.memory())

    def answering(control: int) -> Callable[[Change], Board]:
        def make(change: Change) -> Board:
            board = without_dma(change)
            board.bus.claim_ports(fw_cfg.FW_CFG_DMA_PORT, fw_cfg.FW_CFG_DMA_PORTS, "dma", Dma(board.memory, control), width=8)
            return board

        return make

    yield Scenario("dma-error", answering(1))
    yield Scenario("dma-error-and-more", answering(0x8001))
    yield Scenario("dma-not-done", answering(0x1000000))

    def late(change: Change) -> Board:
        changed = plan._replace(rom=change(plan.rom))
        board = Board(changed, changed.memory())
        register = LateDma(board)
        for port in range(fw_cfg.FW_CFG_DMA_PORT, fw_cfg.FW_CFG_DMA_PORT + fw_cfg.FW_CFG_DMA_PORTS):
            board.bus._ports[port] = board.bus._ports[port]._replace(device=register)
        return board

    yield Scenario("dma-late", late)
    bare = make_plan(BARE, plan.rom, Kernel.from_bytes(kernel_image(), "kernel"), memory=64 * MIB)
    yield _scenario("no-fw-cfg", bare)


def _bzimages(name: str, folder: Path) -> Iterator[Scenario]:
    """Kernels that go the road of the Linux boot protocol."""
    road = tables("test_bzimage_road")
    initrd = folder / "small"
    initrd.write_bytes(road.INITRD)
    image = kernel_image(road.PLANNED, 16)

    def scenario(label: str, case: Any, before: dict[int, bytes], dma: bool, dirty: bool) -> Scenario:
        settings = {"memory": case.memory, "cmdline": case.cmdline, "dma": dma}
        planned = _plan(name, [Module(str(initrd))], image, **settings)

        def make(change: Change) -> Board:
            plan = planned._replace(rom=change(planned.rom))
            memory = (DirtyPlan.of(plan) if dirty else plan).memory()
            for paddr, data in before.items():
                memory.view(paddr, len(data))[:] = data
            board = Board(plan, memory, fw_cfg_items=case.items(plan))
            board.entry = case.addr
            return board

        return Scenario(f"bzimage-{label}", make, linux=True)

    for label, case in road.GOOD.items():
        yield scenario(label, case, {}, True, True)
    lowest = {"relocatable": 0, "pref_address": road.FIRMWARE_END, "init_size": 0x10000}
    yield scenario("lowest", road.Case(lowest, addr=road.FIRMWARE_END), {}, True, True)
    yield scenario("pio", road.GOOD["as-usual"], {}, False, True)
    for label, (case, _) in road.WRONG.items():
        yield scenario(f"wrong-{label}", case, {}, True, False)
    for label, (pieces, _) in road.CHAINS.items():
        yield scenario(f"chain-{label}", *road.chain(*pieces), True, True)
    data = road.piece(0, 2, b"x")
    for before in (17, 16, 0):  # so many bytes of it before the kernel
        at = 4 * MIB - before
        kernel = road.protected_mode_part(road.SIZE)
        others = {"kernel": data[before:] + kernel} if before < len(data) else {}
        case = road.Case({"setup_data": at}, addr=4 * MIB, initrd=0, others=others)
        yield scenario(f"chain-before-{before}", case, {at: data}, True, True)
    yield scenario("chain-at-the-end", *road.broken(road.END - 16, road.piece(0, 2, b"")), True, True)
    for label, (case, before) in road.CHAINS_WRONG.items():
        yield scenario(f"chain-wrong-{label}", case, before, True, False)


def _acpi(name: str, folder: Path) -> Iterator[Scenario]:
    """Scripts of the table-loader."""
    loader = tables("test_acpi_loader")
    initrd = folder / "acpi"
    initrd.write_bytes(loader.INITRD)

    def scenario(label: str, case: Any, dma: bool = True, dirty: bool = True) -> Scenario:
        modules = [] if case.initrd == 0 else [Module(str(initrd))]
        planned = _plan(name, modules, kernel_image(case.kernel), memory=case.memory, dma=dma)
        if case.initrd:
            planned = planned._replace(modules=(planned.modules[0]._replace(paddr=case.initrd),))

        def make(change: Change) -> Board:
            plan = planned._replace(rom=change(planned.rom))
            items = {**fw_cfg_items(plan), **case.items()}
            memory = (DirtyPlan.of(plan) if dirty else plan).memory()
            writes = case.writable is not None
            board = Board(plan._replace(dma=plan.dma and not writes), memory, fw_cfg_items=items)
            if writes:
                ((written, data),) = case.writable.items()
                writing = loader.WritingDma(items, memory, case.key(written), data)
                board.bus.claim_ports(fw_cfg.FW_CFG_DMA_PORT, fw_cfg.FW_CFG_DMA_PORTS, "dma", writing, width=8)
            return board

        return Scenario(f"acpi-{label}", make)

    for label, case in {**loader.GOOD, **loader.SUMS}.items():
        yield scenario(label, case)
    for label in loader.SOME:
        yield scenario(f"pio-{label}", loader.GOOD[label], False)
    for label, (case, _) in {**loader.WRONG, **loader.TOLD_WRONG}.items():
        yield scenario(f"wrong-{label}", case, True, False)
    for label, case in loader.TOLD.items():
        yield scenario(f"told-{label}", case)
