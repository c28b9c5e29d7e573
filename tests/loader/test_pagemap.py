"""Which pages are still what was mapped: by the kernel's word, and never otherwise than a comparison would say."""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvhboot.loader import pagemap
from pvhboot.loader.image import BytesImage, FileImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.placed import first_difference
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import BARE, MIB, Span
from pvhboot.shim.stock import default_blob, default_guest

PAGE = mmap.PAGESIZE
PAGES = 8
CONTENT = b"".join(bytes([number]) * PAGE for number in range(1, PAGES + 1))
AT = 0x10000


@pytest.fixture(autouse=True)
def unasked() -> Iterator[None]:
    """Whether the kernel tells is asked anew."""
    pagemap._tells.cache_clear()
    yield
    pagemap._tells.cache_clear()


@pytest.fixture
def image(tmp_path: Path) -> FileImage:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return FileImage(path)


def loaded(source: FileImage | BytesImage, paddr: int = AT, size: int = len(CONTENT), offset: int = 0) -> GuestMemory:
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(PAGE))
    memory.load(paddr, size, source, offset)
    return memory


def test_pages_that_are_only_read_are_proven(image):
    memory = loaded(image)
    assert memory.mapped == len(CONTENT)
    assert memory.unproven(AT, len(CONTENT), image, 0) == []
    memory.read(AT, len(CONTENT))
    assert memory.unproven(AT, len(CONTENT), image, 0) == []


@pytest.mark.parametrize("stored", [CONTENT[PAGE : PAGE + 1], b"\xee"], ids=["the same", "other"])
def test_a_page_that_was_stored_to_is_compared(image, stored):
    memory = loaded(image)
    memory.view(AT + PAGE, 1)[:] = stored
    memory.view(AT + 3 * PAGE, 1)[:] = memory.view(AT + 4 * PAGE, 1)[:] = stored
    spans = [(AT + PAGE, AT + 2 * PAGE), (AT + 3 * PAGE, AT + 5 * PAGE)]
    assert memory.unproven(AT, len(CONTENT), image, 0) == spans


def test_what_was_read_beside_the_mapped_pages_is_compared(image):
    memory = loaded(image, AT + 16, 3 * PAGE, 16)
    assert memory.mapped == 2 * PAGE
    assert memory.unproven(AT + 16, 3 * PAGE, image, 16) == [(AT + 16, AT + PAGE), (AT + 3 * PAGE, AT + 3 * PAGE + 16)]


@pytest.mark.parametrize(
    ("paddr", "size", "offset"),
    [(AT, len(CONTENT), PAGE), (AT + PAGE, len(CONTENT), 0), (AT, len(CONTENT) - PAGE, 0)],
    ids=["another offset", "another address", "less of it"],
)
def test_what_was_not_loaded_so_is_all_compared(image, paddr, size, offset):
    assert loaded(image).unproven(paddr, size, image, offset) == [(paddr, paddr + size)]


def test_another_source_is_all_compared(image):
    memory = loaded(image)
    assert memory.unproven(AT, len(CONTENT), BytesImage(CONTENT), 0) == [(AT, AT + len(CONTENT))]
    copied = loaded(BytesImage(CONTENT))
    assert copied.unproven(AT, len(CONTENT), image, 0) == [(AT, AT + len(CONTENT))]


def test_what_was_copied_over_a_file_is_compared(image):
    memory = loaded(image)
    memory.load(AT + PAGE, 4, BytesImage(b"over"), 0)
    assert memory.unproven(AT, len(CONTENT), image, 0) == [(AT + PAGE, AT + 2 * PAGE)]
    assert memory.unproven_zeros(AT + 3 * PAGE, PAGE) == [(AT + 3 * PAGE, AT + 4 * PAGE)]  # the file is still there


@pytest.mark.parametrize(("page", "pages"), [(0, 8), (0, 1), (3, 2), (7, 1)])
def test_a_file_that_was_mapped_over_another_takes_its_place(image, tmp_path, page, pages):
    (tmp_path / "other").write_bytes(CONTENT[::-1])
    other = FileImage(tmp_path / "other")
    memory = loaded(image)
    at, size = AT + page * PAGE, pages * PAGE
    memory.load(at, size, other, 0)
    assert memory.mappings == 2
    assert memory.unproven(AT, len(CONTENT), image, 0) == [(AT, AT + len(CONTENT))]
    assert memory.unproven(at, size, other, 0) == []
    assert memory.unproven_zeros(AT, len(CONTENT)) == [(AT, AT + len(CONTENT))]


def test_memory_that_nobody_has_touched_is_zero(image):
    memory = loaded(image)
    behind = AT + len(CONTENT)
    assert memory.unproven_zeros(behind + 1, 3 * PAGE) == [
        (behind + 1, behind + PAGE),
        (behind + 3 * PAGE, behind + 3 * PAGE + 1),
    ]
    memory.view(behind + PAGE, 1)[:] = b"\xee"
    assert memory.unproven_zeros(behind, 3 * PAGE) == [(behind + PAGE, behind + 2 * PAGE)]
    assert memory.unproven_zeros(behind + 5, 7) == [(behind + 5, behind + 12)]  # no whole page
    assert memory.unproven_zeros(behind - PAGE, 2 * PAGE) == [(behind - PAGE, behind + PAGE)]  # a file is in it


@pytest.mark.parametrize("asked", [False, True], ids=["from the start", "later"])
@pytest.mark.parametrize("answer", [OSError(errno.EACCES, "no"), b"", bytes(8)], ids=["refused", "empty", "cut off"])
def test_where_the_kernel_does_not_tell_all_is_compared(image, monkeypatch, answer, asked):
    memory = loaded(image)
    if asked:
        assert memory.unproven(AT, len(CONTENT), image, 0) == []

    def pread(*_: int) -> bytes:
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(pagemap.os, "pread", pread)
    assert memory.unproven(AT, len(CONTENT), image, 0) == [(AT, AT + len(CONTENT))]
    behind = AT + len(CONTENT)
    assert memory.unproven_zeros(behind, 2 * PAGE) == [(behind, behind + 2 * PAGE)]


@pytest.mark.parametrize("entry", [0, 1 << 61, 5 << 61, 1 << 63], ids=["untouched", "of a file", "a file's", "stored"])
def test_where_the_kernel_tells_of_other_addresses_all_is_compared(image, monkeypatch, entry):
    """As for a process that is emulated in another one."""
    memory = loaded(image)
    monkeypatch.setattr(pagemap.os, "pread", lambda _descriptor, size, _offset: entry.to_bytes(8, "little") * (size // 8))
    assert memory.unproven(AT, len(CONTENT), image, 0) == [(AT, AT + len(CONTENT))]


@pytest.mark.parametrize(
    ("state", "of_file", "is_same"),
    [  # bits 63 (present), 62 (swapped), 61 (of a file) of an entry
        (0b000, True, True),
        (0b000, False, True),
        (0b101, True, True),
        (0b101, False, False),
        (0b100, True, False),
        (0b100, False, False),
        (0b010, True, False),
        (0b010, False, False),
        (0b011, True, False),
        (0b111, True, False),
    ],
)
@pytest.mark.parametrize("others", [0, (1 << 61) - 1], ids=["no other bit", "every other bit"])
def test_an_entry_is_read_as_the_kernel_documents_it(monkeypatch, state, of_file, is_same, others):
    entry = (state << 61 | others).to_bytes(8, "little")
    asked = []
    pagemap._tells()

    def pread(_descriptor: int, size: int, offset: int) -> bytes:
        asked.append((size, offset))
        return entry * (size // 8)

    monkeypatch.setattr(pagemap.os, "pread", pread)
    spans = pagemap.stored_spans(0x7F0000000000, 2 * PAGE, of_file=of_file)
    assert spans == ([] if is_same else [(0, 2 * PAGE)])
    assert asked == [(16, 0x7F0000000000 // PAGE * 8)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(stores=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=9)), max_size=5))
def test_no_difference_is_passed_over(image, stores):
    memory = loaded(image)
    for at, data in stores:
        data = data[: len(CONTENT) - at]
        memory.view(AT + at, len(data))[:] = data
    found = memory.read(AT, len(CONTENT))
    differing = {AT + at for at in range(len(CONTENT)) if found[at] != CONTENT[at]}
    spans = memory.unproven(AT, len(CONTENT), image, 0)
    assert all(any(start <= at < end for start, end in spans) for at in differing)
    touched = {at // PAGE for start, _ in stores for at in range(start, min(start + 9, len(CONTENT)))}
    assert sum(end - start for start, end in spans) <= len(touched) * PAGE


def test_a_plan_says_where_memory_differs_first(tmp_path):
    path = tmp_path / "vmlinux"
    path.write_bytes(default_guest(64))
    with Kernel.open(path) as kernel:
        plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB)
        memory = plan.memory()
        assert first_difference(plan, memory) is None
        last = plan.segments[-1]
        assert last.memsz > last.filesz
        memory.view(last.end - 1, 1)[:] = b"x"
        zeroed = f"the zeroed part of the kernel segment at {last.paddr:#x} was changed at {last.end - 1:#x}"
        assert first_difference(plan, memory) == zeroed
        first = plan.segments[0]
        memory.view(first.paddr + 3, 1)[:] = bytes([memory.read(first.paddr + 3, 1)[0] ^ 1])
        assert first_difference(plan, memory) == f"kernel segment at {first.paddr:#x} was changed at {first.paddr + 3:#x}"


def test_no_descriptor_is_left_open(image):
    memory = loaded(image)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        memory.unproven(AT, len(CONTENT), image, 0)
    assert len(os.listdir("/proc/self/fd")) == before
