"""No file costs more than its size explains: the work grows with it and no faster, and so does the memory.

Work is counted, not timed: bytecodes that Python executes, and bytes that are read of the file.
"""

import json
import os
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pvhboot.emu.report.text import plan_text
from pvhboot.loader import image
from pvhboot.loader.inspection import inspect
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob

NIGHTLY = bool(os.environ.get("PVHBOOT_NIGHTLY"))
MANY = 0xFFFF - 2  # with the one or two others of a shape as many headers, or sections, as the ELF header can say
PT_LOAD, PT_NOTE, PT_NULL = 1, 4, 0
PAGE = 4096
ENTRY = MIB


def note(name: bytes, kind: int, descriptor: bytes = b"") -> bytes:
    return struct.pack("<III", len(name), len(descriptor), kind) + name + descriptor


ENTRY_NOTE = note(b"Xen\0", 18, struct.pack("<I", ENTRY))


class Elf:
    """An ELF64 with a PVH entry at 1 MiB, to which headers and bytes are added; by literal offsets, and quick."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._programs: list[bytes] = []
        self._sections: list[bytes] = []
        self._code = self.add(b"\xf4" * 16)

    def add(self, data: bytes) -> int:
        """Puts bytes behind the ELF header; where they lie."""
        at = 64 + len(self._body)
        self._body += data
        return at

    def program(self, kind: int, offset: int, size: int, paddr: int = 0, memsz: int | None = None) -> "Elf":
        """A program header."""
        memory = size if memsz is None else memsz
        self._programs.append(struct.pack("<IIQQQQQQ", kind, 7, offset, paddr, paddr, size, memory, PAGE))
        return self

    def section(self, kind: int, offset: int, size: int, name: int = 0) -> "Elf":
        """A section header."""
        self._sections.append(struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 4, 0))
        return self

    def load(self, paddr: int = ENTRY, size: int = PAGE) -> "Elf":
        """A PT_LOAD of 16 bytes, the same of the file for all, and zeros."""
        return self.program(PT_LOAD, self._code, 16, paddr, size)

    def notes(self, data: bytes = ENTRY_NOTE) -> "Elf":
        """A PT_NOTE."""
        return self.program(PT_NOTE, self.add(data), len(data))

    def to_bytes(self) -> bytes:
        """The file."""
        programs, sections = b"".join(self._programs), b"".join(self._sections)
        phoff = 64 + len(self._body)
        shoff = phoff + len(programs) if sections else 0
        counts = (len(programs) // 56, 64, len(sections) // 64, 0)
        head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, ENTRY, phoff, shoff, 0, 64, 56, *counts)
        return head + bytes(self._body) + programs + sections


def disjoint_loads(count: int) -> Elf:
    """Each of one page, downwards."""
    elf = Elf().notes()
    for number in reversed(range(count)):
        elf.load(ENTRY + 2 * PAGE * number)
    return elf


def equal_loads(count: int) -> Elf:
    """All at the same place."""
    elf = Elf().notes()
    for _ in range(count):
        elf.load()
    return elf


def loads_in_reserved_memory(count: int) -> Elf:
    """None of which fits into the machine."""
    elf = Elf().notes()
    for number in range(count):
        elf.load((1 << 40) + PAGE * number)
    return elf.load()


def note_segments(count: int) -> Elf:
    """All of the same 20 bytes."""
    elf = Elf().load()
    at = elf.add(ENTRY_NOTE)
    for _ in range(count):
        elf.program(PT_NOTE, at, len(ENTRY_NOTE))
    return elf


def empty_note_segments(count: int) -> Elf:
    """Without a byte."""
    elf = Elf().load()
    for _ in range(count):
        elf.program(PT_NOTE, 0, 0)
    return elf.notes()


def different_notes(count: int) -> Elf:
    return Elf().load().notes(ENTRY_NOTE + b"".join(note(b"", number) for number in range(count)))


def equal_notes(count: int) -> Elf:
    return Elf().load().notes(ENTRY_NOTE + note(b"", 7) * count)


def entry_notes(count: int) -> Elf:
    return Elf().load().notes(ENTRY_NOTE * count)


def differing_entries(count: int) -> Elf:
    return Elf().load().notes(b"".join(note(b"Xen\0", 18, struct.pack("<I", ENTRY + number)) for number in range(count)))


def relocation_notes(count: int) -> Elf:
    return Elf().load().notes(ENTRY_NOTE + b"".join(note(b"Xen\0", 19, struct.pack("<I", 1)) for _ in range(count)))


def other_program_headers(count: int) -> Elf:
    elf = Elf().load()
    for _ in range(count):
        elf.program(PT_NULL, 1 << 63, 1 << 63)
    return elf.notes()


def note_sections(count: int) -> Elf:
    """With one string table as long as there are sections, and no end of a name in it."""
    elf = Elf().load()
    names = elf.add(b"a" * count)
    elf.section(3, names, count)
    at = elf.add(ENTRY_NOTE)
    for number in range(count):
        elf.section(7, at, len(ENTRY_NOTE), name=number)
    return elf


def empty_note_sections(count: int) -> Elf:
    elf = Elf().load().notes()
    for number in range(count):
        elf.section(7, 0, 0, name=number)
    return elf


def other_sections(count: int) -> Elf:
    """Symbol tables over the whole file, among others."""
    elf = Elf().load().notes()
    for number in range(count):
        elf.section(2 + number % 2, 0, 1000)
    return elf


SHAPES: tuple[Callable[[int], Elf], ...] = (
    disjoint_loads,
    equal_loads,
    loads_in_reserved_memory,
    note_segments,
    empty_note_segments,
    different_notes,
    equal_notes,
    entry_notes,
    differing_entries,
    relocation_notes,
    other_program_headers,
    note_sections,
    empty_note_sections,
    other_sections,
)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


def look(path: Path) -> None:
    """All that looks at a kernel file before something of it runs."""
    inspection = inspect(path)
    inspection.to_text()
    json.dumps(inspection.to_json())
    try:
        with Kernel.open(path) as kernel:
            plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=1024 * MIB, modules=[Module(str(path))])
            plan_text(plan)
            json.dumps(plan.to_json())
            plan.memory()
    except BootError:
        return


def work(action: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytecodes executed, bytes read of files, and the most memory that Python had at once, in bytes."""
    executed = read = 0
    read_into = image.FileImage.read_into

    def counted(self: image.FileImage, offset: int, buffer: memoryview) -> None:
        nonlocal read
        read += buffer.nbytes
        read_into(self, offset, buffer)

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal executed
        if event == "call":
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        executed += 1
        return trace

    with monkeypatch.context() as patch:
        patch.setattr(image.FileImage, "read_into", counted)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            action()
        finally:
            sys.settrace(before)
    tracemalloc.start()
    try:
        action()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return {"bytecodes": executed, "bytes read": read, "bytes of memory": peak}


@EACH_SHAPE
def test_work_and_memory_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: Callable[[int], Elf]
) -> None:
    path = tmp_path / "kernel"
    done = []
    for count in (1, 200, 800):
        path.write_bytes(shape(count).to_bytes())
        look(path)  # what is imported and cached counts only once
        done.append(work(lambda: look(path), monkeypatch))
    nothing, some, many = done
    # Four times the headers: four times the work and a little for the sorting; what is quadratic would take 16 times.
    assert many["bytecodes"] - nothing["bytecodes"] <= 5 * (some["bytecodes"] - nothing["bytecodes"]) + 1000, done
    assert many["bytes read"] <= 5 * some["bytes read"] + 4 * MIB, done  # some read a page for each note
    assert many["bytes of memory"] <= 5 * some["bytes of memory"], done


CPU_SECONDS = 30  # five times what the slowest takes; a list searched for each header would take more
MEMORY_BYTES = 256 << 20
IN_CI = (disjoint_loads, different_notes)


@pytest.mark.parametrize("shape", SHAPES if NIGHTLY else IN_CI, ids=lambda shape: shape.__name__)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_file_takes_little(tmp_path: Path, shape: Callable[[int], Elf]) -> None:
    """As many headers as there can be, in a process that has no more to take: what tracemalloc and bytecodes do not show."""
    path = tmp_path / "kernel"
    path.write_bytes(shape(MANY).to_bytes())
    plan, note = ["plan", "--memory", "2G"], ["note", "-o", str(path.with_suffix(".out"))]
    code = f"""
        import os, re, resource, sys
        from pvhboot.emu.cli import main
        sys.stdout = open(os.devnull, "w")
        main(["plan", "/dev/null"])
        size = int(re.search(r"VmSize:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
        resource.setrlimit(resource.RLIMIT_AS, (size + {MEMORY_BYTES},) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS},) * 2)
        for command in (["inspect"], ["inspect", "--json"], {plan!r}, {[*plan, "--json"]!r}, {note!r}):
            print(main([*command, {str(path)!r}]), file=sys.__stdout__)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert set(done.stdout.split()) <= {"0", "1", "2"}


# A small file that says something large.


def small(patches: dict[int, bytes], make: Callable[[], Elf] = lambda: Elf().notes().load()) -> bytes:
    """A small kernel with bytes of it changed."""
    data = bytearray(make().to_bytes())
    for at, new in patches.items():
        data[at : at + len(new)] = new
    return bytes(data)


NOTE_HEADER, LOAD_HEADER = 64 + 16 + 20, 64 + 16 + 20 + 56  # where the two program headers lie
LARGE = struct.pack("<Q", 1 << 63)
BZIMAGE = bytearray(b"MZ" + bytes(0x1FC) + b"\x55\xaa" + bytes(0x1000))
BZIMAGE[0x202:0x208] = b"HdrS\x0f\x02"
BZIMAGE[0x248:0x250] = struct.pack("<II", 16, 0xFFFFFFFF)

CLAIMS = {
    "p_memsz": (lambda: small({LOAD_HEADER + 40: LARGE}), "does not fit into"),
    "p_memsz above 2^64": (lambda: small({LOAD_HEADER + 40: b"\xff" * 8}), "reaches beyond"),
    "p_filesz": (lambda: small({LOAD_HEADER + 32: LARGE, LOAD_HEADER + 40: LARGE}), "of the file"),
    "p_filesz of a PT_NOTE": (lambda: small({NOTE_HEADER + 32: LARGE}), "truncated PT_NOTE 0"),
    "p_offset of a PT_NOTE": (lambda: small({NOTE_HEADER + 8: b"\xff" * 8}), "truncated PT_NOTE 0"),
    "e_phnum": (lambda: small({56: b"\xff\xff"}), "truncated program headers"),
    "e_shnum": (
        lambda: small({40: struct.pack("<Q", 64), 58: struct.pack("<HH", 64, 0xFFFF), 64 + 28: b"?"}),
        "truncated section",
    ),
    "n_namesz": (lambda: small({80: b"\xff" * 4}), "truncated note"),
    "n_descsz": (lambda: small({84: b"\xfd\xff\xff\xff"}), "truncated note"),
    "sh_size": (lambda: Elf().load().section(7, 0, 1 << 63).to_bytes(), "truncated section"),
    "payload_length": (lambda: bytes(BZIMAGE), "truncated bzImage: its payload"),
    "setup_sects": (lambda: bytes(BZIMAGE[:0x1F1] + b"\xff" + BZIMAGE[0x1F2:]), "truncated bzImage: its setup"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_costs_no_memory(tmp_path: Path, name: str) -> None:
    make, pattern = CLAIMS[name]
    path = tmp_path / "kernel"
    path.write_bytes(Elf().notes().load().to_bytes())
    look(path)
    path.write_bytes(make())
    tracemalloc.start()
    try:
        inspect(path).to_text()
        with pytest.raises(BootError, match=pattern), Kernel.open(path) as kernel:
            make_plan(BARE, default_blob(BARE).data, kernel, memory=1024 * MIB)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


# What was wrong once.


def pages_of_one(count: int) -> bytes:
    """A kernel of so many segments of a page, all of the same page of the file."""
    elf = Elf().notes()
    for number in range(count):
        elf.load(ENTRY + number * PAGE)
    data = bytearray(elf.to_bytes())
    data += bytes(-len(data) % PAGE)
    for number in range(count):
        header = LOAD_HEADER + 56 * number
        data[header + 8 : header + 16] = struct.pack("<Q", len(data))
        data[header + 32 : header + 40] = struct.pack("<Q", PAGE)
    return bytes(data) + b"\xf4" * PAGE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_kernel_of_many_segments_leaves_the_process_its_mappings(tmp_path: Path) -> None:
    """Each page was mapped by itself: 65530 of them, and the process found no memory for anything else."""
    path = tmp_path / "kernel"
    path.write_bytes(pages_of_one(5000))

    def count() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    with Kernel.open(path) as kernel:
        plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB)
        before = count()
        memory = plan.memory()
        assert count() - before < 1000
        assert memory.read(ENTRY, 5000 * PAGE) == b"\xf4" * PAGE * 5000


def test_a_kernel_that_was_closed_cannot_be_placed(tmp_path: Path) -> None:
    """That was an OSError, where pages of the file would be mapped."""
    path = tmp_path / "kernel"
    path.write_bytes(pages_of_one(1))
    with Kernel.open(path) as kernel:
        plan = make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB)
    with pytest.raises(BootError, match=r"kernel: cannot be read at"):
        plan.memory()


def test_what_overlaps_is_told_with_the_name_of_the_file() -> None:
    kernel = Kernel.from_bytes(Elf().notes().load().load(0x1000).to_bytes(), "mine")
    with pytest.raises(BootError, match=r"^mine: .* overlaps "):
        make_plan(BARE, default_blob(BARE).data, kernel, memory=64 * MIB)
