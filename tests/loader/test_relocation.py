"""Where a kernel goes: it is moved only if it says that it can be, and then around all that is in its way."""

import struct

import pytest
from forge_elf import entry_note, forge, load_segment
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader.fw_cfg import fw_cfg_items, host_e820
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import FREEBSD, Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.pvh import NOTE_NAME
from pvhboot.shim.elfwriter import note
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, GIB, MIB, MICROVM, PC, Q35, Span
from pvhboot.shim.stock import default_blob

KIB = 1024
RAM, RESERVED = 1, 2


def kernel_at(*places, reloc=None, entry_offset=1):
    """A kernel with code in each (paddr, memsz); `reloc` are the words of a PHYS32_RELOC note, None for none."""
    notes = entry_note(places[0][0] + entry_offset)
    if reloc is not None:
        notes += note(NOTE_NAME, 19, struct.pack(f"<{len(reloc)}I", *reloc))
    return Kernel.from_bytes(forge(notes=notes, loads=[load_segment(at, memsz=size) for at, size in places]), "k")


def plan_for(kernel, memory=64 * MIB, spec=BARE, **more):
    return make_plan(spec, default_blob(spec).data, kernel, memory=memory, **more)


def reserved(start, end):
    return Span("reserved", start, end)


ANYWHERE = (0x1000,)


# What is in the way: (where it is linked, its note, what is reserved, memory, where it goes).
WAYS = {
    "nothing": ((MIB, 0x2000), ANYWHERE, [], 64 * MIB, MIB),
    "reserved there": ((MIB, 0x2000), ANYWHERE, [(MIB, MIB + 0x1000)], 64 * MIB, MIB + 0x1000),
    "its end": ((MIB, 0x2000), ANYWHERE, [(MIB + 0x1000, MIB + 0x3000)], 64 * MIB, MIB + 0x3000),
    "a gap that is too small": ((MIB, 0x2000), ANYWHERE, [(MIB, MIB + 0x1000), (MIB + 0x2000, 2 * MIB)], 64 * MIB, 2 * MIB),
    "a gap that just fits": ((MIB, 0x2000), ANYWHERE, [(MIB, MIB + 0x1000), (MIB + 0x3000, 2 * MIB)], 64 * MIB, MIB + 0x1000),
    "alignment": ((2 * MIB, 0x2000), (2 * MIB,), [(2 * MIB, 2 * MIB + 0x1000)], 64 * MIB, 4 * MIB),
    "default alignment": ((2 * MIB, 0x2000), (), [(2 * MIB, 2 * MIB + 0x1000)], 64 * MIB, MIB),  # that of its p_align
    "lowest": ((8 * MIB, 0x2000), (0x1000, 7 * MIB), [(8 * MIB, 9 * MIB)], 64 * MIB, 7 * MIB),
    "highest": ((8 * MIB, 0x2000), (0x1000, 8 * MIB - 0x3000, 8 * MIB - 2), [(8 * MIB, 9 * MIB)], 64 * MIB, 8 * MIB - 0x3000),
    "never below 1 MiB": ((8 * MIB, 0x2000), ANYWHERE, [(MIB, 9 * MIB)], 64 * MIB, 9 * MIB),
    "the firmware's memory": ((0x6000, 0x2000), ANYWHERE, [], 64 * MIB, MIB),
    "the end of RAM": ((100 * MIB, 0x2000), ANYWHERE, [], 64 * MIB, MIB),
    "the hole below 4 GiB": ((0xD0000000, 0x2000), ANYWHERE, [], 5 * GIB, MIB),
}


@pytest.mark.parametrize(("place", "note_words", "taken", "memory", "base"), WAYS.values(), ids=WAYS)
def test_a_relocatable_kernel_goes_around_what_is_in_its_way(place, note_words, taken, memory, base):
    plan = plan_for(kernel_at(place, reloc=note_words), memory, reserved=[reserved(*span) for span in taken])
    assert [(segment.paddr, segment.memsz) for segment in plan.segments] == [(base, place[1])]
    assert plan.entry == base + 1  # base + (PHYS32_ENTRY - lowest p_paddr)
    assert plan.moved_by == base - place[0]
    placed = plan.memory()
    assert placed.read(base, 64) == b"\xfa" + b"\xf4\xeb\xfd" * 21
    assert struct.unpack_from("<I", plan.rom, 12) == (base + 1,)  # the parameter block's entry


@pytest.mark.parametrize(
    ("place", "taken", "memory"),
    [
        ((MIB, 0x2000), [(MIB, MIB + 0x1000)], 64 * MIB),
        ((0x6000, 0x2000), [], 64 * MIB),
        ((100 * MIB, 0x2000), [], 64 * MIB),
    ],
)
def test_a_kernel_without_the_note_is_never_moved(place, taken, memory):
    with pytest.raises(BootError, match=r"overlaps|does not fit into 64 MiB of memory"):
        plan_for(kernel_at(place), memory, reserved=[reserved(*span) for span in taken])


def test_segments_keep_their_distances():
    kernel = kernel_at((2 * MIB, 0x1000), (2 * MIB + 0x5000, 0x3000), (4 * MIB, 0x800), reloc=ANYWHERE)
    plan = plan_for(kernel, base=0x1234000)
    assert [segment.paddr - 0x1234000 for segment in plan.segments] == [0, 0x5000, 0x200000]
    assert [segment[1:] for segment in plan.segments] == [segment[1:] for segment in kernel.segments]
    assert plan.entry == 0x1234001


def test_gaps_between_segments_need_no_memory_of_their_own_where_the_kernel_is_linked():
    """Only where it is moved to is one range for all of it wanted."""
    places = (MIB, 0x1000), (3 * MIB, 0x1000)
    hole = [reserved(2 * MIB, 2 * MIB + 0x1000)]
    assert plan_for(kernel_at(*places, reloc=ANYWHERE), reserved=hole).moved_by == 0
    with pytest.raises(BootError, match=r"(kernel segment 1|reserved) at 0x2200000-0x2201000 overlaps"):
        plan_for(kernel_at(*places, reloc=ANYWHERE), base=32 * MIB, reserved=[reserved(34 * MIB, 34 * MIB + 0x1000)])


@pytest.mark.parametrize(
    ("words", "base", "message"),
    [
        (None, 2 * MIB, r"^k: has no PHYS32_RELOC note, so it runs at 0x100000, where it is linked, and nowhere else$"),
        (
            (0x200000,),
            3 * MIB,
            r"^k: cannot run at 0x300000 with its 0x2000 bytes: its PHYS32_RELOC note asks for a multiple of 0x200000, ",
        ),
        ((0x1000, 4 * MIB), 3 * MIB, r"all of it within 0x400000-0xffffffff$"),
        ((0x1000, 0, 4 * MIB - 1), 4 * MIB - 0x1000, r"all of it within 0x0-0x3fffff$"),
        (ANYWHERE, 0x6000, r"kernel segment 0 at 0x6000-0x8000 overlaps start_info"),
        (ANYWHERE, 64 * MIB - 0x1000, r"does not fit into 64 MiB of memory"),
        (ANYWHERE, 1 << 33, r"cannot run at 0x200000000"),
    ],
)
def test_a_base_that_cannot_be_is_refused(words, base, message):
    with pytest.raises(BootError, match=message) as caught:
        plan_for(kernel_at((MIB, 0x2000), reloc=words), base=base)
    assert "\n" not in str(caught.value)


def test_the_last_byte_may_be_the_highest_that_the_note_allows():
    assert plan_for(kernel_at((MIB, 0x2000), reloc=(0x1000, 0, 4 * MIB - 1)), base=4 * MIB - 0x2000).entry == 4 * MIB - 0x1FFF


def test_the_base_where_it_is_linked_needs_no_note():
    assert plan_for(kernel_at((MIB, 0x2000)), base=MIB).moved_by == 0


def test_a_kernel_that_fits_nowhere_is_told_what_it_asks_for():
    taken = [reserved(MIB, 64 * MIB - 0x1000)]
    with pytest.raises(
        BootError,
        match=r"^k: does not fit at 0x100000-0x102000, where it is linked, and nowhere else in 64 MiB .*--machine bare$",
    ):
        plan_for(kernel_at((MIB, 0x2000), reloc=ANYWHERE), reserved=taken)


@given(
    st.lists(st.tuples(st.integers(1, 250), st.integers(1, 20)), max_size=8), st.integers(1, 40), st.sampled_from([1, 2, 8, 64])
)
def test_it_is_moved_only_if_need_be_and_to_the_lowest_place(spans, pages, align_pages):
    """Against a search by hand, in 4 MiB of RAM that is reserved here and there."""
    page, memory = 0x1000, 4 * MIB
    taken = {at for start, count in spans for at in range(start + 256, min(start + count + 256, 1024))}
    holes = [reserved(at * page, (at + 1) * page) for at in sorted(taken)]
    kernel = kernel_at((2 * MIB, pages * page), reloc=(align_pages * page,))

    def fits(base):
        return all(at not in taken for at in range(base, base + pages)) and base + pages <= 1024

    wanted = next((base for base in [512, *range(256, 1024)] if (base == 512 or not base % align_pages) and fits(base)), None)
    if wanted is None:
        with pytest.raises(BootError, match="nowhere else"):
            plan_for(kernel, memory, reserved=holes)
    elif len(holes) < 100:
        assert plan_for(kernel, memory, reserved=holes).segments[0].paddr == wanted * page


# What the guest and QEMU's kind of firmware are told.


@pytest.mark.parametrize("spec", [BARE, MICROVM, PC, Q35], ids=lambda spec: spec.name)
def test_reserved_ram_is_told_as_reserved_and_kept_free(spec):
    holes = [reserved(4 * MIB, 8 * MIB), reserved(32 * MIB, 32 * MIB + 0x1000)]
    plan = plan_for(kernel_at((4 * MIB, 0x2000), reloc=ANYWHERE), spec=spec, reserved=holes)
    assert plan.segments[0].paddr == MIB
    told = [(entry.addr, entry.addr + entry.size, entry.type) for entry in plan.memmap]
    assert told == sorted(told)
    low = [entry for entry in told if entry[0] < 64 * MIB][-5:]
    assert low == [
        (0 if spec is BARE else MIB, 4 * MIB, RAM),
        (4 * MIB, 8 * MIB, RESERVED),
        (8 * MIB, 32 * MIB, RAM),
        (32 * MIB, 32 * MIB + 0x1000, RESERVED),
        (32 * MIB + 0x1000, 64 * MIB, RAM),
    ]
    assert sum(span.size for span in plan.ram) - sum(span.size for span in plan.usable_ram) == 4 * MIB + 0x1000
    if spec is not BARE:
        file = {(entry.addr, entry.size, entry.type) for entry in host_e820(plan)}
        assert {(4 * MIB, 4 * MIB, RESERVED), (8 * MIB, 24 * MIB, RAM)} <= file


def test_fw_cfg_tells_where_the_kernel_is_loaded():
    plan = plan_for(kernel_at((MIB, 0x2000), reloc=ANYWHERE), spec=MICROVM, base=32 * MIB)
    items = fw_cfg_items(plan)
    values = []
    for key in (fw_cfg.FW_CFG_KERNEL_ADDR, fw_cfg.FW_CFG_KERNEL_SIZE, fw_cfg.FW_CFG_KERNEL_ENTRY):
        buffer = bytearray(4)
        items[key].read_into(0, memoryview(buffer))
        values.append(int.from_bytes(buffer, "little"))
    assert values == [32 * MIB, 0x2000, 32 * MIB + 1]


def test_where_one_range_is_wanted_the_kernel_is_moved_for_its_gaps_too():
    """fw_cfg tells one range for all of it."""
    places = (MIB, 0x1000), (3 * MIB, 0x1000)
    hole = [reserved(2 * MIB, 2 * MIB + 0x1000)]
    assert plan_for(kernel_at(*places, reloc=ANYWHERE), spec=MICROVM, reserved=hole).segments[0].paddr == 2 * MIB + 0x1000


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (MIB + 1, 2 * MIB, "whole pages of 4 KiB"),
        (MIB, MIB + 0x800, "whole pages of 4 KiB"),
        (MIB, MIB, "whole pages of 4 KiB"),
        (63 * MIB, 65 * MIB, r"cannot reserve 0x3f00000-0x4100000: RAM is 0x0-0x4000000 with 64 MiB of memory"),
        (0x6000, 0x7000, "reserved at 0x6000-0x7000 overlaps start_info|start_info at 0x6000-0x6038 overlaps reserved"),
    ],
)
def test_what_cannot_be_reserved(start, end, message):
    with pytest.raises(BootError, match=message):
        plan_for(kernel_at((2 * MIB, 0x2000)), reserved=[reserved(start, end)])


def test_overlapping_reservations_are_refused():
    with pytest.raises(BootError, match="reserved at 0x400000-0x600000 overlaps reserved at 0x300000-0x500000"):
        plan_for(kernel_at((MIB, 0x2000)), reserved=[reserved(4 * MIB, 6 * MIB), reserved(3 * MIB, 5 * MIB)])


def test_more_reservations_than_the_memory_map_has_places_for():
    holes = [reserved(2 * MIB + at * 0x2000, 2 * MIB + at * 0x2000 + 0x1000) for at in range(63)]
    with pytest.raises(BootError, match=r"128 entries in the memory map: Linux takes 126"):
        plan_for(kernel_at((MIB, 0x2000)), reserved=holes)
    assert len(plan_for(kernel_at((MIB, 0x2000)), reserved=holes[:62]).memmap) == 126


# Modules.


@pytest.fixture
def module(tmp_path):
    def make(size, line="line"):
        path = tmp_path / f"m{size}"
        path.write_bytes(bytes(at & 0xFF for at in range(size)))
        return Module(str(path), line)

    return make


def test_modules_of_linux_go_around_what_is_reserved(module):
    taken = [reserved(63 * MIB, 64 * MIB - 0x2000)]
    plan = plan_for(kernel_at((MIB, 0x2000)), reserved=taken, modules=[module(5000), module(5001)])
    assert [placed.paddr for placed in plan.modules] == [64 * MIB - 0x2000, 63 * MIB - 0x2000]


def test_freebsd_has_its_modules_right_behind_the_kernel_in_order(module):
    plan = plan_for(kernel_at((2 * MIB, 0x2345)), guest=FREEBSD, modules=[module(5000, "a"), module(4096, ""), module(1, "c")])
    assert [placed.paddr for placed in plan.modules] == [2 * MIB + 0x3000, 2 * MIB + 0x5000, 2 * MIB + 0x6000]
    assert [placed.cmdline for placed in plan.modules] == [b"a", b"", b"c"]
    assert plan.memory().read(2 * MIB + 0x3000, 5000) == bytes(at & 0xFF for at in range(5000))


@pytest.mark.parametrize(
    ("memory", "holes", "sizes", "message"),
    [
        (64 * MIB, [], [None], r"a module without a command line, as Linux's initrd is: .* give --module FILE,CMDLINE$"),
        (
            2 * MIB + 0x4000,
            [],
            [0x2000],
            r"no room for its 8192 bytes directly behind the kernel, .* in 2064 KiB of memory: give more with --memory$",
        ),
        (
            2 * MIB + 0x2000,
            [],
            [],
            r"no free page directly behind the kernel, at 0x202000: FreeBSD takes its first memory there",
        ),
        (64 * MIB, [(2 * MIB + 0x4000, 2 * MIB + 0x5000)], [0x1800], r"no room for its 6144 bytes directly behind the kernel"),
        (64 * MIB, [(2 * MIB + 0x2000, 2 * MIB + 0x5000)], [], r"no free page directly behind the kernel"),
    ],
)
def test_what_freebsd_cannot_have(module, memory, holes, sizes, message):
    modules = [module(100, None) if size is None else module(size) for size in sizes]
    with pytest.raises(BootError, match=message):
        plan_for(
            kernel_at((2 * MIB, 0x2000)), memory, guest=FREEBSD, reserved=[reserved(*hole) for hole in holes], modules=modules
        )


def test_freebsds_modules_end_below_1_gib(module):
    assert plan_for(kernel_at((GIB - 0x4000, 0x2000)), 2 * GIB, guest=FREEBSD, modules=[module(0x1000)]).modules
    with pytest.raises(BootError, match="and below 0x40000000, in 2 GiB of memory"):
        plan_for(kernel_at((GIB - 0x4000, 0x2000)), 2 * GIB, guest=FREEBSD, modules=[module(0x1001)])


def test_fw_cfg_has_no_module_for_freebsd(module):
    assert plan_for(kernel_at((2 * MIB, 0x2000)), spec=MICROVM, guest=FREEBSD).modules == ()
    with pytest.raises(BootError, match=r"fw_cfg has one initrd without a command line, which is no module for FreeBSD"):
        plan_for(kernel_at((2 * MIB, 0x2000)), spec=MICROVM, guest=FREEBSD, modules=[module(100)])
