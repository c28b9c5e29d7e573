"""The default blobs and the guest's code as built: shim/prebuilt/. `python -m pvhboot.shim.stock DIR` writes them anew."""

import os
import sys
from functools import cache
from pathlib import Path

from .blob import Blob, blob_from_json
from .errors import BootError
from .guest_image import GuestImage, image_from_json
from .machines import FIRMWARES, MachineSpec

GUEST_BITS = (64, 32)

_IMAGE = "guest"


def guest_file_name(name: str) -> str:
    """The file name of a guest of the library."""
    return f"guest-{name}"


def _read(name: str) -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "prebuilt", name), "rb") as file:
        return file.read()


def default_blob(spec: MachineSpec) -> Blob:
    """The firmware of a machine as `build(spec)` makes it, without an assembler."""
    return blob_from_json(_read(f"{spec.name}.bin"), _read(f"{spec.name}.json").decode())


@cache
def guest_image() -> GuestImage:
    """The guest's code as `build_image()` makes it, without an assembler."""
    return image_from_json(_read(f"{_IMAGE}.bin"), _read(f"{_IMAGE}.json").decode())


def build_guest(name: str) -> bytes:
    """A guest of the library, an ELF file; BootError if there is none of that name."""
    from .guest_library import guest

    return guest(name).build(guest_image())


def default_guest(bits: int) -> bytes:
    """The plain conformance guest, an ELF file of 32 or 64 bits."""
    return build_guest(f"elf{bits}")


def make_all() -> dict[str, bytes]:
    """Every file of shim/prebuilt/, built anew."""
    from .guest import build_image
    from .image import build

    image = build_image()
    files = {f"{_IMAGE}.bin": image.code, f"{_IMAGE}.json": image.to_json().encode()}
    for spec in FIRMWARES.values():
        blob = build(spec)
        files |= {f"{spec.name}.bin": blob.data, f"{spec.name}.json": blob.to_json().encode()}
    return files


def main(argv: list[str]) -> int:
    """Writes the files into the directory that is named."""
    if len(argv) != 1:
        raise BootError("name the directory to write to: shim/prebuilt")
    for name, data in make_all().items():
        Path(argv[0], name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
