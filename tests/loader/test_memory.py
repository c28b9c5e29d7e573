"""GuestMemory: bounds, a ROM at two places, who is told of what; and files that are mapped instead of being copied."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader.image import BytesImage, FileImage
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import GIB, MIB, Span

PAGE = 4096
CONTENT = bytes(range(256)) * 16 * 8  # 8 pages, of which no two bytes at the distance of a page differ
MARKED = b"".join(bytes([number]) + CONTENT[number * PAGE + 1 : (number + 1) * PAGE] for number in range(8))


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


def test_a_rom_lies_at_two_places_and_is_one():
    rom = bytes(range(256)) * 16 * 3
    memory = GuestMemory([Span("RAM", 0, 0xFE000)], rom, low_rom=Span("low ROM", 0xFE000, MIB), rom_writable=True)
    assert memory.read(0xFE000, 0x2000) == rom[-0x2000:] == memory.read(0xFFFFE000, 0x2000)
    memory.view(0xFE001, 2)[:] = b"ab"
    assert memory.read(0xFFFFE000, 4) == b"\0ab\3"
    memory.view(0xFFFFFFFF, 1)[:] = b"z"
    assert memory.read(0xFFFFF, 1) == b"z"
    assert memory.read(0xFDFFF, 3) == b"\0\0a"  # RAM ends where it begins
    assert memory.view(0xFDFFF, 1)
    with pytest.raises(BootError, match="no memory"):
        memory.view(0xFDFFF, 2)


def test_a_rom_that_is_one_refuses_stores_at_both_places():
    memory = GuestMemory([Span("RAM", 0, 0xFF000)], bytes(4096), low_rom=Span("low ROM", 0xFF000, MIB))
    for paddr in (0xFF000, 0xFFFFF000):
        with pytest.raises(BootError, match="lies in the ROM"):
            memory.view(paddr, 1)


def test_listeners_are_told_of_what_was_written_and_of_nothing_else():
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(4096))
    told = []
    memory.listeners.append(lambda paddr, size: told.append((paddr, memory.read(paddr, size))))
    memory.view(0x1000, 1)[:] = b"x"
    with memory.writing(0x2000, 2) as view:
        view[:] = b"ab"
    with pytest.raises(BootError, match="lies in the ROM"), memory.writing(0xFFFFF000, 1):
        pass
    assert told == [(0x2000, b"ab")]


# Files.


@pytest.fixture(scope="session")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "content"
    path.write_bytes(MARKED)
    return path


def ram():
    return GuestMemory([Span("RAM", 0, 16 * PAGE)], bytes(PAGE))


def test_whole_pages_of_a_file_are_mapped_and_the_guests_stores_stay_its_own(file):
    memory = ram()
    image = FileImage(file)
    memory.load(PAGE, len(MARKED), image, 0)
    image.close()
    assert memory.read(0, 9 * PAGE) == bytes(PAGE) + MARKED
    assert mapped(memory, file) == [(PAGE, 9 * PAGE, 0)]
    memory.view(2 * PAGE, 3)[:] = b"abc"
    assert memory.read(2 * PAGE, 4) == b"abc\3"
    assert file.read_bytes() == MARKED
    assert memory.read(9 * PAGE, PAGE) == bytes(PAGE)


def mapped(memory, path):
    """(physical address, its end, offset in the file) of each mapping of that file."""
    host = memory.region(0, 1).host
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split()
            if fields[-1] == str(path):
                start, end = (int(word, 16) - host for word in fields[0].split("-"))
                if 0 <= start < 16 * PAGE:
                    found.append((start, end, int(fields[2], 16)))
    return found


@pytest.mark.parametrize(
    ("paddr", "offset", "size", "pages"),
    [
        (PAGE, 0, PAGE, [(PAGE, 2 * PAGE, 0)]),
        (PAGE, 0, PAGE - 1, []),
        (PAGE, PAGE, PAGE + 1, [(PAGE, 2 * PAGE, PAGE)]),
        (PAGE + 16, 16, 3 * PAGE, [(2 * PAGE, 4 * PAGE, PAGE)]),  # a head and a tail that are read
        (PAGE + 16, 16, PAGE, []),  # two pages, none of them whole
        (PAGE + 16, 32, 3 * PAGE, []),  # nowhere as it is to lie
        (0, 7 * PAGE, PAGE, [(0, PAGE, 7 * PAGE)]),
    ],
)
def test_what_is_mapped_and_what_is_read(file, paddr, offset, size, pages):
    memory = ram()
    memory.load(paddr, size, FileImage(file), offset)
    assert mapped(memory, file) == pages
    assert memory.mapped == sum(end - start for start, end, _ in pages)
    assert (memory.copied, memory.mappings) == (size - memory.mapped, len(pages))
    assert memory.read(0, 16 * PAGE) == bytes(paddr) + MARKED[offset : offset + size] + bytes(16 * PAGE - paddr - size)


@given(st.integers(0, 7 * PAGE), st.integers(0, 7 * PAGE), st.data())
def test_a_file_and_its_bytes_give_the_same_memory_and_nothing_beside_changes(file, paddr, offset, data):
    if data.draw(st.booleans()):
        paddr = paddr // PAGE * PAGE + offset % PAGE
    size = data.draw(st.integers(0, min(16 * PAGE - paddr, len(MARKED) - offset)))
    image = FileImage(file)
    memories = ram(), ram()
    for memory, source in zip(memories, (image, BytesImage(MARKED)), strict=True):
        memory.view(0, 16 * PAGE)[:] = b"\xaa" * 16 * PAGE
        memory.load(paddr, size, source, offset)
    image.close()
    one, other = (memory.read(0, 16 * PAGE) for memory in memories)
    assert one == other == b"\xaa" * paddr + MARKED[offset : offset + size] + b"\xaa" * (16 * PAGE - paddr - size)


def test_a_file_that_has_shrunk_is_read_and_so_refused(tmp_path):
    path = tmp_path / "shrinks"
    path.write_bytes(MARKED)
    image = FileImage(path)
    path.write_bytes(MARKED[: 2 * PAGE])
    memory = ram()
    with pytest.raises(BootError, match="ends at 0x2000: it had 0x8000 bytes when it was opened"):
        memory.load(0, len(MARKED), image, 0)
    assert mapped(memory, path) == []


def test_where_there_is_no_ram_nothing_is_mapped(file):
    memory = ram()
    with pytest.raises(BootError, match="no memory at 0xf000-0x11000"):
        memory.load(15 * PAGE, 2 * PAGE, FileImage(file), 0)
    with pytest.raises(BootError, match="lies in the ROM"):
        memory.load(4 * GIB - PAGE, PAGE, FileImage(file), 0)


COMMITTED = """
import sys
from pvhboot.loader.image import FileImage
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.machines import GIB, Span

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))

before = anonymous()
memory = GuestMemory([Span("RAM", 0, 3 * GIB), Span("high", 4 * GIB, 1025 * GIB)], bytes(65536))
image = FileImage(sys.argv[1])
memory.load(1 << 24, image.size, image, 0)
memory.read(1 << 24, 1 << 20)
memory.view(1024 * GIB, 1)[:] = b"x"
print(anonymous() - before)
"""


def test_a_tebibyte_of_ram_and_a_mapped_file_commit_next_to_nothing(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    done = subprocess.run([sys.executable, "-c", COMMITTED, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4096  # KiB: the reading above makes a copy of 1 MiB
