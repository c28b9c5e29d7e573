"""The kernel in a bzImage or a compressed file, as the ELF file that it is."""

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from pvhboot.shim.errors import BootError

from .bzimage import find_payload, is_bzimage, read_setup_header
from .codecs import Progress, find_codec
from .elf import ELF_MAGIC
from .image import FileImage, OpenImage, SizedSource, read_head
from .wrapping import unwrap

_CHUNK: Final = 1 << 20  # bytes


class Extracted(NamedTuple):
    """An ELF `image`, and where it came from: `container` is "bzImage" or "", the data of the codec named `codec` lies at
    `offset` of the file and has `packed_size` bytes."""

    image: OpenImage
    container: str
    codec: str
    offset: int
    packed_size: int


def extract(path: str | os.PathLike[str], progress: Progress | None = None) -> Extracted:
    """Takes the ELF image out of a file; BootError, with the path in front, if there is none in it or it is one already.

    `progress` as in Kernel.open. The image is in memory.
    """
    name = os.fspath(path)
    try:
        file = FileImage(path)
        try:
            return _extract(file, progress)
        finally:
            file.close()
    except BootError as error:
        raise BootError(f"{name}: {error}") from None


def copy_of(source: SizedSource) -> Iterator[memoryview]:
    """All bytes of a source, piece by piece, each to be used before the next; BootError as read_into."""
    buffer = memoryview(bytearray(min(_CHUNK, source.size)))
    for at in range(0, source.size, _CHUNK):
        piece = buffer[: min(_CHUNK, source.size - at)]
        source.read_into(at, piece)
        yield piece


def _extract(file: FileImage, progress: Progress | None) -> Extracted:
    head = read_head(file)
    if head.startswith(ELF_MAGIC):
        raise BootError("nothing to extract: it is an ELF file already")
    codec = find_codec(head)
    image, _ = unwrap(file, progress)
    if codec is not None:
        return Extracted(image, "", codec.name, 0, file.size)
    assert is_bzimage(head)  # else unwrap has refused it
    packed = find_payload(file, read_setup_header(file))
    return Extracted(image, "bzImage", packed.codec.name, packed.offset, packed.size)
