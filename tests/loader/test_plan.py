"""Plans: everything has a place, nothing overlaps, and what does not fit is said before a byte is written."""

import struct

import pytest
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import Module, make_plan
from pvhboot.shim.abi import pvh
from pvhboot.shim.elfwriter import PT_LOAD, PT_NOTE, ElfSegment, note, write_elf
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, GIB, MIB, Span
from pvhboot.shim.stock import default_blob, default_guest

ROM = default_blob(BARE).data


def kernel_at(*places, entry=None):
    """A kernel with 16 bytes of code and a bss in each (paddr, memsz)."""
    entry = places[0][0] if entry is None else entry
    record = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, struct.pack("<Q", entry))
    loads = [ElfSegment(PT_LOAD, paddr, b"\x90" * 16, memsz, 7, 4096) for paddr, memsz in places]
    return Kernel.from_bytes(write_elf(64, entry, [*loads, ElfSegment(PT_NOTE, 0, record, len(record), 4, 4)], {}), "k")


def plan_for(kernel, memory=64 * MIB, **more):
    return make_plan(BARE, ROM, kernel, memory=memory, **more)


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
    with pytest.raises(BootError, match="has become shorter than 5000"):
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
        assert plan.first_difference(memory) is None
        memory.view(paddr, 1)[:] = b"\x55"
        assert word in (plan.first_difference(memory) or "")


def test_guest_memory_has_bounds():
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(4096))
    assert memory.read(0xFFFFF000, 4096) == bytes(4096)
    for paddr, size in ((MIB, 1), (MIB - 1, 2), (0xFFFFEFFF, 2), (-1, 1)):
        with pytest.raises(BootError, match="no memory"):
            memory.read(paddr, size)
    with pytest.raises(BootError, match="ROM"):
        memory.view(0xFFFFF000, 1)
    with pytest.raises(BootError, match="multiple"):
        GuestMemory([Span("RAM", 0, MIB)], bytes(100))


def test_a_plan_of_the_guest_is_plain_data():
    data = plan_for(Kernel.from_bytes(default_guest(32), "guest"), cmdline="x").to_json()
    assert data["kernel"] == {"path": "guest", "kind": "ELF32", "entry": MIB}
    assert {"name": "start_info", "start": 0x6000, "end": 0x6038} in data["spans"]
