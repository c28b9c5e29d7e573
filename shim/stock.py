"""The default blobs and the guest's code as built: shim/prebuilt/. `python -m pvhboot.shim.stock DIR` writes them anew."""

import os
import sys
from functools import cache, cached_property
from typing import TYPE_CHECKING

from .blob import Blob, Description, blob_from_json
from .errors import BootError
from .machines import FIRMWARES, MachineSpec

if TYPE_CHECKING:
    from .guest_image import GuestImage

GUEST_BITS = (64, 32)

_IMAGE = "guest"
_SUMS = "SHA256SUMS"  # as sha256sum writes and checks it


def guest_file_name(name: str) -> str:
    """The file name of a guest of the library."""
    return f"guest-{name}"


def _read(name: str) -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "prebuilt", name), "rb") as file:
        return file.read()


class _StockBlob(Blob):
    """One of them, which reads what is said of it when that is first asked for: a boot that goes well does not ask."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data = _read(f"{name}.bin")

    @cached_property
    def sha256(self) -> str:
        """As _SUMS has it."""
        sums = {name: value for value, name in map(str.split, _read(_SUMS).decode().splitlines())}
        return sums[f"{self._name}.bin"]

    @cached_property
    def description(self) -> Description:
        """As it was built."""
        return blob_from_json(self.data, _read(f"{self._name}.json").decode()).description

    @property
    def patched(self) -> list[str]:
        """None of its lines."""
        return []


def default_blob(spec: MachineSpec) -> Blob:
    """The firmware of a machine as `build(spec)` makes it, without an assembler."""
    return _StockBlob(spec.name)


@cache
def guest_image() -> "GuestImage":
    """The guest's code as `build_image()` makes it, without an assembler."""
    from .guest_image import image_from_json

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
    from hashlib import sha256

    from .guest import build_image
    from .image import build

    image = build_image()
    files = {f"{_IMAGE}.bin": image.code, f"{_IMAGE}.json": image.to_json().encode()}
    for spec in FIRMWARES.values():
        blob = build(spec)
        files |= {f"{spec.name}.bin": blob.data, f"{spec.name}.json": blob.to_json().encode()}
    sums = [f"{sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return files | {_SUMS: "".join(sums).encode()}


def main(argv: list[str]) -> int:
    """Writes the files into the directory that is named."""
    if len(argv) != 1:
        raise BootError("name the directory to write to: shim/prebuilt")
    for name, data in make_all().items():
        with open(os.path.join(argv[0], name), "wb") as file:
            file.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
