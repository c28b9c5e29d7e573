"""LinearMemory walks page tables as Unicorn's own MMU does: the same address, the same bits set, the same fault."""

import ctypes
import mmap
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pvhboot.emu.engines.unicorn_context import LiveContext
from pvhboot.emu.engines.unicorn_exceptions import ADDRESS_BITS
from pvhboot.emu.paging import LinearMemory, PageFaultError
from pvhboot.shim.abi import x86

ROOT: Final = 0x10000
RAM: Final = 8 << 30
NORESERVE: Final = 0x4000
CR4: Final = {"plain": 0, "pse": 0x10, "pae": 0x20, "long": 0x20}
SHIFTS: Final = {"plain": (22, 12), "pse": (22, 12), "pae": (30, 21, 12), "long": (39, 30, 21, 12)}
LMA, NXE, WP, PG, PE = 0x400, 0x800, 0x10000, 0x80000000, 1


class Walk(NamedTuple):
    mode: str
    address: int
    flags: tuple[int, ...]  # of the entries on the way, the last one's perhaps unused
    frame: int
    write_protect: bool
    no_execute: bool
    user: bool
    write: bool


# P and A mostly; W, U and D as they come; PS, and what is reserved, now and then.
FLAG: Final = st.builds(
    lambda present, free, large, odd: (1 if present else 0) | free & 0x66 | (0x80 if not large else 0) | odd,
    st.integers(0, 9),
    st.integers(0, 0xFF),
    st.integers(0, 3),
    st.sampled_from([0] * 20 + [1 << 63, 1 << 45, 0x2000, 0x200000]),
)
WALKS: Final = st.builds(
    Walk,
    st.sampled_from(tuple(CR4)),
    st.integers(0, (1 << 47) - 1) | st.sampled_from([0xFFFF_FFFF, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FFF8]),
    st.tuples(FLAG, FLAG, FLAG, FLAG),
    st.integers(0, RAM // 4096 - 1).map(lambda page: page << 12),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


class Memory:
    """Physical memory in a mapping."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer

    def read(self, paddr: int, size: int) -> bytes:
        return self._buffer[paddr : paddr + size]

    def write(self, paddr: int, data: bytes) -> None:
        self._buffer[paddr : paddr + len(data)] = data


def put_tables(walk: Walk, memory: Memory) -> None:
    size = 4 if walk.mode in ("plain", "pse") else 8
    shifts = SHIFTS[walk.mode]
    for level, shift in enumerate(shifts):
        flags = walk.flags[level]
        last = level == len(shifts) - 1 or (flags & 0x80 and walk.mode != "plain" and shift in (22, 21, 30))
        if walk.mode == "pae" and level == 0:  # what is reserved there is looked at when CR3 is loaded, if at all
            flags, last = flags & 1, False
        target = walk.frame & -(1 << shift) if last else ROOT + 0x1000 * (level + 1)
        entry = (target | flags) & (1 << 8 * size) - 1
        index = (walk.address >> shift) % (4096 // size)
        if walk.mode == "pae" and level == 0:
            index %= 4
        memory.write(ROOT + 0x1000 * level + index * size, entry.to_bytes(size, "little"))


@pytest.fixture(scope="module")
def buffer() -> mmap.mmap:
    return mmap.mmap(-1, RAM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)


@settings(max_examples=400, deadline=None)
@given(walk=WALKS)
@example(walk=Walk("pse", 0x12345678, (0x2087, 0, 0, 0), 0x1800000, True, False, True, True))  # above 4 GiB
def test_a_walk_is_that_of_the_processor(buffer: mmap.mmap, walk: Walk) -> None:
    import unicorn
    from unicorn.unicorn_py3.unicorn import uclib

    memory = Memory(buffer)
    tables = slice(ROOT, ROOT + 0x4000)
    memory.write(ROOT, bytes(0x4000))
    put_tables(walk, memory)
    before = buffer[tables]
    cr0, cr4 = PG | PE | (WP if walk.write_protect else 0), CR4[walk.mode]
    efer = (LMA if walk.mode == "long" else 0) | (NXE if walk.no_execute else 0)
    address = walk.address if walk.mode == "long" else walk.address % x86.ADDRESS_4G
    try:
        ours: object = LinearMemory(memory, cr0, ROOT, cr4, efer, ADDRESS_BITS).translate(address, walk.write, walk.user)
    except PageFaultError as fault:
        ours = (fault.address, fault.error_code)
    marked = buffer[tables]

    buffer[tables] = before
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    host = ctypes.c_char.from_buffer(buffer)
    uc.mem_map_ptr(0, RAM, unicorn.UC_PROT_ALL, ctypes.addressof(host))
    cpu = LiveContext(uc)
    cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer = cr0, ROOT, cr4, efer
    cpu.hflags = 0x80 | (0xC000 if walk.mode == "long" else 0x30) | (3 if walk.user else 0)
    cpu.restore()
    found = ctypes.c_uint64()
    kind = unicorn.UC_PROT_WRITE if walk.write else unicorn.UC_PROT_READ
    error = uclib.uc_vmem_translate(uc._uch, ctypes.c_uint64(address), kind, ctypes.byref(found))
    del host
    if error:
        after = LiveContext(uc)
        assert ours == (after.cr2, after.error_code)
    else:
        assert ours == found.value
        assert marked == buffer[tables]


def test_an_access_across_two_pages() -> None:
    """Read and written in two pieces, each where its page is."""
    buffer = mmap.mmap(-1, 1 << 20)
    memory = Memory(buffer)
    memory.write(ROOT, (ROOT + 0x1000 | 3).to_bytes(4, "little"))
    memory.write(ROOT + 0x1000, (0x30003).to_bytes(4, "little") + (0x50003).to_bytes(4, "little"))
    linear = LinearMemory(memory, PG | PE, ROOT, 0, 0, ADDRESS_BITS)
    linear.write(0xFFE, b"abcd")
    assert (memory.read(0x30FFE, 2), memory.read(0x50000, 2)) == (b"ab", b"cd")
    assert linear.read(0xFFE, 4) == b"abcd"
    with pytest.raises(PageFaultError) as caught:
        linear.read(0x1FFE, 4)
    assert (caught.value.address, caught.value.error_code) == (0x2000, 0)


def test_without_paging_an_address_is_one_of_32_bits() -> None:
    buffer = mmap.mmap(-1, 1 << 16)
    memory = Memory(buffer)
    memory.write(0x10, b"here")
    assert LinearMemory(memory, PE, 0, 0, 0, ADDRESS_BITS).read(0x1_0000_0010, 4) == b"here"
