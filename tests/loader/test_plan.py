"""Plans: everything has a place, nothing overlaps, and what does not fit is said before a byte is written."""

import struct

import pytest
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.placed import first_difference
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.abi.elf import PT_LOAD, PT_NOTE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, GIB, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest

ROM = default_blob(BARE).data
RAM, RESERVED = 1, 2


def kernel_at(*places, entry=None):
    """A kernel with 16 bytes of code and a bss in each (paddr, memsz)."""
    entry = places[0][0] if entry is None else entry
    record = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<Q", entry))
    loads = [ElfSegment(PT_LOAD, paddr, b"\x90" * 16, memsz, 7, 4096) for paddr, memsz in places]
    return Kernel.from_bytes(write_elf(64, entry, [*loads, ElfSegment(PT_NOTE, 0, record, len(record), 4, 4)], {}), "k")


def plan_for(kernel, memory=64 * MIB, **more):
    return make_plan(BARE, ROM, kernel, memory=memory, **more)


def microvm_plan(kernel=None, memory=64 * MIB, rom=None, **more):
    return make_plan(MICROVM, rom or default_blob(MICROVM).data, kernel or kernel_at((MIB, 4096)), memory=memory, **more)


@pytest.fixture
def file(tmp_path):
    def make(name, size):
        path = tmp_path / name
        path.write_bytes(bytes(at & 0xFF for at in range(size)))
        return str(path)

    return make


@pytest.mark.parametrize(
    ("memory", "ram"),
    [
        (1028 << 10, [(0, 1028 << 10)]),
        (16 * MIB, [(0, 16 * MIB)]),
        (3 * GIB, [(0, 0xC0000000)]),
        (3 * GIB + 4096, [(0, 0xC0000000), (1 << 32, (1 << 32) + 4096)]),
        (5 * GIB, [(0, 0xC0000000), (1 << 32, 6 * GIB)]),
    ],
)
def test_ram_goes_around_the_hole(memory, ram):
    plan = plan_for(kernel_at((MIB, 4096)), memory)
    assert [(span.start, span.end) for span in plan.ram] == ram
    told = [(entry.addr, entry.addr + entry.size) for entry in plan.memmap if entry.type == pvh.MEMMAP_TYPE_RAM]
    assert told == ram
    assert list(plan.memmap) == sorted(plan.memmap)


def test_no_two_pieces_overlap(file):
    modules = [Module(file(f"m{number}", 5000 + number), "x" * number) for number in range(20)]
    plan = plan_for(kernel_at((MIB, 4096), (2 * MIB, 4096)), modules=modules, cmdline="c")
    for before, after in zip(plan.spans, plan.spans[1:], strict=False):
        assert before.end <= after.start
    assert [module.payload.path for module in plan.modules] == [module.path for module in modules]
    assert all(module.paddr % 4096 == 0 for module in plan.modules)


def test_the_initrd_goes_to_the_top_of_low_ram(file):
    plan = plan_for(kernel_at((MIB, 4096)), 5 * GIB, modules=[Module(file("initrd", 5000))])
    assert plan.modules[0].paddr == 0xC0000000 - 8192


def test_a_module_goes_below_a_kernel_that_is_in_its_way(file):
    kernel = kernel_at((63 * MIB, MIB))
    plan = plan_for(kernel, modules=[Module(file("initrd", 5000))])
    assert plan.modules[0].paddr == 63 * MIB - 8192


@pytest.mark.parametrize(
    ("places", "what"),
    [
        ([(0x6000, 16)], "start_info"),
        ([(0x1010, 16)], "firmware GDT"),
        ([(0x7FF0, 64 * 1024)], None),
        ([(0x20000, 16)], "command lines"),
    ],
)
def test_a_kernel_over_the_firmwares_memory_is_refused(places, what):
    if what is None:
        assert plan_for(kernel_at(*places)).entry == places[0][0]
        return
    with pytest.raises(BootError, match=f"overlaps.*{what}|{what}.*overlaps"):
        plan_for(kernel_at(*places))


@pytest.mark.parametrize("place", [(64 * MIB - 8, 16), (0xD0000000, 16), (0xFFFFF000, 16)])
def test_a_kernel_outside_of_ram_is_refused(place):
    with pytest.raises(BootError, match="does not fit into 64 MiB"):
        plan_for(kernel_at(place))


def test_a_kernel_may_lie_above_4_gib():
    plan = plan_for(kernel_at((MIB, 4096), (5 * GIB, 4096)), 5 * GIB)
    memory = plan.memory()
    assert memory.read(5 * GIB, 17) == b"\x90" * 16 + b"\0"


def test_placing_zeroes_the_bss_and_nothing_else(file):
    plan = plan_for(kernel_at((MIB, 64)), modules=[Module(file("initrd", 5000))])
    buffer = bytearray(b"\xaa") * (64 * MIB)
    plan.place(buffer)
    assert buffer[MIB - 1 : MIB + 65] == b"\xaa" + b"\x90" * 16 + bytes(48) + b"\xaa"
    at = plan.modules[0].paddr
    assert buffer[at : at + 5000] == bytes(byte & 0xFF for byte in range(5000))
    assert buffer[at - 1] == buffer[at + 5000] == 0xAA
    assert buffer.count(0xAA) >= 64 * MIB - 64 - 5000


def test_a_buffer_of_other_items_is_indexed_in_bytes():
    plan = plan_for(kernel_at((MIB, 64)), 16 * MIB)
    buffer = bytearray(16 * MIB)
    plan.place(memoryview(buffer).cast("I"))
    assert buffer[MIB : MIB + 16] == b"\x90" * 16


def test_a_buffer_that_is_too_short_stays_as_it_is():
    plan = plan_for(kernel_at((MIB, 64)))
    buffer = bytearray(b"\xaa") * (MIB + 63)
    with pytest.raises(BootError, match="ends before 0x100040"):
        plan.place(buffer)
    assert buffer == b"\xaa" * (MIB + 63)


def test_a_file_that_shrinks_is_noticed(file, tmp_path):
    plan = plan_for(kernel_at((MIB, 64)), modules=[Module(file("initrd", 5000))])
    (tmp_path / "initrd").write_bytes(b"short")
    with pytest.raises(BootError, match="initrd: the module ends at 0x5: it had 0x1388 bytes"):
        plan.memory()


def test_the_parameter_block_to_the_byte(file):
    """Literal, as docs/params.md has it: another VMM may write this block by itself."""
    modules = [Module(file("a", 4096)), Module(file("b", 10), "two")]
    plan = plan_for(kernel_at((MIB, 4096)), modules=modules, cmdline="one")
    block = struct.pack("<8I", 0x42485650, 1, 32 + 2 * 20 + 2 * 24 + 8, MIB, 2, 2, 8, 0)
    block += struct.pack("<QQI", 0, 64 * MIB, 1) + struct.pack("<QQI", 0xFFFF0000, 0x10000, 2)
    block += struct.pack("<QQII", 0x3FFF000, 4096, 0, 0) + struct.pack("<QQII", 0x3FFE000, 10, 4, 0)
    block += b"one\0two\0"
    assert plan.rom[: len(block)] == block
    assert plan.rom[len(block) :] == ROM[len(block) :]


def test_a_modules_line_without_the_kernels_gives_an_empty_one(file):
    plan = plan_for(kernel_at((MIB, 4096)), modules=[Module(file("a", 10), "line")])
    assert plan.cmdline == b""
    assert plan_for(kernel_at((MIB, 4096))).cmdline is None


def test_a_foreign_rom_is_taken_as_it_is():
    foreign = bytes(4096)
    plan = make_plan(BARE, foreign, kernel_at((MIB, 4096)), memory=64 * MIB)
    assert plan.rom == foreign


def test_differences_are_found(file):
    plan = plan_for(kernel_at((MIB, 0x3000)), modules=[Module(file("a", 10))])
    for paddr, word in ((MIB + 3, "kernel segment"), (MIB + 0x2000, "zeroed part"), (plan.modules[0].paddr + 9, "module")):
        memory = plan.memory()
        assert first_difference(plan, memory) is None
        memory.view(paddr, 1)[:] = b"\x55"
        assert word in (first_difference(plan, memory) or "")


def test_a_plan_of_the_guest_is_plain_data():
    data = plan_for(Kernel.from_bytes(default_guest(32), "guest"), cmdline="x").to_json()
    assert data["kernel"] == {"path": "guest", "kind": "ELF32", "entry": MIB, "moved_by": 0}
    assert {"name": "start_info", "start": 0x6000, "end": 0x6038} in data["spans"]


# The machine microvm, where fw_cfg tells the firmware what to boot.


@pytest.mark.parametrize(
    ("memory", "size", "paddr"),
    [
        (64 * MIB, 1, 0x3FFF000),
        (64 * MIB, 4095, 0x3FFF000),
        (64 * MIB, 4096, 0x3FFE000),  # a byte stays free at the end, and so a page
        (64 * MIB, 4097, 0x3FFE000),
        (64 * MIB, 8191, 0x3FFE000),
        (2816 * MIB, 5000, 0xAFFFE000),
        (3 * GIB, 5000, 0xBFFFE000),
        (3 * GIB + 4096, 5000, 0xBFFFE000),
        (5 * GIB, 5000, 0xBFFFE000),
    ],
)
def test_the_initrd_goes_where_qemu_puts_it(file, memory, size, paddr):
    plan = microvm_plan(memory=memory, modules=[Module(file("initrd", size))])
    (module,) = plan.modules
    assert module.paddr == paddr == (min(memory, 3 * GIB) - 1 - size) & ~4095
    assert (f"module {module.payload.path}", paddr, paddr + size) in plan.spans


def test_the_initrd_is_not_placed_where_the_firmware_fetches_it(file):
    plan = microvm_plan(kernel_at((MIB, 64)), modules=[Module(file("initrd", 5000))])
    memory = plan.memory()
    assert memory.read(plan.modules[0].paddr, 5000) == bytes(5000)
    assert memory.read(MIB, 17) == b"\x90" * 16 + b"\0"
    buffer = bytearray(2 * MIB)
    plan.place(buffer)  # it need not reach to the initrd
    assert buffer[MIB : MIB + 16] == b"\x90" * 16


LOW = (0, 0xF0000, RAM)
LOW_ROM = (0xF0000, 0x10000, RESERVED)
ROM_ENTRY = (0xFFFF0000, 0x10000, RESERVED)


@pytest.mark.parametrize(
    ("memory", "reserved", "memmap"),
    [
        (64 * MIB, [], [LOW, LOW_ROM, (MIB, 63 * MIB, RAM), ROM_ENTRY]),
        (3 * GIB, [], [LOW, LOW_ROM, (MIB, 3071 * MIB, RAM), ROM_ENTRY]),
        (5 * GIB, [], [LOW, LOW_ROM, (MIB, 3071 * MIB, RAM), ROM_ENTRY, (4 * GIB, 2 * GIB, RAM)]),
        (
            64 * MIB,
            [(0xFD00000000, 0x300000000, RESERVED), (0xFEFFC000, 0x4000, RESERVED)],
            [
                *(LOW, LOW_ROM, (MIB, 63 * MIB, RAM), (0xFEFFC000, 0x4000, RESERVED), ROM_ENTRY),
                (0xFD00000000, 0x300000000, RESERVED),
            ],
        ),
    ],
    ids=["64M", "3G", "5G", "host-reserves"],
)
def test_the_memory_map_of_microvm(memory, reserved, memmap):
    plan = microvm_plan(memory=memory, host_reserved=[E820Entry(*entry) for entry in reserved])
    assert list(plan.memmap) == memmap
    assert list(plan.host_reserved) == reserved
    assert (plan.ram_size, sum(span.size for span in plan.ram)) == (memory, memory - 0x10000)


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [
        (0x10000, (0xF0000, 0x10000, RESERVED), (0xFFFF0000, 0x10000, RESERVED)),
        (0x20000, (0xE0000, 0x20000, RESERVED), (0xFFFE0000, 0x20000, RESERVED)),
        (0x40000, (0xE0000, 0x20000, RESERVED), (0xFFFC0000, 0x40000, RESERVED)),
    ],
)
def test_the_memory_map_around_a_larger_rom(size, low, high):
    plan = microvm_plan(rom=build(MICROVM, size=size).data)
    assert list(plan.memmap) == [(0, low[0], RAM), low, (MIB, 63 * MIB, RAM), high]
    assert ("low ROM", low[0], MIB) in plan.spans
    assert ("ROM", high[0], 4 * GIB) in plan.spans


def test_a_command_line_is_always_there_on_microvm():
    assert microvm_plan().cmdline == b""
    assert microvm_plan(cmdline="x").cmdline == b"x"
    assert len(microvm_plan(cmdline="x" * 0x7FFF).cmdline) == 0x7FFF


@pytest.mark.parametrize(
    ("places", "more", "message"),
    [
        ([(MIB, 4096)], {"cmdline": "x" * 0x8000}, r"the command line has 32768 bytes: there is room for 32767"),
        ([(MIB, 4096)], {"cmdline": "a\0b"}, r"the kernel's command line contains a NUL"),
        ([(MIB, 4096)], {"cmdline": "a\ud800"}, r"the kernel's command line contains '\\ud800', which is no character"),
        ([(MIB, 4096)], {"modules": 2}, r"2 modules: at most 1 is possible: fw_cfg has the initrd and no other"),
        ([(MIB, 4096)], {"modules": 1, "line": "x"}, r"a module with a command line: fw_cfg has none for its initrd"),
        ([(MIB, 63 * MIB)], {"modules": 1}, r"module .*m0 at 0x3ffe000-0x3fff388 overlaps kernel segment 0"),
        ([(MIB, 4096), (0x3FFF000, 4096)], {"modules": 1}, r"kernel segment 1 at 0x3fff000-.* overlaps module .*m0"),
        ([(0xF0000, 16)], {}, r"kernel segment 0 at 0xf0000-0xf0010 does not fit into 64 MiB of memory: RAM is 0x0-0xf0000, "),
        ([(0xEFFF0, 32)], {}, r"kernel segment 0 at 0xefff0-0xf0010 does not fit"),
        ([(0xFFFF8, 16)], {}, r"kernel segment 0 at 0xffff8-0x100008 does not fit"),
        ([(0x1030, 16)], {}, r"overlaps.*fw_cfg control|fw_cfg control.*overlaps"),
        ([(0x3A00, 16)], {}, r"overlaps.*fw_cfg transfer|fw_cfg transfer.*overlaps"),
        ([(0x27FFF, 16)], {}, r"overlaps.*command line|command line.*overlaps"),
        ([(0x6050, 16)], {"modules": 1}, r"overlaps.*module list|module list.*overlaps"),
    ],
)
def test_what_cannot_be_on_microvm_is_said_in_one_line(file, places, more, message):
    modules = [Module(file(f"m{number}", 5000), more.get("line")) for number in range(more.get("modules", 0))]
    with pytest.raises(BootError, match=message) as caught:
        microvm_plan(kernel_at(*places), modules=modules, cmdline=more.get("cmdline"))
    assert "\n" not in str(caught.value)


def test_an_initrd_larger_than_ram_is_refused(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(64 * MIB - 4095)
    with pytest.raises(BootError, match=r"huge: 67104769 bytes do not fit into RAM below 0x4000000: give more with --memory"):
        microvm_plan(modules=[Module(str(path))])


def test_a_kernel_may_lie_beside_what_the_firmware_uses_of_microvm():
    for place in (0x28000, 0xEFFF0, 0x100000):
        assert microvm_plan(kernel_at((place, 16))).entry == place


@pytest.mark.parametrize(
    "segments",
    [((0x1F00, 16),), ((0x28000, 16), (0x1F00, 16)), ((0x40000, 16), (0x100000, 16)), ((0x100000, 16), (1 << 32, 16))],
)
def test_fw_cfg_tells_one_range_for_the_kernel(segments):
    """The firmware stops at one that is not in one range of RAM, or below its own data: so does the plan."""
    with pytest.raises(BootError, match="must lie in one range of RAM, from 0x28000 on and below 4 GiB"):
        microvm_plan(kernel_at(*segments), memory=5 << 30)


@pytest.mark.parametrize("rom", [bytes(4096), b"\x90" * 0x10000, bytes(0x40000)], ids=["4K", "64K", "256K"])
def test_what_a_foreign_firmware_tells_is_not_known(file, rom):
    """Nor is where its data lies: a kernel may be anywhere in RAM, and the command line as long as it likes."""
    kernel = kernel_at((0x6000, 16))
    plan = microvm_plan(kernel, rom=rom, modules=[Module(file("initrd", 5000))], cmdline="x" * 0x9000)
    assert (plan.memmap, plan.rom, plan.source) == (None, rom, "fw_cfg")
    assert plan.to_json()["memmap"] is None
    assert [span.name for span in plan.spans if not span.name.startswith(("kernel", "module"))] == ["low ROM", "ROM"]
    assert plan.modules[0].paddr == 0x3FFE000
    foreign = make_plan(BARE, rom, kernel, memory=64 * MIB)
    assert (foreign.memmap, foreign.source) == (None, "params")


def test_a_blob_of_bare_on_microvm_has_its_block_filled(file):
    """Its map says the low copy of the ROM too, and the plan places what this firmware does not fetch."""
    modules = [Module(file("a", 10)), Module(file("b", 10), "two")]
    plan = microvm_plan(rom=ROM, modules=modules, cmdline="one")
    assert plan.source == "params"
    assert list(plan.memmap) == [LOW, LOW_ROM, (MIB, 63 * MIB, RAM), ROM_ENTRY]
    assert struct.unpack_from("<8I", plan.rom) == (0x42485650, 1, 32 + 4 * 20 + 2 * 24 + 8, MIB, 4, 2, 8, 0)
    assert plan.memory().read(plan.modules[0].paddr, 10) == bytes(range(10))
