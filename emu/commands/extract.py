"""`pvhboot extract`: the vmlinux in a vmlinuz, or in any compressed kernel."""

import argparse
from typing import IO

from pvhboot.loader.extraction import extract
from pvhboot.loader.image import pieces
from pvhboot.loader.inspection import inspect

from ..progress import shown_progress
from ..report.inspection import kernel_line
from .common import write_files


def run(arguments: argparse.Namespace) -> int:
    """Writes the ELF file, says where it was and what it is."""
    with shown_progress(f"unpacking {arguments.kernel}") as progress:
        extracted = extract(arguments.kernel, progress)

    def write(file: IO[bytes]) -> None:
        for piece in pieces(extracted.image, 0, extracted.image.size):
            file.write(piece)

    write_files([(arguments.output, write)], [arguments.kernel])
    container = f"{extracted.container}, " if extracted.container else ""
    print(
        f"{arguments.output}: {extracted.image.size} bytes, from {arguments.kernel} ({container}{extracted.codec}, "
        f"{extracted.packed_size} bytes at {extracted.offset:#x})"
    )
    print(kernel_line(inspect(arguments.output)))
    return 0
