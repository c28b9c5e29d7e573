"""`pvhboot extract`: the vmlinux in a vmlinuz, or in any compressed kernel."""

import argparse

from pvhboot.loader.extraction import extract
from pvhboot.loader.image import pieces
from pvhboot.loader.inspection import inspect

from ..outputs import write_files
from ..progress import shown_progress
from ..report.inspection import kernel_line


def run(arguments: argparse.Namespace) -> int:
    """Writes the ELF file, says where it was and what it is."""
    with shown_progress(f"unpacking {arguments.kernel}") as progress:
        image, wrapping = extract(arguments.kernel, progress)
    write_files([(arguments.output, lambda file: file.writelines(pieces(image, 0, image.size)))], [arguments.kernel])
    container = "bzImage, " if wrapping.in_bzimage else ""
    print(
        f"{arguments.output}: {image.size} bytes, from {arguments.kernel} ({container}{wrapping.codec}, "
        f"{wrapping.size} bytes at {wrapping.offset:#x})"
    )
    print(kernel_line(inspect(arguments.output)))
    return 0
