"""The kernel in a bzImage or a compressed file, as the ELF file that it is."""

import os
from typing import NamedTuple

from pvhboot.shim.abi.elf import ELF_MAGIC
from pvhboot.shim.errors import BootError

from .bzimage import find_payload, is_bzimage, read_setup_header
from .codecs import Progress, find_codec
from .image import FileImage, OpenImage, read_head
from .wrapping import unwrap


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
