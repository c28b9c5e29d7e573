"""`pvhboot initrd`: an initramfs from directories, existing archives and device nodes."""

import argparse
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Final

from pvhboot.loader.cpio import TIME_MAX, Entry
from pvhboot.loader.initramfs import Buffer, Existing
from pvhboot.loader.tree import parse_device, read_tree, with_devices
from pvhboot.shim.errors import BootError

from ..outputs import write_files
from ..progress import shown_progress

_CODECS: Final = {  # by the suffix of the output
    "": "",
    ".cpio": "",
    ".img": "",
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".lzma": "lzma",
    ".lz4": "lz4",
    ".zst": "zstd",
}
_EPOCH: Final = "SOURCE_DATE_EPOCH"  # reproducible-builds.org/specs/source-date-epoch


def run(arguments: argparse.Namespace) -> int:
    """Writes the buffer, says what is in it."""
    output: str = arguments.output
    codec = _codec(output)
    mtime = _mtime()
    devices = [parse_device(text) for text in arguments.device]
    with ExitStack() as stack:
        parts = _with_devices([_part(path, output, stack) for path in arguments.source], devices)
        buffer = Buffer(parts, codec, mtime)

        def write(file: IO[bytes]) -> None:
            with shown_progress(f"writing {output}") as progress:
                file.writelines(buffer.pieces(progress))

        write_files([(output, write)], [part.path for part in parts if isinstance(part, Existing)])
    packed = codec if any(not isinstance(part, Existing) for part in parts) else ""
    written = "" if buffer.size == buffer.unpacked else f", {buffer.size} as written"
    archives = "" if len(parts) == 1 else f"{len(parts)} archives, "
    entries = f"{buffer.entries} {'entry' if buffer.entries == 1 else 'entries'}"
    print(f"{output}: {archives}{entries}, {buffer.unpacked} bytes{written}{f' ({packed})' if packed else ''}")
    return 0


def _codec(output: str) -> str:
    suffix = os.path.splitext(output)[1]
    if suffix not in _CODECS:
        known = ", ".join(name for name in _CODECS if name)
        raise BootError(f"{output}: the suffix {suffix} says nothing about compression: give one of {known}")
    return _CODECS[suffix]


def _mtime() -> int:
    text = os.environ.get(_EPOCH, "0")
    if not (text.isascii() and text.isdigit()) or int(text) > TIME_MAX:
        raise BootError(f"{_EPOCH} is {text!r}: seconds since 1970 would be right, 0 to {TIME_MAX}")
    return int(text)


def _part(path: str, output: str, stack: ExitStack) -> Existing | list[Entry]:
    if os.path.isdir(path):
        source = os.path.realpath(path)
        if os.path.commonpath([source, os.path.realpath(output)]) == source:
            raise BootError(f"{output}: lies in {path}, which it is made from: write it elsewhere")
        return read_tree(path)
    with shown_progress(f"checking {path}") as progress:
        existing = Existing(path, progress)
    stack.callback(existing.close)
    return existing


def _with_devices(parts: Sequence[Existing | list[Entry]], devices: Sequence[Entry]) -> list[Existing | list[Entry]]:
    """With the devices in the archive of the last directory, or in one of their own at the end."""
    out = list(parts)
    if not devices:
        return out
    for at, part in reversed(list(enumerate(parts))):
        if not isinstance(part, Existing):
            out[at] = with_devices(part, devices)
            return out
    return [*out, with_devices([], devices)]
