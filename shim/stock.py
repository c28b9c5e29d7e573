"""The default blobs and the conformance guest as built: shim/prebuilt/. `python -m pvhboot.shim.stock DIR` writes them anew."""

import os
import sys
from pathlib import Path

from .blob import Blob, blob_from_json
from .errors import BootError
from .machines import FIRMWARES, MachineSpec

GUEST_BITS = (64, 32)


def guest_name(bits: int) -> str:
    """The file name of the conformance guest."""
    return f"guest-elf{bits}"


def _read(name: str) -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "prebuilt", name), "rb") as file:
        return file.read()


def default_blob(spec: MachineSpec) -> Blob:
    """The firmware of a machine as `build(spec)` makes it, without an assembler."""
    return blob_from_json(_read(f"{spec.name}.bin"), _read(f"{spec.name}.json").decode())


def default_guest(bits: int) -> bytes:
    """The conformance guest, an ELF file of 32 or 64 bits."""
    return _read(guest_name(bits))


def make_all() -> dict[str, bytes]:
    """Every file of shim/prebuilt/, built anew."""
    from .guest import build_guest
    from .image import build

    files = {guest_name(bits): build_guest(bits) for bits in GUEST_BITS}
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
