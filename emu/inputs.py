"""What a boot is of, from files: a kernel, a firmware."""

import os
from contextlib import suppress
from typing import Final

from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.limits import check_firmware
from pvhboot.shim.blob import Blob, blob_from_json
from pvhboot.shim.errors import BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.machines import ROM_MAX

from .progress import shown_progress

BUILTIN_GUEST: Final = "conformance guest"
_MANIFEST_MAX: Final = 16 << 20  # bytes
SOURCE_MAX: Final = 1 << 20  # bytes


def open_kernel(path: str | None, cache: Cache | None = None) -> Kernel:
    """The kernel of that name; None: the conformance guest."""
    if path is None:
        from pvhboot.shim.stock import GUEST_BITS, default_guest

        return Kernel.from_bytes(default_guest(GUEST_BITS[0]), BUILTIN_GUEST, cache=cache)
    with shown_progress(f"unpacking {path}") as progress:
        return Kernel.open(path, progress, cache=cache)


def read_firmware(path: str, manifest: str | None = None) -> Blob:
    """A ROM from a file, of which nothing is known but its bytes and its name; with a manifest, all that `pvhboot build` knew
    of it, though a few lines of it were patched since. BootError if that is no such manifest, or another ROM's."""
    data = read_file(path, "firmware", ROM_MAX)
    check_firmware(data, f"{path}: ")
    if manifest is None:
        return Blob(data, {}, (), {"file": os.path.basename(path)})
    from .owners import firmware_memory

    text = read_file(manifest, "manifest", _MANIFEST_MAX)
    try:
        blob = blob_from_json(data, text.decode())
        firmware_memory(blob.manifest), blob.manifest["spec"]["acpi"]  # what else is looked at
        if blob.locate(blob.symbols["reset_vector"]) is None:
            raise ValueError("nothing is said of the reset vector")
    except BootError as error:
        raise BootError(f"{manifest}: {error}: {path} is not the ROM that it was written with") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BootError(f"{manifest}: no manifest of a firmware: `pvhboot build --manifest` writes one") from None
    return blob


def read_sources(manifest: str | None, blob: Blob) -> dict[str, str]:
    """The source files by name that lie beside the manifest of a firmware, as far as it was built from files of these names;
    what cannot be read is left out. Whether they are still what was built is for SourceLines to see."""
    found: dict[str, str] = {}
    for name in {line.file for line in blob.listing} if manifest is not None else ():
        path = os.path.join(os.path.dirname(manifest or ""), name)
        if os.path.basename(name) == name and os.path.isfile(path):
            with suppress(BootError, ValueError):
                found[name] = read_file(path, "source", SOURCE_MAX).decode()
    return found
