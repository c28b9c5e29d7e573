"""`pvhboot note`: a kernel with a well-formed PHYS32_ENTRY note."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pvhboot.loader.image import FileImage, pieces
from pvhboot.loader.inspection import Inspection, inspect
from pvhboot.loader.note_injection import Injection, find_entry, inject
from pvhboot.loader.sizes import parse_address
from pvhboot.shim.abi.elf import PF_X
from pvhboot.shim.errors import BootError

from ..outputs import write_files
from ..report.inspection import kernel_line, verdict_lines


def run(arguments: argparse.Namespace) -> int:
    """Writes the kernel, says what was done and what it is now."""
    path: str = arguments.kernel
    with _about(path):
        image = FileImage(path)
    try:
        with _about(path):
            injection = inject(image, None if arguments.entry is None else _entry(image, arguments.entry))

        def write(file: IO[bytes]) -> None:
            with _about(path):
                file.writelines(pieces(injection.image, 0, injection.image.size))

        write_files([(arguments.output, write)], [path])
    finally:
        image.close()
    print("\n".join(f"{arguments.output}: {line}" for line in _lines(injection)))
    found = inspect(arguments.output)
    print("\n".join([kernel_line(found), *verdict_lines(found), *_warnings(found, injection.entry)]))
    return 0


def _warnings(found: Inspection, entry: int) -> list[str]:
    loads = (header for header in found.headers if header.type == "PT_LOAD" and not header.flags & PF_X)
    holders = [header for header in loads if header.paddr <= entry < header.paddr + header.filesz]
    return [f"{found.path}: warning: the entry lies in {header.name}, which is not marked as code" for header in holders]


@contextmanager
def _about(path: str) -> Iterator[None]:
    """Names the file in front of what is wrong with it."""
    try:
        yield
    except BootError as error:
        raise BootError(f"{path}: {error}") from None


def _entry(image: FileImage, text: str) -> int:
    return parse_address(text, "--entry") if text[:1].isdigit() else find_entry(image, text)


def _lines(done: Injection) -> list[str]:
    verb = "repacked" if done.old else "injected"
    kept = f", with {done.kept} other{'s' if done.kept > 1 else ''}" if done.kept else ""
    moved = "" if done.table is None else f"; program headers moved to {done.table:#x}"
    lines = [f"PHYS32_ENTRY {done.entry:#x} {verb}: notes of {done.size} bytes at {done.offset:#x}{kept}{moved}"]
    for old in done.old:
        value = "" if old.value is None else f" {old.value:#x}"
        lines.append(f"instead of PHYS32_ENTRY{value} in {old.place}{f', with {old.fault}' if old.fault else ''}")
    return lines + [f"left out: {lost}" for lost in done.lost]
