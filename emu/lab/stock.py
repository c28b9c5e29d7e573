"""The broken firmwares as assembled: emu/lab/assembled/. `python -m pvhboot.emu.lab.stock DIR` writes them anew.

So an exercise can be had, booted and solved where there is no assembler. One file each, compressed, as most of a ROM is zeros:
the ROM, and behind it what `build --manifest` writes.
"""

import os
import sys
from collections.abc import Mapping
from importlib import resources
from typing import Final

from pvhboot.loader.codecs import decompressed, find_codec
from pvhboot.loader.image import BytesImage
from pvhboot.loader.packing import compress
from pvhboot.shim.blob import Blob, blob_from_json
from pvhboot.shim.errors import AssemblyError, BootError
from pvhboot.shim.image import build
from pvhboot.shim.machines import ROM_GRANULE
from pvhboot.shim.stock import default_blob

from .exercise import Exercise
from .exercises import EXERCISES

_LEVEL: Final = 9


def blob_of(exercise: Exercise, sources: Mapping[str, str]) -> Blob:
    """The firmware that these sources give, assembled unless it is at hand: as the exercise begins, or as it is solved.
    AssemblyError if it does not assemble, BootError if there is no assembler."""
    if sources == exercise.broken:
        return broken_blob(exercise)
    if sources == exercise.mended:
        return default_blob(exercise.machine)
    try:
        return build(exercise.machine, sources=sources)
    except AssemblyError:
        raise
    except BootError as error:
        raise BootError(f"the source was edited, and {error}") from None


def broken_blob(exercise: Exercise) -> Blob:
    """The firmware of an exercise as it begins."""
    data = unpacked(resources.files(__package__).joinpath("assembled", file_name(exercise)).read_bytes())
    return blob_from_json(data[:ROM_GRANULE], data[ROM_GRANULE:].decode())


def file_name(exercise: Exercise) -> str:
    """The file of an exercise in assembled/."""
    return f"{exercise.name}.gz"


def unpacked(data: bytes) -> bytes:
    """What a file holds."""
    image = BytesImage(data)
    codec = find_codec(data)
    assert codec is not None
    return b"".join(piece for piece, _ in decompressed(image, codec, 0, image.size))


def _contents(exercise: Exercise) -> bytes:
    """What its file holds before it is compressed, built anew."""
    blob = build(exercise.machine, sources=exercise.broken)
    return blob.data + blob.to_json().encode()


def main(argv: list[str]) -> int:
    """Writes the files into the directory that is named."""
    if len(argv) != 1:
        raise BootError("name the directory to write to: emu/lab/assembled")
    for exercise in EXERCISES:
        with open(os.path.join(argv[0], file_name(exercise)), "wb") as file:
            file.write(compress(_contents(exercise), "gzip", _LEVEL))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
