"""The kernel in a bzImage or a compressed file, as the ELF file that it is."""

import os

from pvhboot.shim.errors import BootError

from .codecs import Progress
from .image import FileImage, OpenImage
from .wrapping import Wrapping, unwrap


def extract(path: str | os.PathLike[str], progress: Progress | None = None) -> tuple[OpenImage, Wrapping]:
    """Takes the ELF image out of a file, and says how it was wrapped there; BootError, with the path in front, if there is none
    in it or it is one already.

    `progress` as in Kernel.open. The image is in memory.
    """
    name = os.fspath(path)
    try:
        file = FileImage(path)
        try:
            image, wrapping = unwrap(file, progress)
        finally:
            file.close()
        if not wrapping.codec:
            raise BootError("nothing to extract: it is an ELF file already")
    except BootError as error:
        raise BootError(f"{name}: {error}") from None
    return image, wrapping
