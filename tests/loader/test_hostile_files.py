"""Files that say anything: refused in one line or right, whoever looks at them; in bounded memory, and in linear time.

1240 examples here, always the same; PVHBOOT_NIGHTLY=1 makes it 24,800, each time others, which takes three minutes.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.emu.cli import main
from pvhboot.loader.inspection import inspect
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.placed import first_difference
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.loader.strategies import PvhKernel, bzimages, elves, kernels, pvh_elves, pvh_kernels
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MIB, MICROVM, MachineSpec
from pvhboot.shim.stock import default_blob

NIGHTLY = bool(os.environ.get("PVHBOOT_NIGHTLY"))
pytestmark = pytest.mark.timeout(3600 if NIGHTLY else 300)
MESSAGE_MAX = 400  # characters, beside the path


def examples(count: int) -> settings:
    """So many here and twenty times as many in a nightly run: there at random, here always the same."""
    return settings(max_examples=count * 20 if NIGHTLY else count, derandomize=not NIGHTLY, deadline=None, database=None)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples: what is in it, each writes anew."""
    return tmp_path_factory.mktemp("hostile") / "kernel"


def require_one_line(message: str, path: str) -> None:
    """What a user is told: one line, not too long, that names the file."""
    assert path in message
    assert message.isprintable(), message
    assert len(message) - len(path) <= MESSAGE_MAX, message


def contents(kernel: Kernel) -> bytes:
    """All of the uncompressed image."""
    out = bytearray(kernel.image_size)
    kernel.read_into(0, memoryview(out))
    return bytes(out)


# An ELF file, read again without the loader: System V ABI, "Object Files", by literal offsets.


def tables(data: bytes) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """Program headers and section headers; as if there were none if they lie outside of the file."""
    wide = data[4] == 2
    phoff, shoff = struct.unpack_from("<QQ" if wide else "<II", data, 32 if wide else 28)
    _, phnum, _, shnum = struct.unpack_from("<HHHH", data, 54 if wide else 42)
    names = ("type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align")
    if not wide:
        names = ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")
    program = _table(data, phoff, phnum, "<IIQQQQQQ" if wide else "<8I", names)
    sections = _table(
        data, shoff, shnum, "<IIQQQQIIQQ" if wide else "<10I", ("name", "type", "flags", "addr", "offset", "size")
    )
    return program, sections


def _table(data: bytes, at: int, count: int, code: str, names: tuple[str, ...]) -> list[dict[str, int]]:
    size = struct.calcsize(code)
    if at + size * count > len(data):
        return []
    return [dict(zip(names, struct.unpack_from(code, data, at + size * number), strict=False)) for number in range(count)]


def entry_values(data: bytes, places: Iterable[tuple[int, int]]) -> set[int]:
    """The values of all PHYS32_ENTRY notes of Xen in ranges of the file."""
    values = set()
    for at, size in places:
        end = at + size
        while at + 12 <= end <= len(data):
            name_size, size, kind = struct.unpack_from("<III", data, at)
            name_at = at + 12
            at = name_at + (name_size + 3) // 4 * 4
            if (kind, data[name_at : name_at + name_size]) == (18, b"Xen\0") and size in (4, 8) and at + size <= end:
                values.add(int.from_bytes(data[at : at + size], "little"))
            at += (size + 3) // 4 * 4
    return values


def require_facts(kernel: Kernel) -> None:
    """What a kernel that was accepted says is what its file says, and can be loaded."""
    data = contents(kernel)
    program, sections = tables(data)
    loads = sorted(
        (header["paddr"], header["offset"], header["filesz"], header["memsz"], header["flags"])
        for header in program
        if header["type"] == 1 and header["memsz"]
    )
    assert [tuple(segment) for segment in kernel.segments] == loads
    for segment in kernel.segments:
        assert segment.filesz <= segment.memsz
        assert segment.filesz == 0 or segment.offset + segment.filesz <= len(data)
    assert all(low.end <= high.paddr for low, high in pairwise(kernel.segments))
    assert kernel.segments[-1].end <= 1 << (64 if data[4] == 2 else 32)
    assert kernel.entry < 1 << 32
    assert any(segment.paddr <= kernel.entry < segment.end for segment in kernel.segments)
    in_segments = entry_values(data, ((header["offset"], header["filesz"]) for header in program if header["type"] == 4))
    in_sections = entry_values(data, ((header["offset"], header["size"]) for header in sections if header["type"] == 7))
    assert (in_segments or in_sections) == {kernel.entry}


def require_packed_size(data: bytes, size: int) -> None:
    """A bzImage says at the end of its payload how many bytes come out of it. Linux Documentation/arch/x86/boot.rst."""
    offset, length = struct.unpack_from("<II", data, 0x248)
    end = ((data[0x1F1] or 4) + 1) * 512 + offset + length
    assert struct.unpack_from("<I", data, end - 4) == (size,)


def attempt(action: Callable[[], Kernel]) -> tuple[Kernel | None, str]:
    """The kernel and "", or None and why not."""
    try:
        return action(), ""
    except BootError as error:
        return None, str(error)


def require_sense(data: bytes, path: Path) -> Kernel | None:
    """A file is a kernel or is refused, and all ways to look at it agree; the kernel."""
    path.write_bytes(data)
    kernel, refusal = attempt(lambda: Kernel.open(path))
    _, same = attempt(lambda: Kernel.from_bytes(data, str(path)))
    assert refusal == same
    found = inspect(path)
    for text in (*found.to_text().split("\n"), json.dumps(found.to_json(), allow_nan=False)):
        assert text.isprintable(), text
    assert found.bootable == (kernel is not None)
    if kernel is None:
        require_one_line(refusal, str(path))
        assert refusal == f"{path}: {found.reason}"
        assert found.entry is None
        return None
    kernel.close()
    assert (found.kind, found.entry, found.elf_entry) == (kernel.kind, kernel.entry, kernel.elf_entry)
    with Kernel.from_bytes(data, str(path)) as copy:
        require_facts(copy)
        if copy.kind.startswith("bzImage"):
            require_packed_size(data, copy.image_size)
        return copy


# What is valid.


@examples(150)
@given(pvh_kernels() | pvh_elves())
def test_every_valid_kernel_is_what_it_is(path: Path, made: PvhKernel) -> None:
    kernel = require_sense(made.data, path)
    assert kernel is not None
    assert (kernel.kind, kernel.entry, kernel.elf_entry) == (made.kind, made.entry, made.elf_entry)
    assert (kernel.segments, kernel.relocation) == (made.segments, made.relocation)
    assert contents(kernel) == made.image


# What is hostile.


@examples(400)
@given(elves())
def test_every_elf_file_is_taken_right_or_refused(path: Path, data: bytes) -> None:
    require_sense(data, path)


@examples(250)
@given(bzimages())
def test_every_bzimage_is_taken_right_or_refused(path: Path, data: bytes) -> None:
    require_sense(data, path)


@examples(250)
@given(kernels())
def test_every_file_is_taken_right_or_refused(path: Path, data: bytes) -> None:
    require_sense(data, path)


# What a boot makes of them.

SPECS = st.sampled_from((BARE, BARE, MICROVM))
MEMORY = st.sampled_from((4 * MIB, 24 * MIB, 512 * MIB, 5 << 30))


def planned(spec: MachineSpec, kernel: Kernel, memory: int, **options: Any) -> BootPlan | None:
    """The plan; None if there is none, which is told in a line."""
    try:
        return make_plan(spec, default_blob(spec).data, kernel, memory=memory, **options)
    except BootError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) - len(kernel.path) <= MESSAGE_MAX, message
        return None


def require_placed(plan: BootPlan) -> None:
    """The kernel lies where the plan says, whole, and nothing else was written."""
    kernel, data = plan.kernel, contents(plan.kernel)
    assert plan.entry - plan.moved_by == kernel.entry
    assert all(before.end <= after.start for before, after in pairwise(plan.spans))
    wanted = []
    for segment in plan.segments:
        assert any(ram.start <= segment.paddr and segment.end <= ram.end for ram in plan.ram)
        wanted.append((segment.paddr, data[segment.offset :][: segment.filesz].ljust(segment.memsz, b"\0")))
    memory = plan.memory()
    assert first_difference(plan, memory) is None
    for paddr, content in wanted:
        assert memory.read(paddr, len(content)) == content
    if plan.ram_size > 4 * MIB:
        return
    buffer = bytearray(b"\xaa") * plan.ram_size
    plan.place(buffer)
    at = 0
    for paddr, content in wanted:
        assert buffer.count(b"\xaa", at, paddr) == paddr - at
        assert buffer[paddr : paddr + len(content)] == content
        at = paddr + len(content)
    assert buffer.count(b"\xaa", at) == len(buffer) - at


@examples(75)
@given(pvh_kernels(), SPECS, MEMORY)
def test_every_valid_kernel_is_placed_right_or_refused(path: Path, made: PvhKernel, spec: MachineSpec, memory: int) -> None:
    path.write_bytes(made.data)
    with Kernel.open(path) as kernel:
        if plan := planned(spec, kernel, memory):
            require_placed(plan)


@examples(50)
@given(elves(), SPECS, MEMORY)
def test_every_elf_file_is_placed_right_or_refused(path: Path, data: bytes, spec: MachineSpec, memory: int) -> None:
    path.write_bytes(data)
    kernel, _ = attempt(lambda: Kernel.open(path))
    if kernel is not None:
        with kernel:
            if plan := planned(spec, kernel, memory):
                require_placed(plan)


# What the command line makes of them.


def run(*arguments: str) -> tuple[int, str, str]:
    """A subcommand, in this process: its status, what it printed and what it said."""
    out, errors = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        status = main(arguments)
    return status, out.getvalue(), errors.getvalue()


def require_answer(*arguments: str) -> None:
    """Status 0 or 1 with an answer, or 2 with one line that says why not."""
    status, out, errors = run(*arguments)
    if status == 2:
        assert not out
        assert errors.startswith("pvhboot: ")
        assert errors.endswith("\n")
        require_one_line(errors[:-1], arguments[1])
        return
    assert status in (0, 1)
    assert out
    assert not errors


@examples(50)
@given(kernels(), st.booleans())
def test_every_file_gets_an_answer(path: Path, data: bytes, as_json: bool) -> None:
    path.write_bytes(data)
    options = ["--json"] if as_json else []
    require_answer("inspect", str(path), *options)
    require_answer("plan", str(path), *options)
    require_answer("extract", str(path), "-o", str(path.with_suffix(".out")))
    require_answer("note", str(path), "--entry", "0x100000", "-o", str(path.with_suffix(".out")))


@examples(15)
@given(elves() | pvh_kernels().map(lambda made: made.data))
def test_every_kernel_can_be_tried(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    require_answer("boot", str(path), "--memory", "64M", "--max-instructions", "3000", "--until", "exit")
